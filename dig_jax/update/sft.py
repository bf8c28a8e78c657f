"""Supervised loss on the answer, with an auxiliary loss that makes the model compare the images.

The auxiliary loss asks, at each vision token of the prompt that `cell_mask` marks, whether its cell of the
image overlaps a true box. Learning from scratch, answer tokens alone leave the model emitting average boxes
for a long time; with it, comparison between the two images emerges within minutes.

A conversation of several rounds is one sequence: its last answer is the response, and its earlier answers
stand in the prompt, whose hidden states predict their tokens too (`Supervised.earlier`). So each round costs
its own tokens once, later rounds see earlier answers as they are, and images and objects may stand in any
turn.

Shapes: B examples, R padded answer length, E padded length of earlier answers, P padded prompt length, V head
rows. As in `grpo`, the loss takes the totals of the whole step, so that micro-batches add up exactly.
"""

import dataclasses
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from dig_jax.models.api import Model
from dig_jax.models.inputs import Prompts
from dig_jax.models.nn.head import token_logprobs
from dig_jax.update import experts, policy

Array = Any  # a JAX array, or a NumPy array that is not on the devices yet
Metrics = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class SFTConfig:
    """The supervised loss. Defaults live in `configs/base.py`.

    Attributes:
      aux_weight: weight of the auxiliary loss; 0 turns it off.
      token_yes, token_no: the auxiliary answer is read from the output head, as logit(yes) - logit(no).
      parts: names of the parts of a mixture, which have metrics of their own; () where there are none.
    """

    aux_weight: float
    token_yes: int
    token_no: int
    parts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.aux_weight >= 0:
            raise ValueError(f"sft.aux_weight is {self.aux_weight}; expected 0 (off) or more")
        if self.aux_weight and self.token_yes == self.token_no:
            raise ValueError(f"sft.token_yes and sft.token_no are both {self.token_yes}; they must differ")


@flax.struct.dataclass
class Supervised:
    """One micro-batch of examples.

    Attributes:
      prompts: B prompts.
      tokens: int32 `[B, R]`, the answer with its end token.
      mask: float32 `[B, R]`, 1 on answer tokens.
      cell_mask: `[B, P]`, 1 at the prompt tokens that carry an auxiliary target.
      cell_targets: float32 `[B, P]`, 1 where that cell overlaps a true box.
      part: int32 `[B]`, number of the part of a mixture; None where there are none.
      earlier: int32 `[B, E]`, prompt slots of the tokens of earlier answers, none of them the first; None
        where last answers alone are learnt.
      earlier_mask: float32 `[B, E]`, 1 where there is one.
    """

    prompts: Prompts
    tokens: Array
    mask: Array
    cell_mask: Array
    cell_targets: Array
    part: Array | None = None
    earlier: Array | None = None
    earlier_mask: Array | None = None

    @property
    def learnt(self) -> jax.Array:
        """Float32 `[B, E + R]`, 1 on all answer tokens that the loss covers."""
        if self.earlier is None:
            return jnp.asarray(self.mask)
        return jnp.concatenate([jnp.asarray(self.earlier_mask), jnp.asarray(self.mask)], axis=1)


@flax.struct.dataclass
class Totals:
    """Float32 scalars the losses of a step are divided by: its answer tokens and its auxiliary cells."""

    tokens: jax.Array
    cells: jax.Array


def step_totals(mask: jax.Array, cell_mask: jax.Array) -> Totals:
    """Totals of a whole step from its `[B, E + R]` mask of answers and `[B, P]` cell mask."""

    def count(mask: jax.Array) -> jax.Array:
        return jnp.maximum(jnp.sum(mask, dtype=jnp.float32), 1.0)

    return Totals(tokens=count(mask), cells=count(cell_mask))


