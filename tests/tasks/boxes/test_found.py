"""Which true boxes are found: as many as the reward counts, and the right ones."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from dig_jax.tasks.boxes.found import found_boxes
from dig_jax.tasks.boxes.text import Reading
from dig_jax.tasks.differences.reward import RewardConfig, score_answers
from tests.helpers.tasks import pairs_task

LEFT, RIGHT = [0.0, 0.0, 0.4, 0.4], [0.5, 0.5, 1.0, 1.0]


def test_the_box_that_is_hit_is_found_and_the_other_is_missed():
    assert found_boxes([[0.5, 0.5, 1.0, 0.9]], [LEFT, RIGHT], 0.5, 1, 1).tolist() == [False, True]


def test_two_predictions_of_one_box_find_it_once_and_nothing_finds_nothing():
    assert found_boxes([LEFT, LEFT], [LEFT, RIGHT], 0.5, 1, 1).tolist() == [True, False]
    assert found_boxes([], [LEFT], 0.5, 1, 1).tolist() == [False]
    assert found_boxes([LEFT], [], 0.5, 1, 1).tolist() == []


def test_a_box_without_area_is_not_found_and_breaks_nothing():
    point = [0.3, 0.3, 0.3, 0.3]
    assert found_boxes([point], [point], 0.5, 1, 1).tolist() == [False]


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1), st.integers(0, 4), st.integers(0, 4), st.sampled_from([0.3, 0.5]))
def test_as_many_are_found_as_the_reward_counts(seed, predicted, true, threshold):
    config = RewardConfig(0.5, 0.5, 0.1, threshold, "max", 1.0, 2.0, 4)
    rng = np.random.default_rng(seed)
    corners = np.sort(rng.random((predicted + true, 2, 2)), axis=1).reshape(-1, 4).astype(np.float32)
    boxes, truth = corners[:predicted], corners[predicted:]
    boxes[: min(predicted, true)] = (boxes[: min(predicted, true)] + 4 * truth[:predicted]) / 5  # near ones
    scores = score_answers(
        [Reading(boxes, True, "valid")], np.resize(truth, (1, 4, 4)), np.array([true]), config
    )
    found = found_boxes(boxes, truth, threshold, config.l1_weight, config.giou_weight)
    assert found.sum() == scores.true_positives[0]


def test_the_task_says_which_differences_an_answer_found():
    truth = {"boxes": [LEFT, RIGHT], "kinds": ["color", "move"]}
    assert pairs_task().found({"boxes": [RIGHT]}, truth) == [False, True]
