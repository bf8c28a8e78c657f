"""Count noise: some answers get a wrong number of boxes, the labels stay right."""

import numpy as np
import pytest

from dig_jax.tasks.differences.noise import CountNoise

ONE = np.array([[0.1, 0.2, 0.3, 0.4]])


def test_the_named_share_of_answers_gets_another_number_of_boxes():
    noise = CountNoise(share=0.3, max_boxes=3)
    counts = [len(noise(ONE, np.random.default_rng(seed)).boxes) for seed in range(2000)]
    shares = np.bincount(counts, minlength=5) / len(counts)
    np.testing.assert_allclose(shares, [0.1, 0.7, 0.1, 0.1, 0], atol=0.03)


def test_true_boxes_are_kept_and_false_ones_lie_inside_the_image():
    noise = CountNoise(share=1.0, max_boxes=3)
    for seed in range(50):
        answer = noise(ONE, np.random.default_rng(seed))
        boxes = answer.boxes
        assert len(boxes) in (0, 2, 3)
        np.testing.assert_array_equal(boxes[:1], ONE[: len(boxes)])
        np.testing.assert_array_equal(answer.true, [True, False, False][: len(boxes)])
        assert (boxes >= 0).all() and (boxes <= 1).all() and (boxes[:, :2] < boxes[:, 2:]).all()


def test_without_noise_nothing_changes():
    answer = CountNoise(share=0.0, max_boxes=3)(ONE, np.random.default_rng(0))
    np.testing.assert_array_equal(answer.boxes, ONE)
    assert answer.true.all()


@pytest.mark.parametrize("share, max_boxes", [(-0.1, 3), (1.5, 3), (0.5, 0)])
def test_a_share_or_number_out_of_range_is_refused(share, max_boxes):
    with pytest.raises(ValueError, match="sft.count_noise"):
        CountNoise(share, max_boxes)