def sft_loss(
    model: Model,
    batch: Supervised,
    totals: Totals,
    *,
    config: SFTConfig,
    chunk: int,
    router_weight: float = 0.0,
) -> tuple[jax.Array, Metrics]:
    """Mean cross-entropy of the answer tokens plus the weighted auxiliary loss, for one micro-batch.

    Args:
      model: the policy.
      batch: the examples.
      totals: of the whole step.
      config: the auxiliary loss.
      chunk: answer positions per slice of the output head: B * chunk * V logits are alive at a time.
      router_weight: of the router loss, where the model has experts.

    Returns:
      The loss, and metrics that add up over micro-batches. Those of a part, `PART/NAME`, are sums over its
      `PART/tokens`.
    """
    prompt_hidden, hidden, extras = policy.forward(model, batch.prompts, batch.tokens[:, None], batch.mask)
    hidden, tokens, mask = with_earlier(batch, prompt_hidden, hidden[:, 0])
    logprobs, _ = token_logprobs(model.head_table, hidden, tokens, chunk=chunk)
    correct = most_probable(model, hidden, chunk=chunk) == tokens
    loss = answer_loss = -_masked_sum(logprobs, mask) / totals.tokens
    metrics = {
        "answer_loss": answer_loss,
        "token_accuracy": _masked_sum(correct, mask) / totals.tokens,
    }
    for number, part in enumerate(config.parts):  # sums: a part may have no tokens here
        own = jnp.where(jnp.asarray(batch.part)[:, None] == number, mask, 0.0)
        metrics[f"{part}/answer_loss"] = -_masked_sum(logprobs, own)
        metrics[f"{part}/token_accuracy"] = _masked_sum(correct, own)
        metrics[f"{part}/tokens"] = jnp.sum(own)
    if config.aux_weight:
        # Zeros where there is no target: whatever stands there, its gradient is then zero and not NaN.
        targets = jnp.where(batch.cell_mask > 0, batch.cell_targets, 0.0)
        losses, hits = cell_losses(model, prompt_hidden, targets, config)
        aux_loss = metrics["aux_loss"] = _masked_sum(losses, batch.cell_mask) / totals.cells
        metrics["aux_accuracy"] = _masked_sum(hits, batch.cell_mask) / totals.cells
        loss = loss + config.aux_weight * aux_loss
    metrics["loss"] = loss
    loss, metrics = experts.with_router(loss, metrics, extras, mask, totals.tokens, router_weight)
    return loss, jax.lax.stop_gradient(metrics)


def with_earlier(
    batch: Supervised, prompt_hidden: jax.Array, hidden: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """All answers of the conversations, the earlier ones before the last.

    Args:
      batch: the examples.
      prompt_hidden: `[B, P, D]`, hidden states of the prompts.
      hidden: `[B, R, D]`, the hidden state that predicts each token of the last answer.

    Returns:
      Of each token that may be learnt: the hidden state that predicts it `[B, E + R, D]`, the token, and
      whether it is learnt.
    """
    if batch.earlier is None:
        return hidden, jnp.asarray(batch.tokens), jnp.asarray(batch.mask)
    slots = jnp.asarray(batch.earlier)
    before = jnp.take_along_axis(prompt_hidden, jnp.maximum(slots - 1, 0)[..., None], axis=1)
    tokens = jnp.take_along_axis(jnp.asarray(batch.prompts.tokens), slots, axis=1)
    return (
        jnp.concatenate([before, hidden], axis=1),
        jnp.concatenate([tokens, jnp.asarray(batch.tokens)], axis=1),
        batch.learnt,
    )


def cell_losses(
    model: Model, prompt_hidden: jax.Array, targets: jax.Array, config: SFTConfig
) -> tuple[jax.Array, jax.Array]:
    """Binary cross-entropy `[B, P]` of the auxiliary question, and whether its answer is right.

    The logit is logit(yes) - logit(no); only these two rows of the output head are computed.
    """
    pair = model.logits(prompt_hidden, jnp.array([config.token_yes, config.token_no]))
    logit = pair[..., 0] - pair[..., 1]
    return jax.nn.softplus(logit) - targets * logit, (logit > 0) == (targets > 0.5)


def most_probable(model: Model, hidden: jax.Array, *, chunk: int) -> jax.Array:
    """The most probable token `[B, R]` after each hidden state `[B, R, D]`, `chunk` positions at a time."""
    hidden = jax.lax.stop_gradient(hidden)
    length = hidden.shape[1]
    cuts = range(0, length, chunk)
    # Unrolled: answers are short, so there are few slices.
    parts = [jnp.argmax(model.logits(hidden[:, cut : cut + chunk]), axis=-1) for cut in cuts]
    return jnp.concatenate(parts, axis=1)


def _masked_sum(values: jax.Array, mask: jax.Array) -> jax.Array:
    return jnp.sum(jnp.where(mask > 0, values, 0.0))
