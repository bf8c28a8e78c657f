"""The compiled half of training: optimizer, gradient accumulation, and the GRPO and supervised updates.

Shapes: B prompts of one update, G completions per prompt, R response tokens, P prompt tokens. Batches arrive
split over the data axes of the mesh and are cut into micro-batches inside the compiled step. `train_programs`
compiles all of it for a mesh: `train` runs the programs and `compile` measures them. They take parameters as
`parallel.shardings` places them, and keep them there.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh
from ml_collections import ConfigDict

from dig_jax.machines import data_axis, parallel
from dig_jax.machines.parallel import MeshJit
from dig_jax.models.api import Model
from dig_jax.models.nn import freeze
from dig_jax.models.nn.freeze import Freezing
from dig_jax.models.nn.routing import unknown
from dig_jax.rollout.routing import KeptRouting
from dig_jax.run.distillation import DistillConfig
from dig_jax.update import experts, grpo, microbatches, replay
from dig_jax.update import sft as supervised
from dig_jax.update.blind import without_first_image
from dig_jax.update.experts import MoEConfig
from dig_jax.update.grpo import GRPOConfig
from dig_jax.update.microbatches import Cut, Pieces
from dig_jax.update.optimizer import Optimizer, OptimizerConfig
from dig_jax.update.optimizer_parts import OptimizerOfParts
from dig_jax.update.policy import Experience, grpo_loss, response_logprobs

Metrics = dict[str, jax.Array]
LossFn = Callable[[nnx.State, Any], tuple[jax.Array, Metrics]]
# Trained parameters, frozen ones, micro-batch -> gradient by the trained ones, metrics.
GradientFn = Callable[[nnx.State, nnx.State, Any], tuple[nnx.State, Metrics]]
# The same of a batch and what says which micro-batch of it.
GradientOfPieceFn = Callable[[nnx.State, nnx.State, Any, Any], tuple[nnx.State, Metrics]]


@flax.struct.dataclass
class TrainState:
    """What an update changes.

    Attributes:
        params: the policy's parameters, frozen ones included.
        opt_state: state of `optimizer`, for the parameters that a stage of the run trains alone.
        skipped: int32, non-finite updates skipped in a row.
    """

    params: nnx.State
    opt_state: optax.OptState
    skipped: jax.Array


def with_learning_rate(state: TrainState, learning_rate: float) -> TrainState:
    """The state, with the learning rate of the next update. No program depends on which it is."""
    opt_state = optax.tree_utils.tree_set(state.opt_state, learning_rate=np.float32(learning_rate))
    return dataclasses.replace(state, opt_state=opt_state)


@dataclasses.dataclass(frozen=True)
class Learner:
    """The compiled updates of one run.

    Attributes:
        graphdef: the policy's structure (`nnx.split`).
        optimizer: of the parameters that a stage of the run trains.
        grpo: GRPO loss settings.
        sft: supervised loss settings.
        moe: settings of mixtures of experts.
        distill: settings of the teacher.
        temperature: of the rollout; log-probs are those of the tempered policy, as sampled.
        allowed: bool [V], tokens the sampler can draw; the others have probability 0 in the trainer as well.
        chunk: tokens per slice of the output head.
        cut: how an update is cut into micro-batches.
        frozen: parts of the model that no update of the run changes, of `freeze.PARTS`.
        resting: further ones that those of this stage leave as they are, with their optimizer state.
        offload: the optimizer's state comes from host memory, and goes back there.
        sum_gradients: when gradients are summed over the mesh axis `data`, of `data_axis.SUMS`.
        sums_once: whether that is once per update; see `train_programs`.
    """

    graphdef: nnx.GraphDef
    optimizer: Optimizer | OptimizerOfParts
    grpo: grpo.GRPOConfig
    sft: supervised.SFTConfig
    moe: MoEConfig
    distill: DistillConfig
    temperature: float
    allowed: jax.Array | np.ndarray
    chunk: int
    cut: Cut
    frozen: frozenset[str]
    resting: frozenset[str]
    offload: bool
    sum_gradients: str = "micro_batch"
    sums_once: bool = False

    @classmethod
    def from_config(
        cls,
        config: ConfigDict,
        graphdef: nnx.GraphDef,
        *,
        sft: supervised.SFTConfig,
        allowed: jax.Array | np.ndarray,
        freezing: Freezing | None = None,
    ) -> "Learner":
        """The learner that settings ask for; `sft` and `allowed` depend on the tokenizer as well.

        `freezing` depends on all stages of a run; None where there is one.
        """
        freezing = freezing or Freezing.of(config)
        optimizer = OptimizerConfig.from_config(config).make()
        return cls(
            graphdef=graphdef,
            optimizer=OptimizerOfParts(optimizer) if freezing.varies else optimizer,
            grpo=GRPOConfig.from_config(config),
            sft=sft,
            moe=MoEConfig.from_config(config),
            distill=DistillConfig.from_config(config),
            temperature=config.rollout.temperature,
            allowed=allowed,
            chunk=config.model.head_chunk,
            cut=Cut.from_config(config),
            frozen=freezing.always,
            resting=freezing.resting,
            offload=config.optimizer.offload,
            sum_gradients=config.batch.sum_gradients,
        )

    def init(self, params: nnx.State) -> TrainState:
        """The state before the first update."""
        trained, _ = freeze.split(params, self.frozen)
        return TrainState(params, self.optimizer.init(trained), jnp.int32(0))

    def restart(self, state: TrainState) -> TrainState:
        """The same parameters with a new optimizer."""
        trained, _ = freeze.split(state.params, self.frozen)
        return TrainState(state.params, self.optimizer.restart(trained, state.opt_state), jnp.int32(0))

    def logprobs(self, params: nnx.State, batch: Experience) -> jax.Array:
        """Log-probs [B, G, R] of the batch's tokens under `params`, micro-batch by micro-batch."""
        group, longest = batch.tokens.shape[1:]

        def score(model: Model, micro: Experience) -> jax.Array:
            return microbatches.pad(self._response_logprobs(model, micro)[0], longest)

        scores, pieces = self._of_micro_batches(params, batch, score)
        return microbatches.put_back(scores, pieces, group)

    def blind_logprobs(self, params: nnx.State, batch: Experience) -> jax.Array:
        """The same without the first images. Other pictures go to other experts: routers choose."""
        prompts = without_first_image(batch.prompts)
        return self.logprobs(params, dataclasses.replace(batch, prompts=prompts, routing=None))

    def logprobs_and_routing(self, params: nnx.State, batch: Experience) -> tuple[jax.Array, KeptRouting]:
        """The same, and the experts that the model, which has some, takes for that."""
        group, longest = batch.tokens.shape[1:]

        def score(model: Model, micro: Experience) -> tuple[jax.Array, KeptRouting]:
            logprobs, routing = self._response_logprobs(model, micro)
            assert routing is not None  # a dense model is refused: `ReplayConfig.check_model`
            blank = unknown(routing.responses.dtype)
            responses = microbatches.pad(routing.responses, longest, blank)
            return microbatches.pad(logprobs, longest), KeptRouting(routing.prompts, responses)

        (scores, routing), pieces = self._of_micro_batches(params, batch, score)
        return microbatches.put_back(scores, pieces, group), KeptRouting(
            microbatches.put_back_prompts(routing.prompts, pieces, group),
            microbatches.put_back(routing.responses, pieces, group),
        )

    def replay_figures(self, params: nnx.State, batch: Experience) -> Metrics:
        """What replaying the sampler's experts changes: `replay.figures` of a batch with its routing."""
        tokens = grpo.step_totals(batch.mask).tokens
        group = batch.mask.shape[1]
        routed = replay.totals(batch, pieces=group // (self.cut.completions or group))

        def measure(model: Model, micro: Experience) -> Metrics:
            live, chosen = self._response_logprobs(model, dataclasses.replace(micro, routing=None))
            assert chosen is not None  # as above
            replayed, _ = self._response_logprobs(model, micro)
            return replay.figures(micro, (live, chosen), replayed, tokens, routed)

        return grpo.combine_metrics(self._of_micro_batches(params, batch, measure)[0])

    def update_grpo(
        self, state: TrainState, batch: Experience, reference: nnx.State | None = None
    ) -> tuple[TrainState, Metrics]:
        """One GRPO update; with a reference where that is the teacher (`with_reference`)."""
        totals = grpo.step_totals(batch.mask)
        pieces = microbatches.cut_up(batch.mask, self.cut)
        lengths = self.cut.lengths(batch.mask.shape[-1])

        def loss_of(length: int, params: nnx.State, micro: Experience) -> tuple[jax.Array, Metrics]:
            model = nnx.merge(self.graphdef, params)
            return grpo_loss(
                *(model, microbatches.trim(micro, length), totals),
                config=self.grpo,
                router_weight=self.moe.router_loss_weight,
                distill=self.distill,
                teacher=self._teacher(params, reference),
                **self._head_settings(),
            )

        def gradient(
            trained: nnx.State, frozen: nnx.State, batch: Experience, piece: Pieces
        ) -> tuple[nnx.State, Metrics]:
            branches = [_gradient(functools.partial(loss_of, length)) for length in lengths]
            micro = microbatches.take(batch, piece)
            return jax.lax.switch(piece.bucket, branches, trained, frozen, micro)

        state, metrics = self._update(state, gradient, batch, pieces, microbatches.lanes())
        padding = 1 - totals.tokens / microbatches.padded_tokens(pieces, lengths)
        return state, {**metrics, "response_padding": padding}

    def update_sft(self, state: TrainState, batch: supervised.Supervised) -> tuple[TrainState, Metrics]:
        """One supervised update."""
        totals = supervised.step_totals(batch.learnt, batch.cell_mask)

        def loss_fn(params: nnx.State, micro: supervised.Supervised) -> tuple[jax.Array, Metrics]:
            model = nnx.merge(self.graphdef, params)
            weight = self.moe.router_loss_weight
            return supervised.sft_loss(
                model, micro, totals, config=self.sft, chunk=self.chunk, router_weight=weight
            )

        def gradient(
            trained: nnx.State, frozen: nnx.State, _: Any, micro: supervised.Supervised
        ) -> tuple[nnx.State, Metrics]:
            return _gradient(loss_fn)(trained, frozen, micro)

        return self._update(state, gradient, (), microbatches.split(batch, self.cut.prompts), 1)

    def _teacher(self, params: nnx.State, reference: nnx.State | None) -> Model | None:
        """Who judges the policy's samples, with parameters that have no gradient; None where nobody does."""
        if not self.distill.weight:
            return None
        if self.distill.needs_reference:
            params = self.with_reference(reference, params)
        return nnx.merge(self.graphdef, jax.lax.stop_gradient(params))

    def with_reference(self, reference: nnx.State | None, params: nnx.State) -> nnx.State:
        """The parameters of the reference, which has those alone that the policy does not share with it."""
        assert reference is not None
        _, shared = freeze.split(params, self.frozen)
        return nnx.merge_state(reference, shared)

    def _of_micro_batches(
        self, params: nnx.State, batch: Experience, compute: Callable[[Model, Experience], Any]
    ) -> tuple[Any, Pieces]:
        """What is computed of every micro-batch, [N, ...], and which these are."""
        model = nnx.merge(self.graphdef, params)
        pieces = microbatches.cut_up(batch.mask, self.cut)

        def of_length(length: int, micro: Experience) -> Any:
            return compute(model, microbatches.trim(micro, length))

        lengths = self.cut.lengths(batch.mask.shape[-1])
        branches = [functools.partial(of_length, length) for length in lengths]
        computed = jax.lax.map(
            lambda piece: jax.lax.switch(piece.bucket, branches, microbatches.take(batch, piece)), pieces
        )
        return computed, pieces

    def _response_logprobs(self, model: Model, micro: Experience) -> tuple[jax.Array, KeptRouting | None]:
        """Log-probs [B,G,R], and the experts taken; None of a model that has none."""
        logprobs, _, extras = response_logprobs(
            model,
            micro.prompts,
            micro.tokens,
            micro.mask,
            routing=micro.routing,
            **self._head_settings(),
        )
        return logprobs, KeptRouting.of(extras["routing"]) if "routing" in extras else None

    def _head_settings(self) -> dict[str, Any]:
        return {"temperature": self.temperature, "allowed": self.allowed, "chunk": self.chunk}

    def _update(
        self, state: TrainState, gradient: GradientOfPieceFn, batch: Any, pieces: Any, lanes: Any
    ) -> tuple[TrainState, Metrics]:
        """An update with the sum of the gradients of all pieces, whose rows lie along dimension `lanes`."""
        trained, frozen = freeze.split(state.params, self.frozen | self.resting)

        def of_rows(
            trained: nnx.State, frozen: nnx.State, batch: Any, pieces: Any
        ) -> tuple[nnx.State, Metrics]:
            of_piece = functools.partial(gradient, trained, frozen, batch)
            return microbatches.accumulate(of_piece, pieces, zeros_like=trained)

        if self.sums_once:
            of_parts = data_axis.apart(of_rows, (None, None, 0, lanes))
            grads, metrics = of_parts(trained, frozen, batch, pieces)
            grads, metrics = jax.tree.map(lambda x: x.sum(0), grads), grpo.combine_metrics(metrics)
        else:
            grads, metrics = of_rows(trained, frozen, batch, pieces)
        norm = optax.global_norm(grads)
        finite = jnp.isfinite(norm) & jnp.isfinite(metrics["loss"])
        step = self.optimizer.step_from_host if self.offload else self.optimizer.step
        trained, opt_state = step(grads, state.opt_state, trained, finite)
        skipped = jnp.where(finite, 0, state.skipped + 1)
        metrics = {**experts.finished(metrics), "grad_norm": norm, "skipped_updates": 1.0 - finite}
        params = nnx.merge_state(trained, frozen)
        return TrainState(params, opt_state, skipped), metrics


def _gradient(loss_fn: LossFn) -> GradientFn:
    """Gradient and metrics of a loss by the trained parameters alone: what only frozen ones need for theirs
    is never computed."""

    def loss(trained: nnx.State, frozen: nnx.State, micro: Any) -> tuple[jax.Array, Metrics]:
        return loss_fn(nnx.merge_state(trained, frozen), micro)

    return jax.grad(loss, has_aux=True)


@dataclasses.dataclass(frozen=True)
class TrainPrograms:
    """What training compiles.

    Attributes:
        state: shapes of the state with their shardings: where it is kept between updates, and restored to.
        init: parameters -> the state before the first update; the parameters are donated to it.
        restart: state -> one with the same parameters and a new optimizer; the state is donated.
        reference: parameters -> what the reference of the KL penalty does not share with the policy: a copy
            of those that a stage of the run trains, in the dtype of computation.
        reference_logprobs: reference, parameters of the policy, Experience -> log-probs float32 [B, G, R].
        logprobs: parameters, Experience -> log-probs float32 [B, G, R].
        blind_logprobs: the same, with the first image of each prompt blanked.
        logprobs_and_routing: as `logprobs`, and the experts taken, of a model that has experts.
        replay_figures: parameters, Experience with the sampler's routing -> metrics.
        update_grpo: state, Experience -> state, metrics; the state is donated. The reference is a third
            argument where it is the teacher (`config.distill.teacher`).
        update_sft: state, Supervised -> state, metrics; the state is donated.
    """

    state: TrainState
    init: MeshJit
    restart: MeshJit
    reference: MeshJit
    reference_logprobs: MeshJit
    logprobs: MeshJit
    blind_logprobs: MeshJit
    logprobs_and_routing: MeshJit
    replay_figures: MeshJit
    update_grpo: MeshJit
    update_sft: MeshJit


def train_programs(learner: Learner, params: nnx.State, mesh: Mesh) -> TrainPrograms:
    """Programs for parameters like `params`: arrays, or shapes from `loading.abstract_model`."""
    once = data_axis.sums_once(learner.sum_gradients, mesh) and not freeze.has_experts(params)
    learner = dataclasses.replace(learner, sums_once=once)
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
        # Another policy than the one that sampled: its routers choose for themselves.
        batch = dataclasses.replace(batch, routing=None)
        return learner.logprobs(learner.with_reference(reference, params), batch)

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
        blind_logprobs=parallel.jit(learner.blind_logprobs, mesh, out_shardings=rows),
        logprobs_and_routing=parallel.jit(learner.logprobs_and_routing, mesh, out_shardings=rows),
        replay_figures=parallel.jit(learner.replay_figures, mesh, out_shardings=everywhere),
        update_grpo=update(learner.update_grpo),
        update_sft=update(learner.update_sft),
    )
