"""Drawing with a pool: the programs of the rollout, compiled for its mesh. `compile` measures them.

Sampling has its own mesh over the devices of training (`config.rollout.mesh`). Training splits the parameters
over `fsdp`, and gathers each layer's when it comes to it; decoding would have to gather all of them for every
token, so it wants whole layers, or layers split over `tensor`.
"""

import dataclasses
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding

from dig_jax.machines import parallel
from dig_jax.machines.parallel import MeshJit
from dig_jax.models.inputs import Prompts
from dig_jax.models.nn.caches import (
    PROMPT_CACHE,
    PROMPT_ROUTING,
    RESPONSE_CACHE,
    RESPONSE_ROUTING,
    PromptCache,
    ResponseCache,
)
from dig_jax.models.nn.sampling_copy import AS_TRAINED, Form
from dig_jax.rollout import pool
from dig_jax.rollout.drawer import Limits
from dig_jax.rollout.engine import Rollout
from dig_jax.rollout.pool import Pool
from dig_jax.rollout.thinking import Budget
from dig_jax.rollout.weights import WeightsCopy, weights_copy


@dataclasses.dataclass(frozen=True)
class RolloutPrograms:
    """A `Drawer` with a pool, and what it compiles.

    Attributes:
        mesh: the devices of the programs.
        weights: parameters as training has them -> a copy in its own form, as `mesh` splits it.
        fill: weights, Prompts, keys [B,G], Limits, Budget [B,G] or None -> Pool.
        drain: weights, Pool, keys, Limits -> Rollout, Pool; the pool is donated to the one that comes back.
        moved_bytes: bytes that travel between devices in `weights`, over all devices.
    """

    mesh: Mesh
    weights: WeightsCopy
    fill: MeshJit
    drain: MeshJit
    moved_bytes: int

    def draw(
        self,
        weights: nnx.State,
        prompts: Prompts,
        rows: np.ndarray,
        keys: jax.Array,
        limits: Limits,
        budget: Budget | None = None,
    ) -> Rollout:
        """See `Drawer.draw`."""
        mesh, count = self.mesh, keys.shape[0]
        keys = jax.random.wrap_key_data(parallel.put_batch(jax.random.key_data(keys), mesh))
        # No name keeps the prompts on the devices: their patches are not needed while they are answered.
        filled = self.fill(
            weights,
            parallel.put_batch(prompts, mesh, rows, count),
            keys,
            limits,
            parallel.put_batch(budget, mesh),
        )
        # Nor the pool when it is drained: then there is room for all completions on every device.
        drawn = self.drain(weights, filled, keys, limits)[0]
        del filled
        return parallel.on_every_host(drawn, mesh)


def rollout_programs(
    graphdef: nnx.GraphDef, params: nnx.State, mesh: Mesh, form: Form = AS_TRAINED
) -> RolloutPrograms:
    """Programs on `mesh` for parameters like `params`, as training places them: arrays or shapes.

    The copy of the weights is in the given form.
    """
    shards = parallel.data_shards(mesh)
    copy = weights_copy(graphdef, params, mesh, form)

    def fill(
        weights: nnx.State, prompts: Prompts, keys: jax.Array, limits: Limits, budget: Budget | None = None
    ) -> Pool:
        filled = pool.fill(
            nnx.merge(copy.graphdef, weights),
            prompts,
            keys,
            sampling=limits.sampling,
            max_new_tokens=limits.max_new_tokens,
            slots=limits.slots or keys.shape[1],
            rows=limits.rows or keys.shape[0],
            shards=shards,
            budget=budget,
            routing=limits.routing,
        )
        return jax.lax.with_sharding_constraint(filled, pool_shardings(filled, mesh))

    def drain(weights: nnx.State, filled: Pool, keys: jax.Array, limits: Limits) -> tuple[Rollout, Pool]:
        ended = pool.run(nnx.merge(copy.graphdef, weights), filled, keys, sampling=limits.sampling)
        drawn = parallel.split_rows(pool.to_rollout(ended, keys.shape[1]), mesh)
        return drawn, jax.lax.with_sharding_constraint(ended, pool_shardings(ended, mesh))

    return RolloutPrograms(
        mesh=mesh,
        weights=copy,
        fill=parallel.jit(fill, mesh, static_argnums=3),
        drain=parallel.jit(drain, mesh, static_argnums=3, donate_argnums=1),
        moved_bytes=copy.moved_bytes,
    )


def pool_shardings(filled: Any, mesh: Mesh) -> Any:
    """Where every array of a pool lies: prompts and slots over the data axes, heads over `tensor`.

    It is the same for `continuous.Rows`: all but caches is [rows, ...].
    """
    rows = parallel.batch_sharding(mesh)

    def caches(cache: Any, names: tuple[str | None, ...], of_routing: tuple[str | None, ...]) -> Any:
        where = f"rollout cache {type(cache).__name__}"

        def split(x: Any, names: tuple[str | None, ...]) -> Any:
            return x if x is None else NamedSharding(mesh, parallel.mesh_axes(names, x.shape, mesh, where))

        others = jax.tree.map(lambda x: rows, cache)
        routing = split(cache.routing, of_routing)
        return dataclasses.replace(others, k=split(cache.k, names), v=split(cache.v, names), routing=routing)

    def place(x: Any) -> Any:
        if isinstance(x, PromptCache):
            return caches(x, PROMPT_CACHE, PROMPT_ROUTING)
        if isinstance(x, ResponseCache):
            return caches(x, RESPONSE_CACHE, RESPONSE_ROUTING)
        return rows if x.ndim else parallel.replicated(mesh)

    return jax.tree.map(place, filled, is_leaf=lambda x: isinstance(x, PromptCache | ResponseCache))
