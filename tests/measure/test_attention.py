"""Maps of where a model looks: shares in boxes by hand, and pictures as the model sees them."""

import numpy as np
import pytest

from dig_jax.data.images import ImageConfig
from dig_jax.measure.attention import _look, inside, overlay

SQUARE = ImageConfig(16, 1, 1, 64**2, 64**2, (0.5, 0.5, 0.5), (1, 1, 1), square=True)


def test_of_an_even_map_a_box_has_the_share_of_its_area():
    even = np.full((4, 4), 1 / 16)
    assert inside(even, np.array([0.1, 0.2, 0.5, 0.9])) == pytest.approx(0.4 * 0.7)
    assert inside(even, np.array([0, 0, 1, 1])) == pytest.approx(1)


def test_patches_count_as_far_as_they_lie_in_the_box():
    heat = np.array([[0.0, 0.6], [0.0, 0.4]])  # rows, columns
    assert inside(heat, np.array([0.5, 0.0, 1.0, 0.5])) == pytest.approx(0.6)  # the upper right quarter
    assert inside(heat, np.array([0.75, 0.0, 1.0, 1.0])) == pytest.approx(0.5)
    assert inside(heat, np.array([0.0, 0.0, 0.5, 1.0])) == 0


@pytest.mark.parametrize("picture", [slice(0, 4), slice(3, 7)])
def test_a_picture_is_looked_at_wherever_it_stands_among_the_crops(picture):
    crops = {1: slice(4, 5), 2: slice(6, 7)} if picture.start == 0 else {1: slice(0, 1), 2: slice(2, 3)}
    found = np.zeros((9, 7))  # two tokens of the answer behind seven of the prompt
    found[7:, picture] = [[1, 0, 0, 0], [1, 2, 0, 0]]
    if picture.start == 0:
        found[4, picture] = [0, 0, 0, 3]
    looked = _look(found, {**crops, 0: picture}, 2, (2, 2))
    np.testing.assert_allclose(looked.answer, [[0.5, 0.5], [0, 0]])
    first, second = looked.crops
    np.testing.assert_allclose(first, [[0, 0], [0, 1.0 if picture.start == 0 else 0]])
    assert not second.any()


def test_a_map_lies_over_the_square_around_a_picture():
    image = np.full((32, 64, 3), 255, np.uint8)
    heat = np.zeros((4, 4))
    heat[1, 3] = 1  # the picture is in rows 1 and 2 of the square
    shown = np.asarray(overlay(image, heat, SQUARE)).astype(int)
    assert shown.shape == (256, 256, 3)
    hottest = np.unravel_index(shown[..., 0].argmax(), shown.shape[:2])
    assert 64 <= hottest[0] < 128 and hottest[1] >= 192
    assert shown[0, 0].sum() < shown[128, 10].sum()  # the grey around it, and the white of it, both cold
