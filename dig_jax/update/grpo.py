"""GRPO: advantages, clipped policy losses and KL penalties, as pure functions on arrays.

Shapes: B prompts, G completions per prompt (a group), R padded response length. Every loss takes the totals
of the *whole* step, so that the sum over micro-batches of their losses, gradients and metrics is exactly that
of the full batch, however unequal the micro-batches are.

Sources: GRPO (Shao et al. 2024, arXiv 2402.03300), Dr. GRPO (Liu et al. 2025, arXiv 2503.20783), GSPO (Zheng
et al. 2025, arXiv 2507.18071), clip-higher, token mean and overlong shaping (DAPO, Yu et al. 2025, arXiv
2503.14476), dual clip (Ye et al. 2020, arXiv 1912.09729); clamps and the default recipe as in EasyR1.
"""

import dataclasses
import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from dig_jax.update.blind import visual_weights

LOSSES = ("grpo", "dr_grpo", "gspo")
KLS = ("k1", "k2", "k3")
LOSS_MEANS = ("token", "sequence")

# Metrics of how far the trainer's log-probs before the updates are from those that the sampler drew with.
GAPS = ("sampler_trainer_gap_mean", "sampler_trainer_gap_max")

# Bounds before and after exp (EasyR1 core_algos.py): a token whose probability collapsed gives a large finite
# loss and no gradient, where exp(100) would turn the whole step into inf and NaN.
MAX_LOG_RATIO = 20.0
MAX_K3 = 10.0

GSPO_MAX_CLIP = 0.05  # far above the paper's 4e-4, and far below any range for the ratios of tokens

