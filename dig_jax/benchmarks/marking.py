"""Marks answers: reads them by the rules of their task, or as VLMEvalKit does, and compares them.

Reading and judging are apart: `choice`, `yes_no` and `referring` read an answer and judge what they read,
`judge_word` and `judge_box` judge what was read elsewhere. Boxes of an answer are written in pixels of the
picture as stored.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence

import numpy as np

from dig_jax.benchmarks import vlmevalkit
from dig_jax.benchmarks.row import TOOLKIT_NONE, Box, Mark, Reader, Row
from dig_jax.data.example import Size
from dig_jax.tasks.answers import CUT_OFF, final_answer
from dig_jax.tasks.boxes.first_box import first_box
from dig_jax.tasks.boxes.iou import paired_iou
from dig_jax.tasks.boxes.text import THOUSANDTHS
from dig_jax.tasks.choice.reading import read_choice
from dig_jax.tasks.yes_no.reading import read_yes_no

THRESHOLD = 0.5  # IoU from which a box is a hit
_SLACK = 1e-9  # for an IoU of exactly one half, in floats

_TOOLKIT = "vlmevalkit"  # the reason of answers read in its way


def choice(row: Row, text: str, reader: Reader) -> Mark:
    """Marks the option that an answer chooses."""
    if reader.compat:
        return _as_toolkit(row, text, vlmevalkit.read_choice(text, row.options))
    letter, reason = read_choice(text, row.options, reader.opens_thought)
    return judge_word(row, letter, reason, reason == CUT_OFF)


def yes_no(row: Row, text: str, reader: Reader) -> Mark:
    """Marks whether an answer says yes or no."""
    if reader.compat:
        return _as_toolkit(row, text, vlmevalkit.read_yes_no(text) or "Unknown")
    said, reason = read_yes_no(text, reader.opens_thought)
    return judge_word(row, said, reason, reason == CUT_OFF)


def referring(row: Row, text: str, reader: Reader) -> Mark:
    """Marks the first box of an answer."""
    size = _size(row)
    if reader.compat:
        corners = vlmevalkit.read_box(text, size)
        found = "" if corners is None else _listed(corners)
        return judge_box(row, found, _TOOLKIT if found else TOOLKIT_NONE, _is_cut_off(text))
    scale = {"thousandths": THOUSANDTHS, "pixels": reader.resized(size)[::-1], "unit": (1, 1)}
    box, reason = first_box(
        text,
        scale[reader.box_convention],
        decimals_are_shares=reader.box_convention != "pixels",
        opens_thought=reader.opens_thought,
    )
    found = "" if box is None else _listed(_times(box, size))
    return judge_box(row, found, reason, reason == CUT_OFF)


def judge_word(row: Row, answer: str, reason: str, cut_off: bool = False) -> Mark:
    """The mark of an answer that is a letter, Yes or No; "" is none."""
    return Mark(row.index, answer, float(bool(answer) and answer == row.answer), reason, cut_off)


def judge_box(row: Row, answer: str, reason: str, cut_off: bool = False) -> Mark:
    """The mark of an answer that is a list of pixels, "[x0, y0, x1, y1]"; "" is none."""
    iou = 0.0
    if answer:
        right = _times(row.boxes[0], _size(row))
        iou = float(paired_iou(np.array([ast.literal_eval(answer)]), np.array([right]))[0])
    return Mark(row.index, answer, float(iou >= THRESHOLD - _SLACK), reason, cut_off, {"iou": iou})


def box_text(row: Row) -> str:
    """The right box as an answer is written; "" where there is none."""
    return _listed(_times(row.boxes[0], _size(row))) if row.boxes and row.size else ""


def _as_toolkit(row: Row, text: str, answer: str) -> Mark:
    reason = _TOOLKIT if answer in ("Yes", "No", *row.options) else TOOLKIT_NONE
    return judge_word(row, answer, reason, _is_cut_off(text))


def _is_cut_off(text: str) -> bool:
    return final_answer(text).reason == CUT_OFF


def _size(row: Row) -> Size:
    if row.size is None or not row.boxes:
        raise ValueError(
            f"index {row.index}: a box is asked for, and its picture's size or the box is missing"
        )
    return row.size


def _times(box: Box, size: Size) -> tuple[float, float, float, float]:
    height, width = size
    return box[0] * width, box[1] * height, box[2] * width, box[3] * height


def _listed(corners: Sequence[float]) -> str:
    return f"[{', '.join(f'{corner:.6f}' for corner in corners)}]"
