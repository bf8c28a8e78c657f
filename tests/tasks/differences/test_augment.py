"""Augmentations move images and boxes together."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dig_jax.data.records import Pair
from dig_jax.tasks.differences.augment import (
    Augment,
    flip_horizontal,
    flip_vertical,
    permute_channels,
    swap_pair,
    transposed,
)
from tests.helpers.drawn_pairs import draw_pair

ALL = Augment(True, True, True, True, True)
NONE = Augment(False, False, False, False, False)


def bright_box(image: np.ndarray) -> list[float]:
    """The box around pixels of at least 150 in any channel, normalised."""
    rows, columns = np.nonzero((image >= 150).any(axis=2))
    height, width = image.shape[:2]
    return [
        columns.min() / width,
        rows.min() / height,
        (columns.max() + 1) / width,
        (rows.max() + 1) / height,
    ]


@pytest.mark.parametrize("change", [flip_horizontal, flip_vertical, transposed])
def test_boxes_follow_the_pixels(change):
    pair = draw_pair(3, size=(96, 128))  # in image B the only difference is bright
    np.testing.assert_allclose(pair.boxes[0], bright_box(pair.image_b), atol=1e-6)
    changed = change(pair)
    np.testing.assert_allclose(changed.boxes[0], bright_box(changed.image_b), atol=1e-6)
    np.testing.assert_array_equal(changed.boxes, changed.boxes_a)
    np.testing.assert_array_equal(changed.boxes, changed.boxes_b)


def test_a_horizontal_flip_by_hand():
    pair = dataclasses.replace(draw_pair(0), boxes=np.array([[0.125, 0.25, 0.5, 0.75]], np.float32))
    np.testing.assert_array_equal(flip_horizontal(pair).boxes, [[0.5, 0.25, 0.875, 0.75]])
    np.testing.assert_array_equal(flip_vertical(pair).boxes, [[0.125, 0.25, 0.5, 0.75]])
    np.testing.assert_array_equal(transposed(pair).boxes, [[0.25, 0.125, 0.75, 0.5]])


@pytest.mark.parametrize("change", [flip_horizontal, flip_vertical, transposed, swap_pair])
def test_each_change_undoes_itself(change):
    pair = draw_pair(1, num_differences=2)
    twice = change(change(pair))
    np.testing.assert_array_equal(twice.image_a, pair.image_a)
    np.testing.assert_allclose(twice.boxes, pair.boxes, atol=1e-6)


@pytest.mark.parametrize("change", [flip_horizontal, flip_vertical, transposed])
def test_the_zero_box_of_an_invisible_object_stays_zero(change):
    pair = dataclasses.replace(draw_pair(0), boxes_a=np.zeros((1, 4), np.float32))
    changed = change(pair)
    assert not changed.boxes_a.any()
    assert changed.boxes_b.any()


def test_swapping_the_pair_turns_what_was_added_into_removed():
    pair = dataclasses.replace(
        draw_pair(0, num_differences=3),
        kinds=("add", "remove", "color"),
        boxes_a=np.zeros((3, 4), np.float32),
    )
    swapped = swap_pair(pair)
    assert swapped.kinds == ("remove", "add", "color")
    np.testing.assert_array_equal(swapped.image_a, pair.image_b)
    np.testing.assert_array_equal(swapped.boxes_a, pair.boxes_b)
    np.testing.assert_array_equal(swapped.boxes, pair.boxes)
    assert not swapped.boxes_b.any()


def test_channels_are_permuted_alike_in_both_images():
    pair = draw_pair(0)
    changed = permute_channels(pair, np.array([2, 0, 1]))
    np.testing.assert_array_equal(changed.image_a[..., 0], pair.image_a[..., 2])
    np.testing.assert_array_equal(changed.image_b[..., 1], pair.image_b[..., 0])


def test_nothing_enabled_changes_nothing():
    pair = draw_pair(0)
    assert NONE(pair, np.random.default_rng(0)) is pair


def test_a_changed_pair_carries_no_sentences_that_may_have_become_false():
    pair = draw_pair(0)
    results = [ALL(pair, np.random.default_rng(seed)) for seed in range(20)]
    assert all(result.descriptions == () for result in results if result is not pair)


def test_only_square_images_are_transposed():
    only_transpose = dataclasses.replace(NONE, transpose=True)
    wide, square = draw_pair(0, size=(64, 96)), draw_pair(0)
    assert all(only_transpose(wide, np.random.default_rng(seed)) is wide for seed in range(20))
    assert any(only_transpose(square, np.random.default_rng(seed)) is not square for seed in range(20))


def test_each_change_happens_about_half_of_the_time():
    pair = draw_pair(0)
    only_swap = dataclasses.replace(NONE, swap_pair=True)
    count = sum(only_swap(pair, np.random.default_rng(seed)) is not pair for seed in range(400))
    assert 160 < count < 240


def test_enabling_one_change_leaves_the_draws_of_the_others_alone():
    pair = draw_pair(0)
    without = dataclasses.replace(ALL, swap_pair=False)
    for seed in range(20):
        swapped_or_not = ALL(pair, np.random.default_rng(seed)), without(pair, np.random.default_rng(seed))
        np.testing.assert_array_equal(swapped_or_not[0].boxes, swapped_or_not[1].boxes)


@given(st.integers(0, 10_000))
def test_boxes_stay_ordered_and_inside(seed):
    pair: Pair = ALL(draw_pair(seed % 7, num_differences=3), np.random.default_rng(seed))
    assert ((pair.boxes >= 0) & (pair.boxes <= 1)).all()
    assert (pair.boxes[:, :2] < pair.boxes[:, 2:]).all()
    assert pair.image_a.shape == pair.image_b.shape == (128, 128, 3)