Array = Any  # a JAX array, or a NumPy array that is not on the devices yet
Metrics = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class GRPOConfig:
    """The loss. Defaults live in `configs/base.py`.

    Attributes:
      loss: `grpo` (token ratios), `dr_grpo` (token ratios; sums divided by a constant, so that long answers
        are not discounted; needs `normalize_std=False`) or `gspo` (one ratio per sequence, the geometric mean
        of its token ratios; needs `loss_mean="sequence"`, no `importance_cap`, and a far smaller clip range,
        about 3e-4).
      kl: estimator of KL(policy || reference) in the loss: `k1` log-ratio, `k2` half its square, `k3` the
        unbiased, never negative exp(d) - d - 1.
      kl_coef: weight of the KL penalty; 0 turns it off, and no reference log-probs are needed.
      clip_low, clip_high: the ratio is clipped to [1 - clip_low, 1 + clip_high].
      dual_clip: for negative advantages the loss is at most `dual_clip * |advantage|`; 0 or None: off.
      loss_mean: `token` (every response token weighs the same) or `sequence` (every response does). With
        `dr_grpo` both are the same sum over a constant.
      normalize_std: divide advantages by the group's standard deviation.
      advantage_eps: added to that standard deviation.
      importance_cap: None takes the ratio against the sampler's own log-probs. A number takes it against the
        trainer's old log-probs instead, and multiplies each token's loss by the truncated importance weight
        min(old / behaviour, importance_cap), which corrects for a sampler whose numerics or filters differ.
      visual_dependency: share of a token's weight that is in proportion to how much it owes to the first
        image (`update.blind`); 0 turns it off, and no blind log-probs are needed.
    """

    loss: str
    kl: str
    kl_coef: float
    clip_low: float
    clip_high: float
    dual_clip: float | None
    loss_mean: str
    normalize_std: bool
    advantage_eps: float
    importance_cap: float | None
    visual_dependency: float

    @classmethod
    def from_config(cls, config: ConfigDict) -> "GRPOConfig":
        """The checked loss settings of a run."""
        settings = config.grpo.to_dict()
        for of_the_trainer in ("dynamic_sampling", "reanchor", "mask_truncated", "overlong"):
            settings.pop(of_the_trainer)
        settings["importance_cap"] = settings["importance_cap"] or None
        return cls(**settings)

    def __post_init__(self) -> None:
        for key, options in (("loss", LOSSES), ("kl", KLS), ("loss_mean", LOSS_MEANS)):
            if getattr(self, key) not in options:
                raise ValueError(
                    f"grpo.{key} is {getattr(self, key)!r}; expected one of {', '.join(options)}"
                )
        if not self.kl_coef >= 0:
            raise ValueError(f"grpo.kl_coef is {self.kl_coef}; expected 0 (off) or more")
        if not 0 <= self.clip_low < 1:
            raise ValueError(f"grpo.clip_low is {self.clip_low}; expected 0 <= clip_low < 1")
        if not self.clip_high >= 0:
            raise ValueError(f"grpo.clip_high is {self.clip_high}; expected 0 or more")
        if self.dual_clip and not self.dual_clip > 1:
            raise ValueError(f"grpo.dual_clip is {self.dual_clip}; expected more than 1, or 0 (off)")
        if not self.advantage_eps >= 0:
            raise ValueError(f"grpo.advantage_eps is {self.advantage_eps}; expected 0 or more")
        if self.importance_cap is not None and not self.importance_cap > 0:
            raise ValueError(
                f"grpo.importance_cap is {self.importance_cap}; expected more than 0, or None (off)"
            )
        if not 0 <= self.visual_dependency <= 1:
            raise ValueError(f"grpo.visual_dependency is {self.visual_dependency}; expected 0 (off) to 1")
        if self.loss == "dr_grpo" and self.normalize_std:
            raise ValueError(
                "grpo.loss is 'dr_grpo' and grpo.normalize_std is True: Dr. GRPO does not divide by the "
                "group's standard deviation; set grpo.normalize_std=False"
            )
        if self.loss == "gspo":
            self._check_gspo()

    def _check_gspo(self) -> None:
        """Raises ValueError with all settings under which this would be another loss (arXiv 2507.18071)."""
        wrong = []
        if self.loss_mean != "sequence":
            wrong.append(
                f"grpo.loss_mean is {self.loss_mean!r}, which weighs a response by its length; GSPO weighs"
                " all alike: set grpo.loss_mean=sequence"
            )
        for key in ("clip_low", "clip_high"):
            if getattr(self, key) > GSPO_MAX_CLIP:
                wrong.append(
                    f"grpo.{key} is {getattr(self, key)}, a range for tokens: the ratio of a whole response,"
                    " a geometric mean, hardly leaves it, so nothing is clipped; expected at most"
                    f" {GSPO_MAX_CLIP} (the paper: clip_low 3e-4, clip_high 4e-4)"
                )
        if self.importance_cap is not None:
            wrong.append(
                f"grpo.importance_cap is {self.importance_cap}, which weighs every token by a ratio of its"
                " own; GSPO has one per response: set grpo.importance_cap=0"
            )
        if self.visual_dependency:
            wrong.append(
                f"grpo.visual_dependency is {self.visual_dependency}, which weighs tokens; GSPO has one ratio"
                " for all of a response: set grpo.visual_dependency=0"
            )
        if wrong:
            raise ValueError("grpo.loss is 'gspo', and " + "; ".join(wrong))

    def needs_old_logprobs(self, updates: int) -> bool:
        """Whether the loss asks for `old_logprobs` where a rollout is used for so many updates."""
        return (self.importance_cap is not None or self.visual_dependency > 0) and updates > 1


@flax.struct.dataclass
class Totals:
    """What the losses of a step are divided by, summed over all of its micro-batches and devices.

    Attributes:
      tokens: float32 scalar, response tokens.
      sequences: float32 scalar, responses.
      length: R, the constant length Dr. GRPO divides by (the generation budget, not the longest response).
    """

    tokens: jax.Array
    sequences: jax.Array
    length: int = flax.struct.field(pytree_node=False)


