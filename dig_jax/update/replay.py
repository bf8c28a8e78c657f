"""Replaying the experts that tokens went to, and what it changes (`config.moe`).

Sampler and trainer have the same weights and other programs: one token at a time there, whole sequences here.
What rounds differently sends a token to other experts where two are nearly tied, and from there on it is
another token. The trainer may be told where the tokens went; the router keeps its gradient, because the
weights of the experts are computed anew.

- `old` (R2): the trainer's own choices of before the first update of a rollout, in its updates.
- `rollout` (R3, arXiv 2510.11370): the sampler's choices, in the old log-probs and in the updates.

The reference of the KL penalty is another policy and chooses for itself. Compared in arXiv 2512.01374.

Shapes: B prompts, G completions per prompt, P prompt and R response tokens, L layers, K experts per token.
"""

import dataclasses

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from dig_jax.machines import checks
from dig_jax.models.architecture import Architecture, MoETextConfig
from dig_jax.models.nn.routing import id_dtype, unknown
from dig_jax.rollout.routing import KeptRouting
from dig_jax.run.batch import BatchConfig
from dig_jax.update import grpo
from dig_jax.update.policy import Experience

MODES = ("off", "old", "rollout")


@dataclasses.dataclass(frozen=True)
class ReplayConfig:
    """What is replayed. Defaults live in `configs/base.py`.

    Attributes:
      replay: one of `MODES`.
      measure_every: steps between two measurements of what it changes; 0: none.
    """

    replay: str
    measure_every: int

    @classmethod
    def from_config(cls, config: ConfigDict) -> "ReplayConfig":
        """The checked settings of a run or stage."""
        return cls(config.moe.replay, config.moe.measure_every)

    def __post_init__(self) -> None:
        checks.one_of("moe.replay", self.replay, MODES)
        checks.at_least("moe.measure_every", self.measure_every, 0, "off")

    @property
    def keeps_sampled(self) -> bool:
        """Whether the sampler keeps the experts of its tokens."""
        return self.replay == "rollout" or self.measure_every > 0

    def measures(self, step: int) -> bool:
        """Whether a step, counted from 0, is one that is measured."""
        return self.measure_every > 0 and step % self.measure_every == 0

    def check_model(self, architecture: Architecture) -> None:
        """Refuses to replay, or measure, what a dense model does not have."""
        if isinstance(architecture.text, MoETextConfig) or not (self.keeps_sampled or self.replay != "off"):
            return
        raise ValueError(
            f"config.moe.replay={self.replay!r}, config.moe.measure_every={self.measure_every}: the model has"
            " no experts to replay; set them to 'off' and 0"
        )

    def describe(self, architecture: Architecture) -> str:
        """A line for the log: what is replayed, and what it takes; "" of a dense model."""
        text = architecture.text
        if not isinstance(text, MoETextConfig):
            return ""
        size = bytes_per_token(text)
        kept = f"{size} bytes per token" if self.keeps_sampled or self.replay != "off" else "none kept"
        return (
            f"experts: {text.num_experts_per_tok} of {text.num_experts} in each of {text.num_hidden_layers}"
            f" layers; config.moe.replay={self.replay!r}, their ids: {kept}"
        )

    def check(self, batch: BatchConfig) -> None:
        """Refuses a replay that would change nothing."""
        if self.replay == "old" and batch.updates_per_step == 1:
            raise ValueError(
                "config.moe.replay='old' replays in the updates what the trainer chose before the first of"
                " them, and there is only one (config.batch.prompts = config.batch.update_prompts,"
                " config.batch.update_epochs = 1): it chooses that by itself. Set 'rollout' or 'off', or make"
                " several updates"
            )


def bytes_per_token(text: MoETextConfig) -> int:
    """Bytes that the ids of a token's experts take."""
    ids = text.num_hidden_layers * text.num_experts_per_tok
    return ids * id_dtype(text.num_experts).itemsize


def totals(batch: Experience, pieces: int) -> tuple[jax.Array, jax.Array]:
    """Tokens whose experts are known: of prompts, as often as these are computed, and of responses.

    Args:
      batch: with the sampler's routing.
      pieces: how often each prompt is computed.
    """
    assert batch.routing is not None
    prompts = pieces * jnp.sum(jnp.asarray(batch.prompts.length, jnp.float32))
    return prompts, jnp.sum(_known(batch.routing.responses)[..., 0], dtype=jnp.float32)


def figures(
    batch: Experience,
    live: tuple[jax.Array, KeptRouting],
    replayed: jax.Array,
    tokens: jax.Array,
    routed: tuple[jax.Array, jax.Array],
) -> grpo.Metrics:
    """How far trainer and sampler are apart, for one micro-batch; they add up (`grpo.combine_metrics`).

    Args:
      batch: with the sampler's routing.
      live: log-probs [B,G,R] where the model chooses the experts, and which it chooses.
      replayed: log-probs where they are those of the sampler.
      tokens: of all responses of the step.
      routed: `totals` of the step.

    Returns:
      `gap_live_*` and `gap_replayed_*`, absolute differences of log-probs from the sampler's;
      `flipped_prompts` and `flipped_responses`, of all choices (token, layer) the share in which sampler and
      model differ; `flipped_tokens`, the share of response tokens where they do in some layer.
    """
    assert batch.routing is not None
    response, (live_logprobs, chosen) = batch.mask > 0, live
    found: grpo.Metrics = {}
    for name, logprobs in (("live", live_logprobs), ("replayed", replayed)):
        gap = jnp.where(response, jnp.abs(logprobs - batch.behaviour_logprobs), 0.0)
        found |= {f"gap_{name}_mean": jnp.sum(gap) / tokens, f"gap_{name}_max": jnp.max(gap)}
    prompt_tokens, response_tokens = (jnp.maximum(count, 1.0) for count in routed)
    layers = chosen.prompts.shape[-2]
    real = jnp.arange(chosen.prompts.shape[1]) < jnp.asarray(batch.prompts.length)[:, None]  # [B,P]
    flipped = _differ(batch.routing.prompts, chosen.prompts) & real[..., None]
    found["flipped_prompts"] = jnp.sum(flipped, dtype=jnp.float32) / (prompt_tokens * layers)
    flipped = _differ(batch.routing.responses, chosen.responses) & _known(batch.routing.responses)
    found["flipped_responses"] = jnp.sum(flipped, dtype=jnp.float32) / (response_tokens * layers)
    flipped = jnp.any(flipped, axis=-1)
    found["flipped_tokens"] = jnp.sum(flipped, dtype=jnp.float32) / response_tokens
    return found


def _known(ids: jax.Array) -> jax.Array:
    """bool [...,L]: choices that were made, of ids [...,L,K]."""
    return ids[..., 0] != unknown(ids.dtype)


def _differ(ids: jax.Array, others: jax.Array) -> jax.Array:
    """bool [...,L]: whether two choices [...,L,K] are different sets; their order says nothing."""
    return jnp.any(jnp.sort(ids, axis=-1) != jnp.sort(others, axis=-1), axis=-1)
