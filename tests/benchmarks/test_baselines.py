"""What answers earn that know nothing of the pictures, by hand."""

import itertools

import pytest

from dig_jax.benchmarks import registry
from dig_jax.benchmarks.baselines import baselines
from dig_jax.benchmarks.row import Row

TWO, FOUR = ({letter: f"text {letter}" for letter in letters} for letters in ("AB", "ABCD"))


def test_the_majority_answer_and_the_expected_share_of_random_choices():
    answers = ((TWO, "B"), (FOUR, "B"), (FOUR, "C"))
    rows = [Row(str(i), (), "", options, answer) for i, (options, answer) in enumerate(answers)]
    found = baselines(registry.benchmark("mmstar"), rows)
    assert list(found) == ["majority answer (B)", "random choice"]
    assert found["majority answer (B)"]["Overall"] == pytest.approx(2 / 3)
    assert found["random choice"]["Overall"] == pytest.approx((1 / 2 + 1 / 4 + 1 / 4) / 3)


def test_random_choices_seldom_get_all_rotations_of_a_question_right():
    rows = [
        Row(str(question + k * 1_000_000), (), "", TWO, "AB"[k])
        for question, k in itertools.product(range(1, 201), range(2))
    ]
    found = baselines(registry.benchmark("mmbench"), rows)
    assert found["random choice"]["vanilla"] == pytest.approx(0.5)
    assert found["random choice"]["Overall"] == pytest.approx(0.25, abs=0.02)
    assert found["majority answer (A)"]["Overall"] == 0


def test_yes_to_everything_finds_all_that_is_there():
    rows = [
        Row(str(i), (), "", {}, answer, splits=("random",)) for i, answer in enumerate(("Yes", "No", "Yes"))
    ]
    found = baselines(registry.benchmark("pope"), rows)["majority answer (Yes)"]
    assert found["random/recall"] == 100 and found["random/Overall"] == pytest.approx(80)
    assert "majority answer (Yes)" in baselines(registry.benchmark("pope"), rows[:2])  # of equals


def test_a_box_around_everything_hits_what_is_large():
    boxes = ((0, 0, 1, 0.5), (0, 0, 0.5, 0.9), (0.1, 0, 1, 1))  # shares 0.5, 0.45, 0.9
    rows = [
        Row(str(i), (), "", boxes=(box,), size=(48, 64), splits=("RefCOCO val",))
        for i, box in enumerate(boxes)
    ]
    found = baselines(registry.benchmark("refcoco"), rows)
    assert found["whole image"]["Average/Precision@1"] == pytest.approx(200 / 3)
    assert found["whole image"]["Average/Average IoU"] == pytest.approx((0.5 + 0.45 + 0.9) / 3)
    assert 0 < found["random box"]["Average/Average IoU"] < found["whole image"]["Average/Average IoU"]
    assert found == baselines(registry.benchmark("refcoco"), rows)  # the seed is fixed


def test_of_changes_nothing_and_everything_are_boxed():
    rows = [Row("1", (), "", boxes=((0, 0, 1, 0.5),)), Row("2", (), "")]
    found = baselines(registry.benchmark("own_pairs"), rows)
    assert found["whole image"]["F1@0.5"] == 0.5 and found["whole image"]["Identical: false boxes"] == 1
    assert found["no box"]["F1@0.5"] == 0.5 and found["no box"]["Identical: none boxed"] == 1
    assert list(found) == ["whole image", "random box", "no box"]


def test_nothing_is_said_of_rows_without_labels():
    assert baselines(registry.benchmark("mmstar"), [Row("1", (), "", TWO)]) == {}
