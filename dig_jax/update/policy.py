"""The policy's log-probs of given responses, and the GRPO loss on them: where model and losses meet.

Shapes: B prompts, G responses per prompt, P padded prompt length, R padded response length, D width.
"""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from dig_jax.models.api import Extras, Model
from dig_jax.models.inputs import Prompts
from dig_jax.models.nn.head import token_divergences, token_logprobs
from dig_jax.rollout.routing import KeptRouting
from dig_jax.run.distillation import DistillConfig
from dig_jax.update import experts, grpo
from dig_jax.update.distill import Taught, distill_loss


@flax.struct.dataclass
class Experience:
    """What one GRPO update learns from: sampled responses and everything that is fixed about them.

    Attributes:
      prompts: B prompts.
      tokens: int32 `[B, G, R]`.
      mask: float32 `[B, G, R]`, 1 on response tokens.
      behaviour_logprobs: float32 `[B, G, R]`, from the sampler.
      advantages: float32 `[B, G]`.
      ref_logprobs: float32 `[B, G, R]` of the frozen reference; None when there is no KL penalty.
      old_logprobs: float32 `[B, G, R]` of the trainer before the first update on this rollout; None where the
        loss does not ask for them.
      blind_logprobs: float32 `[B, G, R]`, as `old_logprobs`, without the first image; None where the loss
        does not ask for them.
      routing: the experts that the tokens go to; None where the model chooses.
      teacher: the prompts as a teacher is shown them (`update.distill`); None where there is none.
    """

    prompts: Prompts
    tokens: grpo.Array
    mask: grpo.Array
    behaviour_logprobs: grpo.Array
    advantages: grpo.Array
    ref_logprobs: grpo.Array | None = None
    old_logprobs: grpo.Array | None = None
    blind_logprobs: grpo.Array | None = None
    routing: KeptRouting | None = None
    teacher: Prompts | None = None


def forward(
    model: Model,
    prompts: Prompts,
    tokens: jax.Array,
    mask: jax.Array | None = None,
    routing: KeptRouting | None = None,
) -> tuple[jax.Array, jax.Array, Extras]:
    """Runs prompts and their responses, each prompt once for all of its responses.

    Args:
      model, prompts, tokens, mask: see `response_logprobs`.
      routing: the experts to take; None: as the model chooses, or it has none.

    Returns:
      The prompts' hidden states `[B, P, D]`, for each response token the hidden state that predicts it
      `[B, G, R, D]` (the prompt's last one for token 0, that of response token i - 1 for token i), and what
      the model says besides.
    """
    ids = None if routing is None else routing.for_model()
    prompt_hidden, response_hidden, extras = model(prompts, tokens, ids, mask)
    assert response_hidden is not None  # responses were given
    last = jnp.take_along_axis(prompt_hidden, prompts.length[:, None, None] - 1, axis=1)  # [B, 1, D]
    first = jnp.broadcast_to(last[:, :, None], (*tokens.shape[:2], 1, last.shape[-1]))
    return prompt_hidden, jnp.concatenate([first, response_hidden[:, :, :-1]], axis=2), extras


def response_logprobs(
    model: Model,
    prompts: Prompts,
    tokens: jax.Array,
    mask: jax.Array,
    *,
    temperature: float,
    allowed: jax.Array | np.ndarray | None,
    chunk: int,
    routing: KeptRouting | None = None,
) -> tuple[jax.Array, jax.Array, Extras]:
    """Log-probs of the response tokens and the policy's entropy at each, float32 `[B, G, R]`, 0 on padding.

    Args:
      model: the policy, or the reference.
      prompts: B prompts.
      tokens: int32 `[B, G, R]`.
      mask: float32 `[B, G, R]`, 1 on response tokens.
      temperature: the sampler's, so that these are log-probs of the distribution it drew from.
      allowed: bool `[V]`, the tokens the sampler could draw (`Sampling.allowed`); None for all.
      chunk: response positions per slice of the output head: B * G * chunk * V logits are alive at a time.
      routing: see `forward`.

    Returns:
      Both, and what the model says besides.
    """
    _, hidden, extras = forward(model, prompts, tokens, mask, routing)
    logprobs, entropy = token_logprobs(
        model.head_table, hidden, tokens, temperature=temperature, allowed=allowed, chunk=chunk
    )
    response = mask > 0
    return jnp.where(response, logprobs, 0.0), jnp.where(response, entropy, 0.0), extras


def taught_logprobs(
    model: Model,
    teacher: Model,
    experience: Experience,
    *,
    beta: float,
    temperature: float,
    allowed: jax.Array | np.ndarray | None,
    chunk: int,
) -> tuple[jax.Array, jax.Array, Taught, Extras]:
    """As `response_logprobs`, and what a teacher, shown other prompts, says of the same tokens.

    Args:
      model: the student.
      teacher: no gradient flows to it; its routers choose for themselves.
      experience: has both prompts.
      beta: see `head.token_divergences`.
      temperature, allowed, chunk: see `response_logprobs`, for both.

    Returns:
      Log-probs and entropies of the student, what the teacher says, and what the student says besides.
    """
    assert experience.teacher is not None
    tokens, mask = experience.tokens, experience.mask
    _, hidden, extras = forward(model, experience.prompts, tokens, mask, experience.routing)
    _, taught_hidden, _ = forward(teacher, experience.teacher, tokens, mask)
    logprobs, entropy, *taught = token_divergences(
        *(model.head_table, hidden, tokens, teacher.head_table, taught_hidden),
        beta=beta,
        temperature=temperature,
        allowed=allowed,
        chunk=chunk,
    )
    response = mask > 0
    return jnp.where(response, logprobs, 0.0), jnp.where(response, entropy, 0.0), Taught(*taught), extras


def grpo_loss(
    model: Model,
    experience: Experience,
    totals: grpo.Totals,
    *,
    config: grpo.GRPOConfig,
    temperature: float,
    allowed: jax.Array | np.ndarray | None,
    chunk: int,
    router_weight: float = 0.0,
    distill: DistillConfig | None = None,
    teacher: Model | None = None,
) -> tuple[jax.Array, grpo.Metrics]:
    """The GRPO loss of one micro-batch and its metrics, for `jax.value_and_grad(..., has_aux=True)`.

    `router_weight` is that of the router loss where the model has experts. Where `distill` has a weight, the
    divergence from `teacher` is added, which no gradient flows to.
    """
    head: dict[str, Any] = {"temperature": temperature, "allowed": allowed, "chunk": chunk}
    taught: Taught | None = None
    if distill is not None and distill.weight:
        assert teacher is not None
        logprobs, entropy, taught, extras = taught_logprobs(
            model, teacher, experience, beta=distill.beta, **head
        )
    else:
        logprobs, entropy, extras = response_logprobs(
            *(model, experience.prompts, experience.tokens, experience.mask),
            routing=experience.routing,
            **head,
        )
    loss, metrics = grpo.policy_loss(
        logprobs,
        experience.behaviour_logprobs,
        experience.ref_logprobs,
        experience.advantages,
        experience.mask,
        config,
        totals,
        entropy=entropy,
        old_logprobs=experience.old_logprobs,
        blind_logprobs=experience.blind_logprobs,
    )
    if distill is not None and taught is not None:
        given = (taught, experience.advantages, experience.mask, config, totals)
        divergence, more = distill_loss(*given)
        loss = loss + distill.weight * divergence
        metrics = jax.lax.stop_gradient({**metrics, **more, "loss": loss})
    return experts.with_router(loss, metrics, extras, experience.mask, totals.tokens, router_weight)
