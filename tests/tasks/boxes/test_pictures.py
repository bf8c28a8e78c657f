"""Pictures of answers: boxes where they are, on images of any size and number."""

import numpy as np
import pytest
from PIL import Image

from dig_jax.tasks.boxes.pictures import PREDICTED_COLOR, TRUE_COLOR, draw_boxes

NO_BOXES = np.zeros((0, 4), np.float32)


def pixels(picture: Image.Image, color: tuple[int, int, int]) -> np.ndarray:
    """(x, y) of the pixels of exactly this color, legend left out: [n, 2]."""
    ys, xs = np.nonzero((np.asarray(picture)[:390] == color).all(axis=-1))
    return np.stack([xs, ys], axis=1)


def test_boxes_are_drawn_where_they_are_on_both_images():
    gray = np.full((96, 96, 3), 128, np.uint8)  # shown at 384 pixels, from (12, 12) and (408, 12)
    picture = draw_boxes(
        (gray, gray), np.float32([[0.25, 0.25, 0.5, 0.5]]), np.float32([[0.5, 0.5, 1, 0.75]]), []
    )
    for color, box in ((TRUE_COLOR, (96, 96, 192, 192)), (PREDICTED_COLOR, (192, 192, 384, 288))):
        found = pixels(picture, color)
        for left in (12, 408):
            inside = found[(found[:, 0] >= left) & (found[:, 0] < left + 384)]
            drawn = (*inside.min(axis=0), *inside.max(axis=0))
            np.testing.assert_allclose(drawn, np.add(box, (left, 12, left, 12)), atol=3)


@pytest.mark.parametrize("size", [(8, 8), (64, 200), (1200, 300)])
def test_images_of_any_size_and_shape_are_shown_at_a_readable_size(size):
    image = np.zeros((*size, 3), np.uint8)
    picture = draw_boxes((image, image), NO_BOXES, np.float32([[0.5, 0.5, 0.5001, 0.5001]]), ["caption"])
    assert 200 < picture.width < 900 and picture.height > 100
    assert len(pixels(picture, PREDICTED_COLOR))  # a box smaller than a pixel still shows


def test_a_caption_of_any_text_stays_a_caption():
    image = np.zeros((32, 32, 3), np.uint8)
    short = draw_boxes((image, image), NO_BOXES, NO_BOXES, ["a"])
    long = draw_boxes((image, image), NO_BOXES, NO_BOXES, ["\n\0\ud800\u202e<b>" * 200_000, "x" * 1_000_000])
    assert long.width == short.width and long.height < 2 * short.height


@pytest.mark.parametrize("count", [1, 3])
def test_any_number_of_images_stand_side_by_side(count):
    gray = np.full((96, 96, 3), 128, np.uint8)
    box = np.float32([[0.25, 0.25, 0.5, 0.5]])
    picture = draw_boxes([gray] * count, box, NO_BOXES, [])
    assert picture.width == count * (384 + 12) + 12
    found = pixels(picture, TRUE_COLOR)
    assert all((abs(found[:, 0] - (12 + 396 * k + 96)) < 3).any() for k in range(count))
