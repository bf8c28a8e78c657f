"""The training programs of a run, compiled for its mesh: `train` runs them and `compile` measures them.

All of them take parameters as `parallel.shardings` places them, and keep them there.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
from flax import nnx
from jax.sharding import Mesh

from dig_jax.machines import parallel
from dig_jax.machines.parallel import MeshJit
from dig_jax.models.nn import freeze
from dig_jax.update.learner import Learner, TrainState
from dig_jax.update.policy import Experience


@dataclasses.dataclass(frozen=True)
class TrainPrograms:
    """What training compiles.

    Attributes:
        state: shapes of the state with their shardings: where it is kept between updates, and restored to.
        init: parameters -> the state before the first update; the parameters are donated to it.
        restart: state -> one with the same parameters and a new optimizer; the state is donated.
        reference: parameters -> what the reference of the KL penalty does not share with the policy: a copy
            of those that are trained, in the dtype of computation.
        reference_logprobs: reference, parameters of the policy, Experience -> log-probs float32 [B, G, R].
        logprobs: parameters, Experience -> log-probs float32 [B, G, R].
        update_grpo: state, Experience -> state, metrics; the state is donated.
        update_sft: state, Supervised -> state, metrics; the state is donated.
    """

    state: TrainState
    init: MeshJit
    restart: MeshJit
    reference: MeshJit
    reference_logprobs: MeshJit
    logprobs: MeshJit
    update_grpo: MeshJit
    update_sft: MeshJit


def train_programs(learner: Learner, params: nnx.State, mesh: Mesh) -> TrainPrograms:
    """Programs for parameters like `params`: arrays, or shapes from `loading.abstract_model`."""
    state = parallel.abstract(jax.eval_shape(learner.init, params), mesh)
    if learner.offload:
        state = dataclasses.replace(state, opt_state=parallel.on_host(state.opt_state))
    in_place = jax.tree.map(lambda x: x.sharding, state)
    rows, everywhere = parallel.batch_sharding(mesh), parallel.replicated(mesh)

    def reference(params: nnx.State) -> nnx.State:
        model = nnx.merge(learner.graphdef, params).in_compute_dtype()
        trained, _ = freeze.split(nnx.state(model, nnx.Param), learner.frozen)
        return trained

    def reference_logprobs(reference: nnx.State, params: nnx.State, batch: Experience) -> jax.Array:
        _, shared = freeze.split(params, learner.frozen)
        return learner.logprobs(nnx.merge_state(reference, shared), batch)

    def update(function: Callable[..., Any]) -> MeshJit:
        return parallel.jit(function, mesh, donate_argnums=0, out_shardings=(in_place, everywhere))

    copied = parallel.shardings(jax.eval_shape(reference, params), mesh)
    return TrainPrograms(
        state=state,
        init=parallel.jit(learner.init, mesh, donate_argnums=0, out_shardings=in_place),
        restart=parallel.jit(learner.restart, mesh, donate_argnums=0, out_shardings=in_place),
        reference=parallel.jit(reference, mesh, out_shardings=copied),
        reference_logprobs=parallel.jit(reference_logprobs, mesh, out_shardings=rows),
        logprobs=parallel.jit(learner.logprobs, mesh, out_shardings=rows),
        update_grpo=update(learner.update_grpo),
        update_sft=update(learner.update_sft),
    )
