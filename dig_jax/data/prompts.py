"""What the model is asked and what it should answer, as text and as tokens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dig_jax.data.tokenizer import CLOSE_THINKING, IMAGE_PLACEHOLDER, Tokenizer

# It never tells how many differences there are: finding that out is the task.
QUESTION = (
    "The two images show almost the same scene. There may be no difference between them, one, or several: "
    "an object may have been added or removed, or its color, material, shape, size, position, orientation "
    "or texture may have changed. Ignore noise. Find every difference and give a bounding box for each. "
    "Boxes are relative to the image: if a changed object looks different or lies elsewhere in the other "
    "image, the box must enclose it in both. Coordinates are integers from 0 to 1000 of the width and "
    "height. Answer with a JSON list of [x0, y0, x1, y1] boxes, where (x0, y0) is the top left and (x1, "
    "y1) the bottom right corner, for example [[100, 200, 300, 400]]. Answer [] if there is no "
    "difference."
)

COORDINATE_MAX = 1000  # Qwen3-VL's native convention: integers 0..1000 of width and height


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
    content = [{"type": "image"} for _ in grids] + [{"type": "text", "text": text}]
    ids = tokenizer.encode(tokenizer.render([{"role": "user", "content": content}]))
    if ids.count(tokenizer.image_token_id) != len(grids):
        raise ValueError(
            f"the rendered prompt has {ids.count(tokenizer.image_token_id)} image placeholders for "
            f"{len(grids)} images; the question must not contain {IMAGE_PLACEHOLDER}, and the chat template "
            f"({tokenizer.template}) must place images."
        )
    counts = iter([h * w // merge_size**2 for h, w in grids])
    expanded = [[id] * next(counts) if id == tokenizer.image_token_id else [id] for id in ids]
    return np.array([id for run in expanded for id in run], np.int32)


def format_answer(boxes: np.ndarray, step: int = 1) -> str:
    """The answer text for a set of boxes: "[[x0,y0,x1,y1],...]", or "[]" for none.

    Boxes are sorted left to right (then top to bottom), so that there is one right text for a set of boxes.

    Args:
      boxes: float [M, 4], x0, y0, x1, y1 normalised to 0..1.
      step: coordinates are rounded to multiples of this. A box thinner than a step is widened to one, never
        written with zero area.

    Raises:
      ValueError: `step` does not divide 1000, or a box is not ordered within 0..1.
    """
    if step < 1 or COORDINATE_MAX % step:
        raise ValueError(f"the coordinate step must be a positive divisor of {COORDINATE_MAX}, got {step}.")
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    low, high = boxes[:, :2], boxes[:, 2:]
    # The negated form also catches NaN.
    if not ((boxes >= 0).all() and (boxes <= 1).all() and (low <= high).all()):
        raise ValueError(f"boxes must be ordered [x0, y0, x1, y1] in 0..1, got {boxes.tolist()}.")

    steps = COORDINATE_MAX // step
    first, last = np.rint(low * steps), np.rint(high * steps)
    thin = first == last
    first = np.where(thin, np.minimum(np.floor(low * steps), steps - 1), first)
    last = np.where(thin, first + 1, last)
    corners = np.concatenate([first, last], axis=1).astype(int) * step
    return "[" + ",".join("[" + ",".join(map(str, box)) + "]" for box in sorted(corners.tolist())) + "]"


def answer_ids(tokenizer: Tokenizer, boxes: np.ndarray, step: int = 1) -> list[int]:
    """Tokens of the full response to learn: the answer and the end-of-turn token.

    Where the template has opened "<think>", the response first closes it: there is no reasoning to imitate.
    """
    thinking = CLOSE_THINKING if tokenizer.opens_thinking else ""
    return [*tokenizer.encode(thinking + format_answer(boxes, step)), tokenizer.eos_ids[0]]


def box_tokens(tokenizer: Tokenizer, answer: Sequence[int], box: np.ndarray, step: int = 1) -> slice:
    """Which tokens of an answer are the coordinates of a box that it names, with the commas between.

    Args:
      tokenizer: the one the answer was made with.
      answer: ids of `answer_ids`.
      box: float [4], one of the boxes.
      step: as for the answer.
    """
    coordinates = format_answer(box[None], step)[2:-2]
    ends = np.cumsum([len(tokenizer.decode([id])) for id in answer])
    first = tokenizer.decode(answer).index(f"[{coordinates}]") + 1
    last = first + len(coordinates)
    # The first token to end behind `first`, up to the last one that ends by `last`.
    return slice(*(np.searchsorted(ends, [first, last], side="right").tolist()))
