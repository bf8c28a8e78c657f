"""What draws completions, as those who ask for them see it.

Two do it: `programs`, with a pool whose slots are refilled, for many completions of very different lengths;
and `lockstep`, which decodes all of them in step and can give them out while they grow. Both draw the same
completions: what one is depends on its prompt and its key alone.

Shapes: B prompts of all processes, G completions per prompt, R response tokens.
"""

import dataclasses
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding

from dig_jax.machines import parallel
from dig_jax.machines.parallel import MeshJit
from dig_jax.models.inputs import Prompts
from dig_jax.rollout.engine import Rollout
from dig_jax.rollout.sampling import Sampling
from dig_jax.rollout.thinking import Budget


@dataclasses.dataclass(frozen=True)
class Limits:
    """How to draw completions. Hashable: each value compiles programs of its own.

    Attributes:
        sampling: the distribution to draw from.
        max_new_tokens: R.
        slots: completions of a prompt decoded at a time, the next when one ends; 0 for all G.
        rows: prompts decoded at a time, over all devices, the next when one is done; 0 for all.
        routing: keep which experts the tokens went to, of a model that has experts.
    """

    sampling: Sampling
    max_new_tokens: int
    slots: int = 0
    rows: int = 0
    routing: bool = False


class Drawer(Protocol):
    """Draws completions on a mesh."""

    @property
    def mesh(self) -> Mesh:
        """The devices it draws on."""
        ...

    @property
    def moved_bytes(self) -> int:
        """Bytes that travel between devices in `weights`, over all devices."""
        ...

    def weights(self, params: nnx.State, /) -> nnx.State:
        """A copy of the policy's parameters, in the dtype of computation, laid out for drawing."""
        ...

    def draw(
        self,
        weights: nnx.State,
        prompts: Prompts,
        rows: np.ndarray,
        keys: jax.Array,
        limits: Limits,
        budget: Budget | None = None,
    ) -> Rollout:
        """Draws G completions of every prompt.

        Args:
            weights: from `weights`.
            prompts: those of B prompts that this process has; its devices need some of them at least.
            rows: int, ascending, which of the B prompts these are.
            keys: typed PRNG keys [B, G], on every process those of all.
            limits: how.
            budget: of thought, [B, G]; None for as much as there is.

        Returns:
            The completions of all prompts and the decoding steps they took, numpy, on every process.
        """
        ...


def weights_program(graphdef: nnx.GraphDef, params: nnx.State, mesh: Mesh) -> tuple[MeshJit, int]:
    """The program of `Drawer.weights` for parameters like `params`, and its `Drawer.moved_bytes`.

    Adapters stay apart, so that drawing computes what training does.
    """

    def weights(params: nnx.State) -> nnx.State:
        return nnx.state(nnx.merge(graphdef, params).in_compute_dtype(), nnx.Param)

    copied = jax.eval_shape(weights, params)
    placed = parallel.shardings(copied, mesh)
    return parallel.jit(weights, mesh, out_shardings=placed), _moved_bytes(params, copied, placed)


def _moved_bytes(params: nnx.State, copied: nnx.State, placed: nnx.State) -> int:
    """Bytes of the copy's shards that their devices do not have of the parameters already."""

    def volume(ranges: list[range]) -> int:
        return int(np.prod([len(r) for r in ranges]))

    def moved(before: Any, after: Any, sharding: NamedSharding) -> int:
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
        return total * jnp.dtype(after.dtype).itemsize

    return sum(jax.tree.leaves(jax.tree.map(moved, params, copied, placed)))