def step_totals(mask: jax.Array) -> Totals:
    """Totals of a whole step from its response mask `[B, G, R]`; rows without any token are padding."""
    return Totals(
        tokens=jnp.maximum(jnp.sum(mask, dtype=jnp.float32), 1.0),
        sequences=jnp.maximum(jnp.sum(jnp.any(mask > 0, axis=-1), dtype=jnp.float32), 1.0),
        length=mask.shape[-1],
    )


def informative_groups(rewards: Array) -> jax.Array:
    """Bool `[B]`: groups whose rewards `[B, G]` are not all equal. The others carry no gradient."""
    return jnp.max(rewards, axis=-1) > jnp.min(rewards, axis=-1)


def group_advantages(rewards: Array, *, normalize_std: bool, eps: float) -> jax.Array:
    """Advantages `[B, G]`: reward less the group's mean, over its unbiased (n - 1) standard deviation + eps.

    A group whose rewards are all equal gets exactly 0: the rounding of its mean, divided by a tiny eps, would
    otherwise be a learning signal.

    Raises:
      ValueError: groups of one completion, which have nothing to be compared with.
    """
    if rewards.shape[-1] < 2:
        raise ValueError(f"rewards have shape {rewards.shape}: GRPO needs at least 2 completions per prompt")
    rewards = jnp.asarray(rewards, jnp.float32)
    advantages = rewards - jnp.mean(rewards, axis=-1, keepdims=True)
    if normalize_std:
        advantages = advantages / (jnp.std(rewards, axis=-1, ddof=1, keepdims=True) + eps)
    return jnp.where(informative_groups(rewards)[:, None], advantages, 0.0)


def advantages_apart(rewards: Array, weights: Sequence[float], *, eps: float) -> jax.Array:
    """Advantages `[B, G]` of several rewards `[K, B, G]`, normalised one by one before they are added (GDPO).

    Each is compared within its group as `group_advantages` does, with its standard deviation; their weighted
    sum is divided by its standard deviation over all completions, so that the size of the update does not
    depend on how many there are. The sum has a mean of zero in every group, so none is subtracted: a group
    whose rewards are all equal, each for itself, gets exactly 0. See arXiv 2601.05242.
    """
    parts = [group_advantages(reward, normalize_std=True, eps=eps) for reward in rewards]
    total = sum(weight * part for weight, part in zip(weights, parts, strict=True))
    return total / (jnp.std(total, ddof=1) + eps)


def overlong_penalty(lengths: Array, *, max_new_tokens: int, buffer: int, penalty: float) -> Array:
    """What is added to the reward of completions that come close to the length limit: 0 to -penalty.

    DAPO's soft overlong punishment (section 3.4), scaled by `penalty`: nothing up to `max_new_tokens` less
    `buffer` tokens, then a linear fall to -penalty at `max_new_tokens`, where completions are truncated.

    Args:
      lengths: tokens of completions, of any shape.
      max_new_tokens: the most there can be.
      buffer: tokens over which it falls; at least 1.
      penalty: at the end.
    """
    over = (np.asarray(lengths) - (max_new_tokens - buffer)) / buffer
    return -penalty * np.clip(over, 0.0, 1.0)


def check_overlong(config: ConfigDict) -> None:
    """Refuses wrong settings of `overlong_penalty`. Raises ValueError, which names them."""
    buffer, penalty = config.grpo.overlong.buffer, config.grpo.overlong.penalty
    if not 0 <= buffer <= config.rollout.max_new_tokens:
        raise ValueError(
            f"config.grpo.overlong.buffer={buffer}: expected 0 (off) to config.rollout.max_new_tokens"
            f"={config.rollout.max_new_tokens}"
        )
    if not (0 < penalty < math.inf):
        raise ValueError(
            f"config.grpo.overlong.penalty={penalty}: expected a finite number above 0; to turn it off, set"
            " config.grpo.overlong.buffer=0"
        )


