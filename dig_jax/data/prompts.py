"""What the model is asked and what it should answer, as tokens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dig_jax.data.example import Demonstration, Turn
from dig_jax.data.tokenizer import CLOSE_THINKING, IMAGE_PLACEHOLDER, Tokenizer


def prompt_ids(
    tokenizer: Tokenizer, text: str, grids: Sequence[tuple[int, int]], merge_size: int
) -> np.ndarray:
    """Tokens of one user turn, images first and then `text`, with the image placeholders expanded.

    Args:
      tokenizer: gives the chat template and the placeholder's id.
      text: the question.
      grids: (h, w) patch grid of each image, in order.
      merge_size: m; an image takes h*w/m^2 tokens.

    Returns:
      int32 [length]: the ids transformers' Qwen3VLProcessor gives for the same conversation.

    Raises:
      ValueError: the text contains an image placeholder of its own.
    """
    return conversation_ids(tokenizer, [Turn("user", (*range(len(grids)), text))], grids, merge_size)


def conversation_ids(
    tokenizer: Tokenizer, messages: Sequence[Turn], grids: Sequence[tuple[int, int]], merge_size: int
) -> np.ndarray:
    """Tokens of a conversation up to the opening of the assistant's turn, with placeholders expanded.

    Args:
      tokenizer: gives the chat template and the placeholder's id.
      messages: turns of text and images.
      grids: (h, w) patch grid of each image that the turns show, in the order they are shown.
      merge_size: m; an image takes h*w/m^2 tokens.

    Returns:
      int32 [length].

    Raises:
      ValueError: the text contains an image placeholder of its own.
    """
    ids = tokenizer.encode(tokenizer.render([_message(turn) for turn in messages]))
    if ids.count(tokenizer.image_token_id) != len(grids):
        raise ValueError(
            f"the rendered prompt has {ids.count(tokenizer.image_token_id)} image placeholders for "
            f"{len(grids)} images; the question must not contain {IMAGE_PLACEHOLDER}, and the chat template "
            f"({tokenizer.template}) must place images."
        )
    counts = iter([h * w // merge_size**2 for h, w in grids])
    expanded = [[id] * next(counts) if id == tokenizer.image_token_id else [id] for id in ids]
    return np.array([id for run in expanded for id in run], np.int32)


def _message(turn: Turn) -> dict[str, object]:
    """A turn as chat templates take it."""
    parts = [
        {"type": "text", "text": part} if isinstance(part, str) else {"type": "image"} for part in turn.parts
    ]
    return {"role": turn.role, "content": parts}


def response_ids(tokenizer: Tokenizer, answer: Demonstration) -> tuple[list[int], np.ndarray]:
    """Tokens of the full response to learn, and which of them the loss covers.

    The response is the answer and the end-of-turn token. Where the template has opened "<think>", it first
    closes it: there is no reasoning to imitate.

    Returns:
      The ids, and float32 [length]: 1, but 0 on the tokens of `answer.unlearned`.
    """
    thinking = CLOSE_THINKING if tokenizer.opens_thinking else ""
    ids = [*tokenizer.encode(thinking + answer.text), tokenizer.eos_ids[0]]
    mask = np.ones(len(ids), np.float32)
    if answer.unlearned:
        ends = np.cumsum([len(tokenizer.decode([id])) for id in ids])
        for span in answer.unlearned:
            # The first token to end behind the span's first character, up to the last one that ends in it.
            first, last = np.searchsorted(ends, np.add(span, len(thinking)), side="right")
            mask[first:last] = 0
    return ids, mask
