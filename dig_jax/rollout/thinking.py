"""A thinking budget: a thought that is still open after so many tokens is closed by the sampler.

The tokens that close it are written in place of those that the model would draw; then the model goes on, with
the answer. It is for evaluation and `generate`. GRPO has none: tokens that the policy did not choose teach it
nothing, and their log-probs are no policy's.

Shapes: `...` completions, R their padded length.
"""

import dataclasses
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from dig_jax.data.tokenizer import CLOSE_THINKING, THINK_END, Tokenizer

Array = Any  # JAX or NumPy
MOSTLY = 0.5  # share of truncated completions above which there is a warning
NO_BUDGET = 2**30  # tokens of thought that no answer reaches


@flax.struct.dataclass
class Budget:
    """How long completions may think. A program is compiled for all values of `tokens`.

    Attributes:
      tokens: int32 `[...]`, the most of its thought, from the first of the completion; at least 1.
      end: the token that ends a thought.
      closing: what the sampler writes when the budget is spent; `end` is among them.
    """

    tokens: Array
    end: int = flax.struct.field(pytree_node=False)
    closing: tuple[int, ...] = flax.struct.field(pytree_node=False)

    def is_spent(self, drawn: Array) -> Array:
        """Bool `[...]`: no thought of the completions `[..., R]` ends within its budget."""
        within = np.arange(drawn.shape[-1]) < self.tokens[..., None]
        return ~((drawn == self.end) & within).any(axis=-1)

    def forced(self, drawn: jax.Array, length: jax.Array) -> jax.Array:
        """The token int32 `[...]` that must come next, -1 where the model is free.

        A function of the completion itself, so that it is the same wherever and with whatever it is decoded.

        Args:
          drawn: int32 `[..., R]`, the completions so far.
          length: int32 `[...]`, their tokens.
        """
        place = length - self.tokens
        is_closing = (place >= 0) & (place < len(self.closing)) & self.is_spent(drawn)
        return jnp.where(is_closing, jnp.array(self.closing, jnp.int32)[place], -1)

    def was_forced(self, drawn: np.ndarray, length: np.ndarray) -> np.ndarray:
        """Bool `[...]`: the sampler closed the thought of these completions, at token `tokens`."""
        return np.asarray(self.is_spent(drawn) & (length > self.tokens))


def endless_budget(tokenizer: Tokenizer) -> Budget | None:
    """A budget that is never spent, of no dimension; None for a model that does not think."""
    if not tokenizer.opens_thinking or tokenizer.think_end_id is None:
        return None
    return Budget(np.int32(NO_BUDGET), tokenizer.think_end_id, tuple(tokenizer.encode(CLOSE_THINKING)))


def make_budget(
    tokenizer: Tokenizer, tokens: int, max_new_tokens: int, shape: tuple[int, ...] = ()
) -> Budget:
    """A budget of `tokens` for completions of that shape, closed in the way of the model's chat template.

    Raises:
      ValueError: the model does not think, or no token is left to answer with.
    """
    endless = endless_budget(tokenizer)
    if endless is None:
        raise ValueError(
            f"thinking_budget={tokens}: this model does not think (its chat template opens no <think>, or"
            f" {THINK_END} is no token of its own); set it to 0"
        )
    closing = endless.closing
    most = max_new_tokens - len(closing) - 1
    if not 1 <= tokens <= most:
        raise ValueError(
            f"thinking_budget={tokens}: expected 1 to {most}, which leaves of max_new_tokens={max_new_tokens}"
            f" the {len(closing)} tokens that close the thought, and one to answer with; 0 is no budget"
        )
    return dataclasses.replace(endless, tokens=np.full(shape, tokens, np.int32))


def truncation_warning(what: str, share: float) -> str:
    """What to say where `share` of the completions of `what` are truncated; "" unless they are the most."""
    if share <= MOSTLY:
        return ""
    return (
        f"{what}: {share:.0%} of the completions were cut at rollout.max_new_tokens, before their end, so"
        " most of what was drawn has no answer. Raise it (python -m dig_jax.compile tells what fits);"
        " docs/thinking.md says how to choose it, and what grpo.mask_truncated, overlong and a budget do"
    )