def kl_estimate(logprobs: jax.Array, ref_logprobs: jax.Array, kind: str) -> jax.Array:
    """Per-token estimate of KL(policy || reference) from tokens drawn from the policy.

    See Schulman, "Approximating KL divergence" (joschu.net/blog/kl-approx.html). As a loss, k1 has zero
    expected gradient on fresh samples; k2 has that of the true KL.
    """
    if kind == "k1":
        return logprobs - ref_logprobs
    if kind == "k2":
        return 0.5 * jnp.square(logprobs - ref_logprobs)
    if kind == "k3":
        difference = jnp.clip(ref_logprobs - logprobs, -MAX_LOG_RATIO, MAX_LOG_RATIO)
        return jnp.clip(jnp.exp(difference) - difference - 1, -MAX_K3, MAX_K3)
    raise ValueError(f"KL estimator {kind!r}; expected one of {', '.join(KLS)}")


def policy_loss(
    logprobs: jax.Array,
    behaviour_logprobs: jax.Array,
    ref_logprobs: jax.Array | None,
    advantages: jax.Array,
    mask: jax.Array,
    config: GRPOConfig,
    totals: Totals,
    *,
    entropy: jax.Array,
    old_logprobs: jax.Array | None = None,
    blind_logprobs: jax.Array | None = None,
) -> tuple[jax.Array, Metrics]:
    """The clipped policy-gradient loss plus the KL penalty, for one micro-batch.

    Args:
      logprobs: `[B, G, R]`, of the policy being trained; the only argument gradients flow through.
      behaviour_logprobs: `[B, G, R]`, what the sampler drew the tokens with.
      ref_logprobs: `[B, G, R]` of the frozen reference; may be None when `kl_coef` is 0.
      advantages: `[B, G]`.
      mask: `[B, G, R]`, 1 on response tokens.
      config: which loss.
      totals: of the whole step.
      entropy: `[B, G, R]`, of the policy at each token (a metric).
      old_logprobs: `[B, G, R]`, the trainer's log-probs before the first update on this rollout, which
        importance weights need (see `GRPOConfig.needs_old_logprobs`). None: the current ones, which are the
        same in that first update; after it, the metrics of the gap between sampler and trainer would
        measure what the updates changed.
      blind_logprobs: `[B, G, R]`, those of the same parameters as `old_logprobs` without the first image;
        may be None when `visual_dependency` is 0.

    Returns:
      The loss, and metrics that add up over micro-batches (`*_max` by maximum; see `combine_metrics`).
    """
    if config.kl_coef and ref_logprobs is None:
        raise ValueError(f"grpo.kl_coef is {config.kl_coef} but there are no reference log-probs")
    response = mask > 0

    def real(values: jax.Array) -> jax.Array:
        """Zeros on padding, which may hold anything: 0 * NaN is NaN, so select and never multiply."""
        return jnp.where(response, values, 0.0)

    def token_mean(values: jax.Array) -> jax.Array:
        return jnp.sum(real(values)) / totals.tokens

    logprobs, behaviour = real(logprobs), real(behaviour_logprobs)
    old = jax.lax.stop_gradient(logprobs) if old_logprobs is None else real(old_logprobs)
    log_ratio = logprobs - (behaviour if config.importance_cap is None else old)
    if config.loss == "gspo":
        log_ratio = jnp.sum(log_ratio, axis=-1, keepdims=True) / _lengths(mask)
    log_ratio = jnp.broadcast_to(jnp.clip(log_ratio, -MAX_LOG_RATIO, MAX_LOG_RATIO), mask.shape)
    ratio = jnp.exp(log_ratio)
    surrogate, clipped = _clipped_surrogate(ratio, advantages[..., None], config)
    gap = jnp.abs(old - behaviour)
    metrics = {
        "entropy": token_mean(entropy),
        "ratio_mean": token_mean(ratio),
        "ratio_max": jnp.max(real(ratio)),
        **dict(zip(GAPS, (token_mean(gap), jnp.max(gap)), strict=True)),
        **{f"clip_fraction_{side}": token_mean(hit) for side, hit in clipped.items()},
    }
    if config.importance_cap is not None:
        weight = jnp.exp(jnp.clip(old - behaviour, -MAX_LOG_RATIO, MAX_LOG_RATIO))
        weight = jnp.minimum(weight, config.importance_cap)
        surrogate = surrogate * weight
        metrics["importance_weight_mean"] = token_mean(weight)

    if config.visual_dependency:
        if blind_logprobs is None:
            raise ValueError("grpo.visual_dependency is above 0 but there are no blind log-probs")
        dependency = jnp.abs(old - real(blind_logprobs))
        weight = visual_weights(dependency, mask, config.visual_dependency)
        surrogate = surrogate * weight
        metrics["visual_dependency"] = token_mean(dependency)
        metrics["visual_weight_max"] = jnp.max(real(weight))

    loss = metrics["policy_loss"] = masked_mean(surrogate, mask, config, totals)
    if ref_logprobs is not None:
        kl = kl_estimate(logprobs, real(ref_logprobs), config.kl)
        metrics["kl"] = token_mean(kl)
        loss = loss + config.kl_coef * masked_mean(kl, mask, config, totals)
    metrics["loss"] = loss
    return loss, jax.lax.stop_gradient(metrics)


