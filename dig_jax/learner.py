"""The compiled half of training: optimizer, gradient accumulation, and the GRPO and supervised updates.

Shapes: B prompts of one update, G completions per prompt, R response tokens, P prompt tokens. Batches arrive
split over the data axes of the mesh and are cut into micro-batches inside the compiled step.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from ml_collections import ConfigDict

from dig_jax import freeze, grpo
from dig_jax import sft as supervised
from dig_jax.policy import Experience, grpo_loss, response_logprobs

Metrics = dict[str, jax.Array]
LossFn = Callable[[nnx.State, Any], tuple[jax.Array, Metrics]]


@flax.struct.dataclass
class TrainState:
    """What an update changes.

    Attributes:
        params: the policy's parameters, frozen ones included.
        opt_state: optax state of `optimizer`, for the trained parameters alone.
        skipped: int32, non-finite updates skipped in a row.
    """

    params: nnx.State
    opt_state: optax.OptState
    skipped: jax.Array


def make_optimizer(config: ConfigDict) -> optax.GradientTransformation:
    """AdamW with global-norm clipping. Its learning rate is a part of its state: see `with_learning_rate`."""
    adamw = optax.inject_hyperparams(optax.adamw, static_args=("b1", "b2", "weight_decay"))(
        learning_rate=config.learning_rate, b1=config.b1, b2=config.b2, weight_decay=config.weight_decay
    )
    return optax.chain(optax.clip_by_global_norm(config.clip_norm), adamw)


def learning_rates(config: ConfigDict, total_updates: int) -> optax.Schedule:
    """The learning rate as a function of the number of updates before."""
    peak, warmup = config.learning_rate, config.warmup_updates
    rest = max(1, total_updates - warmup)
    after = {
        "constant": optax.constant_schedule(peak),
        "linear": optax.linear_schedule(peak, 0.0, rest),
        "cosine": optax.cosine_decay_schedule(peak, rest),
    }[config.schedule]
    return optax.join_schedules(
        [optax.linear_schedule(peak / (warmup + 1), peak, max(1, warmup)), after], [warmup]
    )


def with_learning_rate(state: TrainState, learning_rate: float) -> TrainState:
    """The state, with the learning rate of the next update. No program depends on which it is."""
    opt_state = optax.tree_utils.tree_set(state.opt_state, learning_rate=np.float32(learning_rate))
    return dataclasses.replace(state, opt_state=opt_state)


@dataclasses.dataclass(frozen=True)
class Learner:
    """The compiled updates of one run.

    Attributes:
        graphdef: the policy's structure (`nnx.split`).
        optimizer: of `make_optimizer`.
        grpo: GRPO loss settings.
        sft: supervised loss settings.
        temperature: of the rollout; log-probs are those of the tempered policy, as sampled.
        allowed: bool [V], tokens the sampler can draw; the others have probability 0 in the trainer as well.
        chunk: tokens per slice of the output head.
        micro_prompts: prompts per gradient-accumulation slice.
        frozen: parts of the model that updates leave as they are, of `freeze.PARTS`.
    """

    graphdef: nnx.GraphDef
    optimizer: optax.GradientTransformation
    grpo: grpo.GRPOConfig
    sft: supervised.SFTConfig
    temperature: float
    allowed: jax.Array | np.ndarray
    chunk: int
    micro_prompts: int
    frozen: frozenset[str]

    def init(self, params: nnx.State) -> TrainState:
        """The state before the first update."""
        trained, _ = freeze.split(params, self.frozen)
        return TrainState(params, self.optimizer.init(trained), jnp.int32(0))

    def logprobs(self, params: nnx.State, batch: Experience) -> jax.Array:
        """Log-probs [B, G, R] of the batch's tokens under `params`, micro-batch by micro-batch."""
        model = nnx.merge(self.graphdef, params)
        score = lambda micro: response_logprobs(  # noqa: E731
            model, micro.prompts, micro.tokens, micro.mask, **self._head_settings()
        )[0]
        return _join(jax.lax.map(score, _split(batch, self.micro_prompts)))

    def update_grpo(self, state: TrainState, batch: Experience) -> tuple[TrainState, Metrics]:
        """One GRPO update."""
        totals = grpo.step_totals(batch.mask)

        def loss_fn(params: nnx.State, micro: Experience) -> tuple[jax.Array, Metrics]:
            model = nnx.merge(self.graphdef, params)
            return grpo_loss(model, micro, totals, config=self.grpo, **self._head_settings())

        return self._update(state, loss_fn, batch)

    def update_sft(self, state: TrainState, batch: supervised.Supervised) -> tuple[TrainState, Metrics]:
        """One supervised update."""
        totals = supervised.step_totals(batch.mask, batch.cell_mask)

        def loss_fn(params: nnx.State, micro: supervised.Supervised) -> tuple[jax.Array, Metrics]:
            model = nnx.merge(self.graphdef, params)
            return supervised.sft_loss(model, micro, totals, config=self.sft, chunk=self.chunk)

        return self._update(state, loss_fn, batch)

    def _head_settings(self) -> dict[str, Any]:
        return {"temperature": self.temperature, "allowed": self.allowed, "chunk": self.chunk}

    def _update(self, state: TrainState, loss_fn: LossFn, batch: Any) -> tuple[TrainState, Metrics]:
        trained, frozen = freeze.split(state.params, self.frozen)

        # Differentiated by the trained parameters alone: what only frozen ones need is never computed.
        def trained_loss(trained: nnx.State, micro: Any) -> tuple[jax.Array, Metrics]:
            return loss_fn(nnx.merge_state(trained, frozen), micro)

        grads, metrics = accumulate(trained_loss, trained, _split(batch, self.micro_prompts))
        norm = optax.global_norm(grads)
        finite = jnp.isfinite(norm) & jnp.isfinite(metrics["loss"])
        updates, opt_state = self.optimizer.update(grads, state.opt_state, trained)
        proposed = (optax.apply_updates(trained, updates), opt_state)
        keep = lambda new, old: jnp.where(finite, new, old)  # noqa: E731
        trained, opt_state = jax.tree.map(keep, proposed, (trained, state.opt_state))
        skipped = jnp.where(finite, 0, state.skipped + 1)
        metrics = {**metrics, "grad_norm": norm, "skipped_updates": 1.0 - finite}
        params = nnx.merge_state(trained, frozen)
        return TrainState(params, opt_state, skipped), metrics


