"""The weights to draw with: a copy of the policy's parameters, in the form and the places that drawing wants.

What training has in that form and place already is not copied. With adapters on bfloat16 parameters, and a
mixture's experts split alike in training and in sampling, that is nearly all.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding

from dig_jax.machines import parallel
from dig_jax.machines.parallel import MeshJit
from dig_jax.models.nn.sampling_copy import Form, sampling_copy

Path = tuple[Any, ...]


@dataclasses.dataclass(frozen=True)
class WeightsCopy:
    """Makes the copy of the weights that is drawn with. Called with parameters as training has them.

    Attributes:
        program: parameters -> those arrays of the copy that are made.
        shared: of the arrays that training has already, by their paths, where drawing has them.
        graphdef: structure of the model whose parameters come out.
        moved_bytes: see `Drawer`.
    """

    program: MeshJit
    shared: dict[Path, NamedSharding]
    graphdef: nnx.GraphDef
    moved_bytes: int

    def __call__(self, params: nnx.State) -> nnx.State:
        """The copy. It shares arrays with `params`, so it ends where they are donated."""
        own = dict(nnx.to_flat_state(params))
        shared = [
            (path, own[path].replace(_seen_as(own[path].get_value(), sharding)))
            for path, sharding in self.shared.items()
        ]
        return nnx.merge_state(self.program(params), nnx.from_flat_state(shared))

    def lower(self, params: nnx.State) -> jax.stages.Lowered:
        """The program for parameters that may be shapes with shardings."""
        return self.program.lower(params)

    def eval_shape(self, params: nnx.State) -> nnx.State:
        """Shapes of the whole copy, as `parallel.shardings` reads them."""
        own = dict(nnx.to_flat_state(params))
        shared = [(path, own[path]) for path in self.shared]
        return nnx.merge_state(self.made(params), nnx.from_flat_state(shared))

    def made(self, params: nnx.State) -> nnx.State:
        """Shapes of what is not shared."""
        return self.program.eval_shape(params)


def weights_copy(graphdef: nnx.GraphDef, params: nnx.State, mesh: Mesh, form: Form) -> WeightsCopy:
    """The copy for drawing of parameters like `params`, in the given form on `mesh`.

    Adapters stay apart, so that drawing computes what training does.
    """

    def copied(params: nnx.State, form: Form) -> Any:
        return sampling_copy(nnx.merge(graphdef, params), form)

    def shapes(form: Form) -> tuple[nnx.GraphDef, nnx.State]:
        return nnx.split(nnx.eval_shape(lambda params: copied(params, form), params), nnx.Param)

    own_graphdef, whole = shapes(form)
    shared = _as_they_are(params, whole, mesh)

    def made(params: nnx.State) -> nnx.State:
        return _without(nnx.state(copied(params, form), nnx.Param), shared)

    program = parallel.jit(made, mesh, out_shardings=parallel.shardings(_without(whole, shared), mesh))
    stacked = shapes(dataclasses.replace(form, apart=False))[1]
    return WeightsCopy(program, shared, own_graphdef, _moved_bytes(params, stacked, mesh))


def _as_they_are(params: nnx.State, copied: nnx.State, mesh: Mesh) -> dict[Path, NamedSharding]:
    """Of the arrays that are in the copy what they are in `params`, and where: where the copy has them.

    Args:
        params: arrays or shapes, where training has them.
        copied: shapes of the copy.
        mesh: of the copy.
    """
    before, placed = (
        dict(nnx.to_flat_state(params)),
        dict(nnx.to_flat_state(parallel.shardings(copied, mesh))),
    )
    same = {}
    for path, after in nnx.to_flat_state(copied):
        sharding = placed[path].get_value()
        own = before[path].get_value() if path in before else None
        if own is None or (own.shape, own.dtype) != (after.shape, after.dtype):
            continue
        if own.sharding.is_equivalent_to(sharding, len(own.shape)):
            same[path] = sharding
    return same


def _without(state: nnx.State, paths: dict[Path, Any]) -> nnx.State:
    return nnx.from_flat_state([(path, x) for path, x in nnx.to_flat_state(state) if path not in paths])


def _seen_as(x: jax.Array, sharding: NamedSharding) -> jax.Array:
    """The same shards under an equivalent sharding: no program runs, and nothing is copied."""
    shards = [shard.data for shard in x.addressable_shards]
    return jax.make_array_from_single_device_arrays(x.shape, sharding, shards)


def _moved_bytes(params: nnx.State, copied: nnx.State, mesh: Mesh) -> int:
    """Bytes of the copy's shards that their devices do not have of the parameters already.

    Args:
        params: where training has them.
        copied: shapes of the copy, with the same names: how it is cut up does not change what moves.
            Scales of int8 kernels are not counted: they are small.
        mesh: of the copy.
    """

    def volume(ranges: list[range]) -> int:
        return int(np.prod([len(r) for r in ranges]))

    def moved(before: Any, sharding: NamedSharding) -> int:
        shape = before.shape
        have = before.sharding.devices_indices_map(shape)
        total = 0
        for device, index in sharding.devices_indices_map(shape).items():
            wanted = [range(*s.indices(n)) for s, n in zip(index, shape, strict=True)]
            owned = [range(*s.indices(n)) for s, n in zip(have[device], shape, strict=True)]
            common = [
                range(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(wanted, owned, strict=True)
            ]
            total += volume(wanted) - volume(common)
        return total

    after, placed = (dict(nnx.to_flat_state(tree)) for tree in (copied, parallel.shardings(params, mesh)))
    return sum(
        moved(before.get_value(), placed[path].get_value()) * jnp.dtype(after[path].dtype).itemsize
        for path, before in nnx.to_flat_state(params)
    )
