"""What the model is asked and what it should answer, as tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from dig_jax.data.example import Demonstration, Object, Turn
from dig_jax.data.tokenizer import CLOSE_THINKING, IMAGE_PLACEHOLDER, Tokenizer


def prompt_ids(
    tokenizer: Tokenizer, text: str, grids: Sequence[tuple[int, int]], placeholders: Mapping[int, int]
) -> np.ndarray:
    """Tokens of one user turn, images first and then `text`, with the image placeholders expanded.

    Args:
      tokenizer: gives the chat template.
      text: the question.
      grids: (h, w) patch grid of each image, in order.
      placeholders: the words that images stand at, each with m, the patches along the side of one image token
        there (`Architecture.placeholders`); an image takes h*w/m^2 tokens.

    Returns:
      int32 [length]: the ids transformers' Qwen3VLProcessor gives for the same conversation.

    Raises:
      ValueError: the text contains an image placeholder of its own.
    """
    return conversation_ids(tokenizer, [Turn("user", (*range(len(grids)), text))], grids, placeholders)


def conversation_ids(
    tokenizer: Tokenizer,
    messages: Sequence[Turn],
    grids: Sequence[tuple[int, int]],
    placeholders: Mapping[int, int],
) -> np.ndarray:
    """Tokens of a conversation up to the opening of the assistant's turn, with placeholders expanded.

    Args:
      tokenizer: gives the chat template.
      messages: turns of text, images and objects.
      grids: (h, w) patch grid of each image that the turns show, in the order they are shown.
      placeholders: see `prompt_ids`.

    Returns:
      int32 [length].

    Raises:
      ValueError: the text contains an image placeholder of its own, or an object is shown to a model that has
        none.
    """
    ids = tokenizer.encode(tokenizer.render([_message(turn) for turn in messages]))
    _placed(tokenizer, ids, messages, grids, placeholders)
    sizes = iter(grids)

    def expanded(id: int) -> list[int]:
        if id not in placeholders:
            return [id]
        rows, columns = next(sizes)
        return [id] * (rows * columns // placeholders[id] ** 2)

    return np.array([id for word in ids for id in expanded(word)], np.int32)


def conversation_lengths(
    tokenizer: Tokenizer,
    conversations: Sequence[tuple[Sequence[Turn], Sequence[tuple[int, int]]]],
    placeholders: Mapping[int, int],
) -> list[tuple[int, int]]:
    """How many tokens `conversation_ids` gives for each, and how many of them are not of images.

    Many are read at once, on all cores where the tokenizer can.

    Args:
      tokenizer, placeholders: as of `conversation_ids`.
      conversations: the messages and the grids of each.

    Raises:
      ValueError: as `conversation_ids`, for any of them.
    """
    texts = [tokenizer.render([_message(turn) for turn in messages]) for messages, _ in conversations]
    lengths = []
    for ids, (messages, grids) in zip(tokenizer.encode_all(texts), conversations, strict=True):
        found = _placed(tokenizer, ids, messages, grids, placeholders)
        shown = sum(h * w // placeholders[id] ** 2 for id, (h, w) in zip(found, grids, strict=True))
        lengths.append((len(ids) - len(found) + shown, len(ids) - len(found)))
    return lengths


def _placed(
    tokenizer: Tokenizer,
    ids: Sequence[int],
    messages: Sequence[Turn],
    grids: Sequence[tuple[int, int]],
    placeholders: Mapping[int, int],
) -> list[int]:
    """The placeholders among the tokens of a rendered conversation. Raises ValueError for wrong ones."""
    found = [id for id in ids if id in placeholders]
    as_objects = [isinstance(part, Object) for turn in messages for part in turn.shown]
    if any(as_objects) and len(placeholders) == 1:
        raise ValueError("an image is shown as an object, but this model takes whole images alone")
    if len(found) != len(grids) or [id != tokenizer.image_token_id for id in found] != as_objects:
        raise ValueError(
            f"the rendered prompt has {len(found)} image placeholders for "
            f"{len(grids)} images; the question must not contain {IMAGE_PLACEHOLDER}, and the chat template "
            f"({tokenizer.template}) must place images."
        )
    return found


def answer_spans(
    tokenizer: Tokenizer,
    messages: Sequence[Turn],
    numbers: Sequence[int],
    grids: Sequence[tuple[int, int]],
    placeholders: Mapping[int, int],
) -> list[tuple[int, int]]:
    """Where answers stand inside the tokens of a conversation, each with its end-of-turn token.

    Args:
      tokenizer, messages, grids, placeholders: as of `conversation_ids`.
      numbers: of the assistant's turns asked for.

    Returns:
      Of each, (first, end) in what `conversation_ids` gives.

    Raises:
      ValueError: a turn is not the assistant's, or the chat template writes earlier answers otherwise than it
        has them written (templates of Thinking models drop earlier thoughts).
    """
    whole = conversation_ids(tokenizer, messages, grids, placeholders)
    spans = []
    for number in numbers:
        if messages[number].role != "assistant":
            raise ValueError(
                f"turn {number} of a conversation is the {messages[number].role}'s, and no answer"
            )
        before = messages[:number]
        shown = sum(len(turn.shown) for turn in before)
        opening = conversation_ids(tokenizer, before, grids[:shown], placeholders)
        ends = np.flatnonzero(whole[len(opening) :] == tokenizer.eos_ids[0])
        if not np.array_equal(whole[: len(opening)], opening) or not len(ends):
            raise ValueError(
                f"{tokenizer.template}: the chat template writes earlier answers of a conversation otherwise"
                " than one that is asked for, so they can not be learnt: set config.sft.max_earlier_tokens=0"
            )
        spans.append((len(opening), len(opening) + int(ends[0]) + 1))
    return spans


def _message(turn: Turn) -> dict[str, object]:
    """A turn as chat templates take it."""

    def item(part: str | int | Object) -> dict[str, str]:
        if isinstance(part, str):
            return {"type": "text", "text": part}
        return {"type": "object" if isinstance(part, Object) else "image"}

    return {"role": turn.role, "content": [item(part) for part in turn.parts]}


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
