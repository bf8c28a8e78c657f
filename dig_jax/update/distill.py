"""Self-distillation from privileged input: the student's own samples, judged by a teacher who sees the truth.

The teacher is the same model, or the frozen reference, shown the same question with pictures that tell what
is right (`tasks.boxes.privilege`). At every token that the student drew, the student learns the teacher's
distribution over all words. The signal is dense where rewards are not: a group whose completions all earn
alike teaches nothing by comparison, and as much as any other by this.

Names and the divergence are those of GKD (arXiv 2306.13649; `beta` as in TRL's GKDTrainer): at 1 the reverse
KL of MiniLLM (arXiv 2306.08543) and of on-policy distillation. A teacher that is the student with more in its
context: arXiv 2601.19897 (SDFT).

Shapes: B prompts, G completions per prompt, R response tokens.
"""

import flax.struct
import jax
import jax.numpy as jnp

from dig_jax.update import grpo

# Nats per token from which a completion counts as one that the teacher has something to say of.
SIGNAL = 1e-3


@flax.struct.dataclass
class Taught:
    """What a teacher says of responses, all `[B, G, R]`; see `head.token_divergences`.

    Attributes:
      divergence: of the student's distribution from the teacher's.
      kl: KL(student || teacher), without a gradient.
      agreement: 1 where both find the same word most probable.
    """

    divergence: jax.Array
    kl: jax.Array
    agreement: jax.Array


def distill_loss(
    taught: Taught,
    advantages: jax.Array,
    mask: jax.Array,
    config: grpo.GRPOConfig,
    totals: grpo.Totals,
) -> tuple[jax.Array, grpo.Metrics]:
    """The mean divergence, for one micro-batch, before its weight.

    Args:
      taught: by the teacher.
      advantages: `[B, G]`, of the reward.
      mask: `[B, G, R]`, 1 on response tokens.
      config: has the sense of mean (`loss_mean`, `loss`).
      totals: of the whole step.

    Returns:
      The loss, and metrics that add up over micro-batches. `zero_advantage` is the share of completions that
      the reward says nothing of, and `zero_advantage_signal` that of those among them that the teacher does.
    """
    loss = grpo.masked_mean(taught.divergence, mask, config, totals)

    def token_mean(values: jax.Array) -> jax.Array:
        return jnp.sum(jnp.where(mask > 0, values, 0.0)) / totals.tokens

    divergences = jnp.sum(jnp.where(mask > 0, taught.divergence, 0.0), axis=-1)
    lengths = jnp.sum(mask, axis=-1)
    silent = (advantages == 0) & (lengths > 0)
    told = silent & (divergences > SIGNAL * lengths)
    metrics = {
        "distill/loss": loss,
        "distill/kl": token_mean(taught.kl),
        "distill/agreement": token_mean(taught.agreement),
        "distill/zero_advantage": jnp.sum(silent, dtype=jnp.float32) / totals.sequences,
        "distill/zero_advantage_signal": jnp.sum(told, dtype=jnp.float32) / totals.sequences,
    }
    return loss, metrics
