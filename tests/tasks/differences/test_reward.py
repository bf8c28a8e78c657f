"""The reward: hand-computed cases, a brute-force reference, and bounds. Cheating it: test_probes.py."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs import base
from dig_jax.tasks.boxes.iou import costs_and_ious
from dig_jax.tasks.differences.reward import BoxScores, RewardConfig, score_texts
from tests.helpers.drawn_pairs import draw_pair
from tests.helpers.tasks import pairs_task
from tests.tasks.boxes import reference

DEFAULT = RewardConfig(
    f1_weight=0.5,
    iou_weight=0.5,
    format_weight=0.1,
    iou_threshold=0.5,
    iou_average="max",
    l1_weight=1.0,
    giou_weight=1.0,
    max_boxes=16,
)
TRUE = [[100, 100, 300, 300], [600, 100, 800, 300], [100, 600, 300, 800], [600, 600, 800, 800]]


def score(texts, truths, *, thinking=False, config=DEFAULT) -> BoxScores:
    """Scores answers (text, or a list of boxes in thousandths) against true boxes in thousandths."""
    texts = [text if isinstance(text, str) else json.dumps(text) for text in texts]
    true_boxes = np.full((len(truths), 4, 4), np.nan, np.float32)  # padding that must not matter
    for row, boxes in enumerate(truths):
        true_boxes[row, : len(boxes)] = np.float32(boxes).reshape(-1, 4) / 1000
    num_true = np.array([len(boxes) for boxes in truths], np.int32)
    return score_texts(texts, true_boxes, num_true, thinking=thinking, config=config)


def reward(answer, truth, **kwargs) -> float:
    return float(score([answer], [truth], **kwargs).reward[0])


def test_the_defaults_tested_here_are_those_of_the_base_config():
    assert RewardConfig(**base.get_config().reward.to_dict()) == DEFAULT


def test_a_perfect_answer_in_any_order_earns_one():
    scores = score([TRUE, TRUE[::-1], "[]"], [TRUE, TRUE, []])
    np.testing.assert_array_equal(scores.reward, [1, 1, 1])
    np.testing.assert_array_equal(scores.true_positives, [4, 4, 0])


def test_terms_of_a_half_right_answer():
    # Two of four found exactly: precision 1, recall 1/2, F1 2/3; IoU sum 2 over max(2, 4).
    scores = score([TRUE[:2]], [TRUE])
    assert scores.precision[0] == 1 and scores.recall[0] == 0.5
    assert scores.f1[0] == pytest.approx(2 / 3) and scores.iou[0] == 0.5
    assert scores.accuracy[0] == pytest.approx(0.5 * 2 / 3 + 0.5 * 0.5)
    assert scores.reward[0] == pytest.approx(0.9 * scores.accuracy[0] + 0.1)
    assert (scores.num_predicted[0], scores.num_true[0], scores.true_positives[0]) == (2, 4, 2)


def test_a_loose_box_below_the_threshold_earns_iou_but_no_f1():
    # 200 wide, shifted by 100: intersection 100, union 300.
    scores = score([[[200, 100, 400, 300]]], [TRUE[:1]])
    assert scores.f1[0] == 0 and scores.iou[0] == pytest.approx(1 / 3)


def test_an_iou_of_exactly_the_threshold_counts():
    # In float32 this pair's IoU is 0.49999994.
    assert score([[[100, 100, 300, 300]]], [[[100, 100, 200, 300]]]).true_positives[0] == 1


def test_iou_average_matched_divides_by_the_matched_pairs():
    matched = dataclasses.replace(DEFAULT, iou_average="matched")
    assert score([TRUE[:1]], [TRUE], config=matched).iou[0] == 1
    assert score([TRUE[:1]], [TRUE]).iou[0] == 0.25


def test_threshold_zero_counts_every_matched_pair_as_the_paper_literally_says():
    anywhere = [[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10]]
    literal = dataclasses.replace(DEFAULT, iou_threshold=0.0)
    assert score([anywhere], [TRUE], config=literal).f1[0] == pytest.approx(6 / 7)
    assert score([anywhere], [TRUE]).f1[0] == 0


def test_no_differences():
    scores = score(["[]", TRUE[:1], "[]"], [[], [], TRUE])
    np.testing.assert_array_equal(scores.f1, [1, 0, 0])
    np.testing.assert_array_equal(scores.iou, [1, 0, 0])
    np.testing.assert_allclose(scores.reward, [1, 0.1, 0.1])


@pytest.mark.parametrize("text", ["", "no differences", "[[5,5,1,1]]", "[", "No differences: []"])
def test_text_that_is_not_an_answer_earns_nothing_even_without_differences(text):
    assert reward(text, []) == 0


def test_a_list_wrapped_in_prose_earns_its_accuracy_but_no_format():
    scores = score([f"The differences are {json.dumps(TRUE)}"], [TRUE])
    assert scores.format[0] == 0 and scores.accuracy[0] == 1
    assert scores.reward[0] == pytest.approx(0.9)


def test_a_thinking_model_cut_off_earns_nothing():
    thought = f"I see {json.dumps(TRUE)}"
    scores = score([thought, f"{thought}</think>{json.dumps(TRUE)}"], [TRUE, TRUE], thinking=True)
    np.testing.assert_array_equal(scores.reward, [0, 1])
    assert scores.reasons == ("truncated", "valid")


def test_each_repetition_of_a_true_box_costs():
    rewards = [reward([TRUE[0]] * copies, TRUE[:1]) for copies in range(1, 6)]
    assert rewards == sorted(rewards, reverse=True) and len(set(rewards)) == 5


def test_boxes_beyond_max_boxes_cannot_earn():
    wrong = [[0, 400 + i, 50, 450 + i] for i in range(16)]
    assert reward(wrong + TRUE, TRUE) < 0.1


@st.composite
def boxes(draw: st.DrawFn, max_size: int) -> list[list[int]]:
    pair = st.lists(st.integers(0, 1000), min_size=2, max_size=2, unique=True).map(sorted)
    corners = draw(st.lists(st.tuples(pair, pair), max_size=max_size))
    return [[x[0], y[0], x[1], y[1]] for x, y in corners]


@st.composite
def answers_near_the_truth(draw: st.DrawFn) -> tuple[list[list[int]], list[list[int]]]:
    """An answer of random boxes and of true boxes slightly moved (random ones alone hardly ever match)."""
    truth = draw(boxes(4))
    answer = draw(boxes(2))
    for box in draw(st.lists(st.sampled_from(truth), max_size=3)) if truth else []:
        shift = draw(st.integers(-5, 5))
        moved = [min(max(c + shift, 0), 1000) for c in box]
        if moved[0] < moved[2] and moved[1] < moved[3]:
            answer.append(moved)
    return answer, truth


CONFIGS = st.builds(
    RewardConfig,
    f1_weight=st.sampled_from([0.0, 0.3, 0.5]),
    iou_weight=st.sampled_from([0.2, 0.5]),
    format_weight=st.floats(0, 1),
    iou_threshold=st.sampled_from([0.0, 0.3, 0.5, 0.75]),
    iou_average=st.sampled_from(["max", "matched"]),
    l1_weight=st.sampled_from([0.0, 1.0, 5.0]),
    giou_weight=st.sampled_from([1.0, 2.0]),
    max_boxes=st.just(16),
)


@settings(max_examples=300, deadline=None)
@given(answers_near_the_truth(), CONFIGS)
def test_terms_agree_with_trying_every_assignment(answer_and_truth, config):
    answer, truth = answer_and_truth
    scores = score([answer], [truth], config=config)
    as_floats = [[[c / 1000 for c in box] for box in side] for side in (answer, truth)]
    best = reference.accuracies(*as_floats, config)
    assert any(
        scores.f1[0] == pytest.approx(f1, abs=1e-5) and scores.iou[0] == pytest.approx(iou, abs=1e-5)
        for f1, iou in best
    )


@settings(max_examples=200, deadline=None)
@given(answers_near_the_truth(), CONFIGS, st.randoms(use_true_random=False))
def test_the_order_of_the_boxes_never_matters(answer_and_truth, config, random):
    answer, truth = answer_and_truth
    shuffled = random.sample(answer, len(answer)), random.sample(truth, len(truth))
    before, after = score([answer, shuffled[0]], [truth, shuffled[1]], config=config).reward
    assert before == after


@settings(max_examples=200, deadline=None)
@given(st.lists(st.one_of(st.text(), boxes(20)), max_size=6), boxes(4), CONFIGS, st.booleans())
def test_every_term_stays_within_its_bounds(answers, truth, config, thinking):
    scores = score(answers, [truth] * len(answers), thinking=thinking, config=config)
    for name in ("reward", "accuracy", "format", "f1", "iou", "precision", "recall"):
        term = getattr(scores, name)
        assert term.shape == (len(answers),) and term.dtype == np.float32
        assert np.all((term >= 0) & (term <= 1))
    assert np.all(scores.true_positives <= np.minimum(scores.num_predicted, scores.num_true))


def test_a_completion_scores_the_same_alone_and_in_a_batch():
    answers = [TRUE[:2], TRUE, "[]", "prose", [[90, 110, 280, 310]]]
    together = score(answers, [TRUE] * 5)
    for row, answer in enumerate(answers):
        alone = score([answer], [TRUE])
        for field in ("reward", "f1", "iou", "num_predicted"):
            assert getattr(alone, field)[0] == getattr(together, field)[row]


def test_contents_and_a_smaller_last_batch_compile_nothing_new():
    score([TRUE] * 8, [TRUE] * 8)
    compiled = costs_and_ious._cache_size()
    truths = [TRUE[:1], [], TRUE, TRUE, [], TRUE, []]
    score([TRUE[:1], "[]", "x", TRUE + TRUE, "[", TRUE[2:], TRUE[1:]], truths)
    assert costs_and_ious._cache_size() == compiled


def test_a_summary_averages_every_term_and_counts_the_reasons():
    metrics = summary([TRUE[:2], "[]", "prose", "[[1,2"])
    assert metrics["f1"] == pytest.approx(2 / 3 / 4) and metrics["format"] == 0.5
    assert metrics["num_predicted"] == 0.5 and metrics["num_true"] == 4
    assert metrics["no_difference"] == 0.25
    shares = {name: value for name, value in metrics.items() if name.startswith("answer/") and value}
    assert shares == {"answer/valid": 0.5, "answer/no_box": 0.5}


def test_a_summary_of_nothing_is_an_error():
    with pytest.raises(ValueError, match="at least one"):
        summary([])


def summary(texts) -> dict[str, float]:
    """What a log says of answers to a pair with the boxes `TRUE`."""
    pair = dataclasses.replace(draw_pair(0), boxes=np.float32(TRUE) / 1000)
    task = pairs_task()
    texts = [text if isinstance(text, str) else json.dumps(text) for text in texts]
    return task.summary(task.score(texts, [task.example(pair)] * len(texts)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"f1_weight": -0.1}, "reward.f1_weight is -0.1"),
        ({"f1_weight": 0.8}, "at most 1"),
        ({"f1_weight": 0.0, "iou_weight": 0.0}, "more than 0"),
        ({"format_weight": 1.5}, "reward.format_weight is 1.5"),
        ({"format_weight": float("nan")}, "reward.format_weight is nan"),
        ({"iou_threshold": 50}, "reward.iou_threshold is 50"),
        ({"iou_average": "mean"}, "reward.iou_average is 'mean'"),
        ({"l1_weight": float("inf")}, "reward.l1_weight is inf"),
        ({"l1_weight": 0.0, "giou_weight": 0.0}, "one must be positive"),
        ({"max_boxes": 0}, "reward.max_boxes is 0"),
        ({"max_boxes": 2.5}, "reward.max_boxes is 2.5"),
    ],
)
def test_impossible_settings_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(DEFAULT, **changes)


@pytest.mark.parametrize(
    ("shape", "num_true", "message"),
    [
        ((2, 4), [1], r"true_boxes has shape \(2, 4\)"),
        ((1, 4, 4), [1, 1], r"num_true has shape \(2,\)"),
        ((1, 4, 4), [5], r"num_true\[0\] is 5; expected 0..4"),
        ((1, 20, 4), [17], r"num_true\[0\] is 17; expected 0..16 .*max_boxes is 16"),
    ],
)
def test_inconsistent_true_boxes_are_named(shape, num_true, message):
    with pytest.raises(ValueError, match=message):
        score_texts(["[]"], np.zeros(shape), np.array(num_true), thinking=False, config=DEFAULT)


def test_a_true_box_that_is_not_finite_is_named():
    true_boxes = np.array([[[0, 0, 1, 1]], [[0, np.nan, 1, 1]]])
    with pytest.raises(ValueError, match=r"true_boxes\[1\]"):
        score_texts(["[]", "[]"], true_boxes, np.array([1, 1]), thinking=False, config=DEFAULT)
