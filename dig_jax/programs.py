"""The training programs of a run, compiled for its mesh: `train` runs them and `compile` measures them.

All of them take parameters as `parallel.shardings` places them, and keep them there.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
from flax import nnx
from jax.sharding import Mesh

from dig_jax import parallel
from dig_jax.learner import Learner
from dig_jax.parallel import MeshJit


@dataclasses.dataclass(frozen=True)
class TrainPrograms:
    """What training compiles.

    Attributes:
        init: parameters -> the state before the first update; the parameters are donated to it.
        reference: parameters -> a copy of them in the dtype of computation, for the frozen reference.
        logprobs: parameters, Experience -> log-probs float32 [B, G, R].
        update_grpo: state, Experience -> state, metrics; the state is donated.
        update_sft: state, Supervised -> state, metrics; the state is donated.
    """

    init: MeshJit
    reference: MeshJit
    logprobs: MeshJit
    update_grpo: MeshJit
    update_sft: MeshJit


def train_programs(learner: Learner, params: nnx.State, mesh: Mesh) -> TrainPrograms:
    """Programs for parameters like `params`: arrays, or shapes from `loading.abstract_model`."""
    in_place = parallel.shardings(params, mesh)
    state = parallel.shardings(jax.eval_shape(learner.init, params), mesh)
    everywhere = parallel.replicated(mesh)

    def reference(params: nnx.State) -> nnx.State:
        return nnx.state(nnx.merge(learner.graphdef, params).in_compute_dtype(), nnx.Param)

    def update(function: Callable[..., Any]) -> MeshJit:
        return parallel.jit(function, mesh, donate_argnums=0, out_shardings=(state, everywhere))

    return TrainPrograms(
        init=parallel.jit(learner.init, mesh, donate_argnums=0, out_shardings=state),
        reference=parallel.jit(reference, mesh, out_shardings=in_place),
        logprobs=parallel.jit(learner.logprobs, mesh, out_shardings=parallel.batch_sharding(mesh)),
        update_grpo=update(learner.update_grpo),
        update_sft=update(learner.update_sft),
    )
