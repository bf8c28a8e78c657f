"""Drawing in step: all completions of all prompts decode together, and are given out while they grow.

For few completions, shown as they come. Where their lengths differ much, the pool of `programs` wastes less.
"""

import dataclasses
import functools
from collections.abc import Iterator

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from dig_jax.data.buckets import round_up_coarsely
from dig_jax.machines import parallel
from dig_jax.machines.parallel import MeshJit
from dig_jax.models.inputs import Prompts
from dig_jax.models.nn.sampling_copy import AS_TRAINED, Form
from dig_jax.rollout import engine
from dig_jax.rollout.drawer import Limits
from dig_jax.rollout.engine import Decoding, Rollout
from dig_jax.rollout.sampling import Sampling
from dig_jax.rollout.thinking import Budget
from dig_jax.rollout.weights import WeightsCopy, weights_copy


@dataclasses.dataclass(frozen=True)
class LockstepPrograms:
    """A `Drawer` that decodes in step, and what it compiles.

    The room for completions is one of a few sizes, and how far they may grow in it is an array: another
    `max_new_tokens`, or another number of tokens at a time, rarely compiles anything.

    Attributes:
        mesh: the devices of the programs.
        weights: parameters as training has them -> a copy in its own form, as `mesh` splits it.
        start: weights, Prompts, keys [B,G], Sampling, room for tokens -> Decoding.
        advance: weights, Decoding, keys, tokens to reach, Sampling, Budget [B,G] or None -> Decoding; the
            one it was is donated.
        moved_bytes: bytes that travel between devices in `weights`, over all devices.
    """

    mesh: Mesh
    weights: WeightsCopy
    start: MeshJit
    advance: MeshJit
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
        (drawn,) = self.parts(weights, prompts, rows, keys, limits, budget)
        return drawn

    def parts(
        self,
        weights: nnx.State,
        prompts: Prompts,
        rows: np.ndarray,
        keys: jax.Array,
        limits: Limits,
        budget: Budget | None = None,
        every: int = 0,
    ) -> Iterator[Rollout]:
        """The completions as they grow, `every` so many tokens, and at their end; 0: at their end alone.

        How often makes no difference to what is drawn. The other arguments are those of `draw`; all processes
        take as many parts.

        Raises:
            ValueError: the limits ask for slots or rows that are refilled, or for the experts of tokens.
        """
        count, group = keys.shape
        if limits.routing:
            raise ValueError("routing=True: decoding in step keeps no experts of tokens; the pool does")
        if limits.slots not in (0, group) or limits.rows not in (0, count):
            raise ValueError(
                f"slots={limits.slots}, rows={limits.rows}: decoding in step takes all {group} completions of"
                f" all {count} prompts at a time (0); the pool can take fewer"
            )
        if count % parallel.data_shards(self.mesh):  # too few for all devices: each reads all of them
            place = functools.partial(parallel.put_whole, mesh=self.mesh)
            placed = place(prompts)
        else:
            place = functools.partial(parallel.put_batch, mesh=self.mesh)
            placed = place(prompts, rows=rows, count=count)
        keys = jax.random.wrap_key_data(place(jax.random.key_data(keys)))
        budget, most = place(budget), limits.max_new_tokens
        decoding: Decoding = self.start(weights, placed, keys, limits.sampling, round_up_coarsely(most))
        del placed
        reached = 1
        while True:
            drawn = parallel.on_every_host(decoding.rollout, self.mesh)
            ended = reached >= most or bool(drawn.finished.all())
            if every or ended:
                yield _cut(drawn, most)
            if ended:
                return
            reached = min(reached + every, most) if every else most
            decoding = self.advance(weights, decoding, keys, np.int32(reached), limits.sampling, budget)


def lockstep_programs(
    graphdef: nnx.GraphDef, params: nnx.State, mesh: Mesh, form: Form = AS_TRAINED
) -> LockstepPrograms:
    """Programs on `mesh` for parameters like `params`, as training places them: arrays or shapes.

    The copy of the weights is in the given form.
    """
    copy = weights_copy(graphdef, params, mesh, form)
    return LockstepPrograms(mesh, copy, *_decoding_programs(copy.graphdef, mesh), copy.moved_bytes)


@functools.cache  # a process that loads a model again does not trace again
def _decoding_programs(graphdef: nnx.GraphDef, mesh: Mesh) -> tuple[MeshJit, MeshJit]:
    def start(
        weights: nnx.State, prompts: Prompts, keys: jax.Array, sampling: Sampling, length: int
    ) -> Decoding:
        model = nnx.merge(graphdef, weights)
        return engine.start(model, prompts, keys, sampling=sampling, max_new_tokens=length)

    def advance(
        weights: nnx.State,
        decoding: Decoding,
        keys: jax.Array,
        until: jax.Array,
        sampling: Sampling,
        budget: Budget | None,
    ) -> Decoding:
        model = nnx.merge(graphdef, weights)
        return engine.advance(model, decoding, keys, until, sampling=sampling, budget=budget)

    return (
        parallel.jit(start, mesh, static_argnums=(3, 4)),
        parallel.jit(advance, mesh, static_argnums=4, donate_argnums=1),
    )


def _cut(drawn: Rollout, length: int) -> Rollout:
    """The completions without the room beyond their most tokens."""
    return jax.tree.map(lambda x: x[..., :length] if x.ndim == 3 else x, drawn)
