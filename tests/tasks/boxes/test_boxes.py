"""IoU, GIoU and matching costs against hand-computed numbers and a slow reference."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.optimize import linear_sum_assignment

from dig_jax.tasks.boxes.iou import costs_and_ious, padded_size, pairwise_giou, pairwise_iou
from dig_jax.tasks.boxes.matching import assign
from tests.tasks.boxes import reference

UNIT = [0.0, 0.0, 1.0, 1.0]
LEFT_HALF = [0.0, 0.0, 0.5, 1.0]
RIGHT_HALF = [0.5, 0.0, 1.0, 1.0]
LOWER_RIGHT = [0.75, 0.75, 1.0, 1.0]
UPPER_LEFT = [0.0, 0.0, 0.25, 0.25]
POINT = [0.5, 0.5, 0.5, 0.5]


@pytest.mark.parametrize(
    ("a", "b", "iou", "giou"),
    [
        (UNIT, UNIT, 1.0, 1.0),
        (UNIT, LEFT_HALF, 0.5, 0.5),
        (LEFT_HALF, RIGHT_HALF, 0.0, 0.0),  # they touch and fill their hull
        (UPPER_LEFT, LOWER_RIGHT, 0.0, -0.875),  # 2 of the hull's 16 squares are covered
        (LEFT_HALF, [0.25, 0.0, 0.75, 1.0], 1 / 3, 1 / 3),
        (UNIT, POINT, 0.0, 0.0),
        (POINT, POINT, 0.0, 0.0),
    ],
)
def test_overlap_of_two_boxes(a, b, iou, giou):
    for first, second in ((a, b), (b, a)):
        first, second = np.float32([first]), np.float32([second])
        np.testing.assert_allclose(pairwise_iou(first, second), [[iou]], atol=1e-6)
        np.testing.assert_allclose(pairwise_giou(first, second), [[giou]], atol=1e-6)


def test_every_pair_of_a_batch_is_compared():
    a = np.float32([[UNIT, LEFT_HALF], [POINT, LOWER_RIGHT]])
    b = np.float32([[UNIT, RIGHT_HALF, LEFT_HALF], [LOWER_RIGHT, UNIT, UPPER_LEFT]])
    expected = [[[1, 0.5, 0.5], [0.5, 0, 1]], [[0, 0, 0], [1, 1 / 16, 0]]]
    np.testing.assert_allclose(pairwise_iou(a, b), expected, atol=1e-6)


# Edges far enough apart that float32 keeps the areas; width or height 0 is common in the draw.
BOXES = hnp.arrays(np.float32, (3, 4), elements=st.integers(0, 100).map(lambda c: np.float32(c) / 100)).map(
    lambda b: np.concatenate([np.minimum(b[:, :2], b[:, 2:]), np.maximum(b[:, :2], b[:, 2:])], axis=1)
)


@settings(deadline=None)
@given(BOXES, BOXES)
def test_overlaps_agree_with_the_slow_reference(a, b):
    iou, giou = np.asarray(pairwise_iou(a, b)), np.asarray(pairwise_giou(a, b))
    for i in range(3):
        for j in range(3):
            first, second = a[i].astype(float), b[j].astype(float)
            assert iou[i, j] == pytest.approx(reference.iou(first, second), abs=1e-5)
            assert giou[i, j] == pytest.approx(reference.giou(first, second), abs=1e-5)
    assert np.all((iou >= 0) & (iou <= 1)) and np.all((giou >= -1) & (giou <= iou))


def test_cost_weighs_l1_and_giou_and_is_infinite_on_padding():
    predicted = np.float32([[LEFT_HALF, UNIT], [UNIT, UNIT]])
    true = np.float32([[UNIT, UPPER_LEFT, UNIT], [UNIT, UNIT, UNIT]])
    cost, iou = map(
        np.asarray, costs_and_ious(predicted, np.int32([1, 0]), true, np.int32([2, 3]), 4.0, 10.0)
    )
    assert cost.shape == (2, 2, 3)
    np.testing.assert_allclose(iou[0, 0, :2], [0.5, 1 / 8])
    assert cost[0, 0, 0] == pytest.approx(4 * 0.5 / 4 + 10 * 0.5)
    assert cost[0, 0, 1] == pytest.approx(4 * (0.25 + 0.75) / 4 + 10 * (1 - 1 / 8))
    assert np.isinf(np.delete(cost.ravel(), [0, 1])).all()


def test_assignment_minimises_the_total_not_each_box_greedily():
    # Greedy gives 0-0 (cost 1) and then 1-1 (cost 9); the least total is 0-1 and 1-0.
    costs = np.array([[[1.0, 2.0, np.inf], [2.0, 9.0, np.inf], [np.inf] * 3]])
    np.testing.assert_array_equal(assign(costs, np.array([2]), np.array([2])), [[1, 0, -1]])


def test_assignment_handles_every_count_in_one_batch():
    costs = np.arange(4 * 2 * 3, dtype=float).reshape(4, 2, 3)
    matches = assign(costs, np.array([0, 2, 1, 2]), np.array([3, 0, 3, 1]))
    assert matches.dtype == np.int32
    np.testing.assert_array_equal(matches, [[-1, -1], [-1, -1], [0, -1], [0, -1]])


@pytest.mark.parametrize("most", [4, 7])  # of 7 boxes with 7 there are 5,040 assignments: too many to try
def test_assignments_of_every_size_cost_what_those_of_scipy_cost(most):
    rng = np.random.default_rng(most)
    numbers = np.array([(n, m) for n in range(most + 1) for m in range(most + 1) for _ in range(3)])
    rng.shuffle(numbers)
    costs = rng.random((len(numbers), most + 1, most + 1), np.float32)
    matches = assign(costs, *numbers.T)
    for match, cost, (n, m) in zip(matches, costs, numbers, strict=True):
        rows = np.flatnonzero(match >= 0)
        assert len(set(match[rows])) == len(rows) == min(n, m)
        assert np.all(rows < n) and np.all(match < m)
        best = cost[:n, :m][linear_sum_assignment(cost[:n, :m])].sum()
        assert cost[rows, match[rows]].sum() == pytest.approx(best, abs=1e-6)


@pytest.mark.parametrize(("size", "padded"), [(0, 4), (1, 4), (4, 4), (5, 8), (8, 8), (9, 16), (512, 512)])
def test_padded_sizes_are_powers_of_two(size, padded):
    assert padded_size(size) == padded
