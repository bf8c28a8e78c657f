"""Experts on eight simulated devices, for test_experts: prints the largest relative error of each layout.

A program of its own, since the number of devices is fixed when JAX starts.
"""

import json

import jax
from ml_collections import ConfigDict

from dig_jax.machines import parallel
from dig_jax.models.nn import expert_parallel
from dig_jax.models.nn.experts import Experts, experts_mlp
from dig_jax.models.nn.grouped import LoopGrouped
from dig_jax.models.nn.megablox import MegabloxGrouped
from tests.models.nn.test_experts import Layer, draw, furthest, stacked

# Data, fsdp, expert, tensor, and the number of tokens: 36 are whole on all devices.
LAYOUTS = [(1, 2, 2, 2, 64), (1, 1, 4, 2, 64), (2, 1, 4, 1, 64), (1, 1, 1, 8, 64), (1, 2, 4, 1, 36)]


def error(layer: Layer, sizes: tuple[int, ...], room: float) -> float:
    mesh = parallel.make_mesh(ConfigDict(dict(zip(parallel.AXES, sizes, strict=True))))

    def run(*args: jax.Array) -> jax.Array:
        return experts_mlp(*args, how=Experts(LoopGrouped(), room))

    def results(x: jax.Array) -> list[jax.Array]:
        return Layer(x, layer.ids, layer.weights, layer.gate_up, layer.down, layer.cotangent).results(run)

    return furthest(parallel.jit(results, mesh)(layer.x), layer.results(experts_mlp))


def error_of_stack(layer: Layer, sizes: tuple[int, ...]) -> float:
    mesh = parallel.make_mesh(ConfigDict(dict(zip(parallel.AXES, sizes, strict=True))))
    how = Experts(MegabloxGrouped(interpret=True), 1.0)

    def run(x: jax.Array) -> jax.Array:
        return experts_mlp(x, layer.ids, layer.weights, *stacked(layer, 1), how)

    expected = experts_mlp(layer.x, layer.ids, layer.weights, layer.gate_up, layer.down)
    return furthest([parallel.jit(run, mesh)(layer.x)], [expected])


def main() -> None:
    expert_parallel.LEAST_PLACES = 1
    errors = {
        f"{sizes}, room {room}": error(draw(tokens, favour=1.5), sizes, room)
        for *sizes, tokens in LAYOUTS
        for room in (1.0, 8.0)
    }
    print(json.dumps(errors | {"of a stack": error_of_stack(draw(64, favour=1.5), (1, 2, 2, 2))}))


if __name__ == "__main__":
    main()
