"""The rollout's programs, compiled for the mesh it runs on: `sampler` runs them and `compile` measures them.

Sampling has its own mesh over the devices of training (`config.rollout.mesh`). Training splits the parameters
over `fsdp`, and gathers each layer's when it comes to it; decoding would have to gather all of them for every
token, so it wants whole layers, or layers split over `tensor`.
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
from dig_jax.models.inputs import Prompts
from dig_jax.models.nn.decoder import PROMPT_CACHE, RESPONSE_CACHE, PromptCache, ResponseCache
from dig_jax.rollout import pool
from dig_jax.rollout.engine import Rollout
from dig_jax.rollout.pool import Pool
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
    """

    sampling: Sampling
    max_new_tokens: int
    slots: int = 0
    rows: int = 0


@dataclasses.dataclass(frozen=True)
class RolloutPrograms:
    """What sampling compiles.

    Attributes:
        mesh: they run on.
        weights: parameters as training has them -> a copy in the dtype of computation, as `mesh` splits it.
            Adapters stay apart, so that it computes what training does.
        fill: weights, Prompts, keys [B,G], Limits, Budget [B,G] or None -> Pool.
        drain: weights, Pool, keys, Limits -> Rollout, Pool; the pool is donated to the one that comes back.
        moved_bytes: bytes that travel between devices in `weights`, over all devices.
    """

    mesh: Mesh
    weights: MeshJit
    fill: MeshJit
    drain: MeshJit
    moved_bytes: int


def rollout_programs(graphdef: nnx.GraphDef, params: nnx.State, mesh: Mesh) -> RolloutPrograms:
    """Programs on `mesh` for parameters like `params`, as training places them: arrays or shapes."""
    shards = parallel.data_shards(mesh)

    def weights(params: nnx.State) -> nnx.State:
        return nnx.state(nnx.merge(graphdef, params).in_compute_dtype(), nnx.Param)

    def fill(
        weights: nnx.State, prompts: Prompts, keys: jax.Array, limits: Limits, budget: Budget | None = None
    ) -> Pool:
        filled = pool.fill(
            nnx.merge(graphdef, weights),
            prompts,
            keys,
            sampling=limits.sampling,
            max_new_tokens=limits.max_new_tokens,
            slots=limits.slots or keys.shape[1],
            rows=limits.rows or keys.shape[0],
            shards=shards,
            budget=budget,
        )
        return jax.lax.with_sharding_constraint(filled, pool_shardings(filled, mesh))

    def drain(weights: nnx.State, filled: Pool, keys: jax.Array, limits: Limits) -> tuple[Rollout, Pool]:
        ended = pool.run(nnx.merge(graphdef, weights), filled, keys, sampling=limits.sampling)
        drawn = parallel.split_rows(pool.to_rollout(ended, keys.shape[1]), mesh)
        return drawn, jax.lax.with_sharding_constraint(ended, pool_shardings(ended, mesh))

    copied = jax.eval_shape(weights, params)
    placed = parallel.shardings(copied, mesh)
    return RolloutPrograms(
        mesh=mesh,
        weights=parallel.jit(weights, mesh, out_shardings=placed),
        fill=parallel.jit(fill, mesh, static_argnums=3),
        drain=parallel.jit(drain, mesh, static_argnums=3, donate_argnums=1),
        moved_bytes=_moved_bytes(params, copied, placed),
    )


def pool_shardings(filled: Pool, mesh: Mesh) -> Pool:
    """Where every array of a pool lies: prompts and slots over the data axes, heads over `tensor`."""
    rows = parallel.batch_sharding(mesh)

    def caches(cache: Any, names: tuple[str | None, ...]) -> Any:
        spec = parallel.mesh_axes(names, cache.k.shape, mesh, f"rollout cache {type(cache).__name__}")
        return jax.tree.map(lambda x: NamedSharding(mesh, spec) if x.ndim > 1 else rows, cache)

    def place(x: Any) -> Any:
        if isinstance(x, PromptCache):
            return caches(x, PROMPT_CACHE)
        if isinstance(x, ResponseCache):
            return caches(x, RESPONSE_CACHE)
        return rows if x.ndim else parallel.replicated(mesh)

    return jax.tree.map(place, filled, is_leaf=lambda x: isinstance(x, PromptCache | ResponseCache))


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
