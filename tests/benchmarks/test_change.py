"""Boxed changes: what an answer adds to the scores, and the scores, by hand."""

import numpy as np
import pytest

from dig_jax.benchmarks import change
from dig_jax.benchmarks.row import Mark, Row

# A picture of 640x480 pixels: a box of 64x48 is 1 % of it (medium), of 320x240 a quarter, of 16x12 1/1600.
LARGE, MEDIUM, SMALL = [0, 0, 0.5, 0.5], [0.6, 0.6, 0.7, 0.7], [0.9, 0.9, 0.925, 0.925]


def marks(*answers: tuple[list, list, bool]) -> tuple[list[Row], list[Mark]]:
    rows = [Row(str(number), (), "") for number in range(len(answers))]
    found = [
        Mark(row.index, "", 0, "", values=change.measure(np.array(predicted), np.array(true), parsed))
        for row, (predicted, true, parsed) in zip(rows, answers, strict=True)
    ]
    return rows, found


def test_the_scores_by_hand():
    shifted = [0, 0, 0.5, 0.4]  # IoU 0.8 with LARGE
    found = change.scores(
        *marks(
            ([shifted, MEDIUM], [LARGE], True),  # one found, one false: F1 2/3
            ([], [SMALL], True),  # F1 0
            ([SMALL], [SMALL, MEDIUM], True),  # F1 2/3
        )
    )
    assert found == {
        "F1@0.5": pytest.approx(4 / 9),
        "F1@0.5 pooled": pytest.approx(2 * 2 / (3 + 4)),
        "Precision": pytest.approx(2 / 3),
        "Recall": pytest.approx(2 / 4),
        "Mean matched IoU": pytest.approx((0.8 + 1) / 2),
        "F1@0.5 small": pytest.approx(2 * 1 / (1 + 2)),
        "F1@0.5 medium": 0.0,
        "F1@0.5 large": pytest.approx(1.0),
    }


def test_false_boxes_on_identical_pictures_are_counted_and_silence_is_not_none():
    found = change.scores(*marks(([], [], True), ([SMALL, MEDIUM], [], True), ([], [], False)))
    assert found["Identical: false boxes"] == pytest.approx(2 / 3)
    assert found["Identical: none boxed"] == found["F1@0.5"] == pytest.approx(1 / 3)
    assert "F1@0.5 small" not in found


def test_as_many_boxes_as_can_be_are_found_whatever_their_order():
    # The first box overlaps both true ones by half or more; giving it to its best leaves the other without.
    true = [[0, 0, 0.4, 1], [0.4, 0, 0.6, 1]]
    predicted = [[0, 0, 0.6, 1], [0, 0, 0.39, 1]]
    for boxes in (predicted, predicted[::-1]):
        values = change.measure(np.array(boxes), np.array([[0, 0, 0.4, 1], [0, 0, 0.6, 1]]))
        assert values["found"] == 2
        assert change.measure(np.array(boxes), np.array(true))["found"] == 1
    assert change.measure(np.array([[0, 0, 1, 1]] * 3), np.array(true))["predicted"] == 3


@pytest.mark.parametrize(("side", "size"), [(31.9, 0), (32, 1), (95.9, 1), (96, 2)])
def test_a_change_is_sized_as_in_coco_at_640_by_480(side, size):
    box = np.array([[0, 0, side / 640, side / 480]], np.float32)
    values = change.measure(np.zeros((0, 4)), box)
    assert [values[f"true_{name}"] for name in change.SIZES] == [float(size == number) for number in range(3)]