def rollout_metrics(rewards: Array, mask: Array, finished: Array) -> Metrics:
    """Metrics of a whole rollout: rewards `[B, G]`, mask `[B, G, R]`, finished bool `[B, G]`."""
    lengths = jnp.sum(mask, axis=-1)
    return {
        "zero_std_groups": 1 - jnp.mean(informative_groups(rewards), dtype=jnp.float32),
        "response_length_mean": jnp.mean(lengths),
        "response_length_max": jnp.max(lengths),
        "truncated": 1 - jnp.mean(finished, dtype=jnp.float32),
    }


def combine_metrics(stacked: Metrics) -> Metrics:
    """A step's metrics from those of its micro-batches `[number, ...]`: maximum of `*_max`, sum of others."""

    def combine(name: str, x: jax.Array) -> jax.Array:
        return x.max(0) if name.endswith("_max") else x.sum(0)

    return {name: jax.tree.map(partial(combine, name), value) for name, value in stacked.items()}


def _clipped_surrogate(
    ratio: jax.Array, advantages: jax.Array, config: GRPOConfig
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Per-token loss `-min(ratio * A, clip(ratio) * A)`, dual-clipped, and where each clip was active."""
    clipped_ratio = jnp.clip(ratio, 1 - config.clip_low, 1 + config.clip_high)
    unclipped = -ratio * advantages
    loss = jnp.maximum(unclipped, -clipped_ratio * advantages)
    binds = loss > unclipped
    clipped = {"low": binds & (advantages < 0), "high": binds & (advantages > 0)}
    if config.dual_clip:
        ceiling = -config.dual_clip * advantages
        clipped["dual"] = (advantages < 0) & (loss > ceiling)
        loss = jnp.where(advantages < 0, jnp.minimum(loss, ceiling), loss)
    return loss, clipped


def masked_mean(values: jax.Array, mask: jax.Array, config: GRPOConfig, totals: Totals) -> jax.Array:
    """This micro-batch's share of the step's mean of `[B, G, R]` values, in the config's sense of mean."""
    values = jnp.where(mask > 0, values, 0.0)
    if config.loss == "dr_grpo":
        return jnp.sum(values) / (totals.sequences * totals.length)
    if config.loss_mean == "token":
        return jnp.sum(values) / totals.tokens
    return jnp.sum(jnp.sum(values, axis=-1, keepdims=True) / _lengths(mask)) / totals.sequences


def _lengths(mask: jax.Array) -> jax.Array:
    """Response lengths `[B, G, 1]`, at least 1 so that an empty row divides by something."""
    return jnp.maximum(jnp.sum(mask, axis=-1, keepdims=True), 1.0)
