"""What an answer that boxes changes is taken for: any number of boxes, or none.

The list of boxes that the task differences asks for, fenced, named or wrapped in prose (`boxes.text`); boxes
that are cut off are none, and prose that there is no difference is no answer where a list is asked for.
"""

from __future__ import annotations

import json
import re

import numpy as np

from dig_jax.benchmarks import change
from dig_jax.benchmarks.row import Mark, Reader, Row
from dig_jax.tasks.answers import CUT_OFF, final_answer
from dig_jax.tasks.boxes.text import VALID, BoxFormat, Reading, read_boxes

MAX_BOXES = 100  # of one answer; further ones are left out

_DECIMAL = re.compile(r"\d\.\d|[\s,\[(]\.\d")


def mark(row: Row, text: str, reader: Reader) -> Mark:
    """Marks one answer: its hit is the F1 of the pair, its values those of `change.measure`.

    Args:
      row: the pair; its size must be known where the model counts pixels.
      text: the answer, without special tokens.
      reader: how the model writes.
    """
    final = final_answer(text, reader.opens_thought)
    size = row.size or (1000, 1000)
    scale = BoxFormat(reader.box_convention, 1, reader.resized).scale(size)
    found = read_boxes(final.text, thinking=False, max_boxes=MAX_BOXES, scale=scale)
    if reader.box_convention != "pixels":
        found = _of_shares(final.text, found)
    parsed = not final.reason and (found.valid or len(found.boxes) > 0)
    boxes = found.boxes if parsed else np.zeros((0, 4), np.float32)
    values = change.measure(boxes, np.array(row.boxes), parsed)
    height, width = row.size or (1, 1)
    answer = json.dumps(np.multiply(boxes, [width, height] * 2, dtype=np.float64).round(4).tolist())
    return Mark(
        row.index,
        answer if parsed else "",
        values["f1"],
        final.reason or found.reason,
        cut_off=final.reason == CUT_OFF,
        values=values,
    )


def _of_shares(text: str, found: Reading) -> Reading:
    """The reading in shares of the sides where the text has decimals that are boxes as such."""
    if not _DECIMAL.search(text):
        return found
    shares = read_boxes(text, thinking=False, max_boxes=MAX_BOXES, scale=(1, 1))
    return shares if shares.reason == VALID or len(shares.boxes) >= max(1, len(found.boxes)) else found