def accumulate(loss_fn: LossFn, params: nnx.State, micro_batches: Any) -> tuple[nnx.State, Metrics]:
    """Sums gradients and metrics of `loss_fn` over micro-batches: leaves [number of micro-batches, ...].

    Metrics named `*_max` are combined by maximum. One micro-batch is alive at a time.
    """
    gradient = jax.grad(loss_fn, has_aux=True)

    def body(total: nnx.State, micro: Any) -> tuple[nnx.State, Metrics]:
        grads, metrics = gradient(params, micro)
        return jax.tree.map(jnp.add, total, grads), metrics

    if jax.tree.leaves(micro_batches)[0].shape[0] == 1:
        return gradient(params, jax.tree.map(lambda x: x[0], micro_batches))
    grads, stacked = jax.lax.scan(body, jax.tree.map(jnp.zeros_like, params), micro_batches)
    return grads, grpo.combine_metrics(stacked)


def _split(batch: Any, size: int) -> Any:
    """Cuts leaves [B, ...] into [B / size, size, ...], strided: every micro-batch lies on every device."""
    cut = lambda x: x.reshape(size, x.shape[0] // size, *x.shape[1:]).swapaxes(0, 1)  # noqa: E731
    return jax.tree.map(cut, batch)


def _join(stacked: jax.Array) -> jax.Array:
    """The inverse of `_split`."""
    return stacked.swapaxes(0, 1).reshape(-1, *stacked.shape[2:])
