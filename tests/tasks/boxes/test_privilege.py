"""Pictures that give the true boxes away, to a teacher alone."""

import numpy as np
import pytest

from configs import base
from dig_jax.data.example import Example, Object, Turn
from dig_jax.tasks.boxes import privilege
from dig_jax.tasks.referring.target import Target
from dig_jax.tasks.referring.task import Referring
from dig_jax.tasks.rewards import Rewarded, RewardMix
from tests.helpers.drawn_pairs import draw_pair
from tests.helpers.tasks import answerer, pairs_task

HALF = np.array([[0.5, 0.5, 0.75, 0.75]])  # pixels 4 and 5 of 8, in both directions


@pytest.fixture
def picture():
    """8 x 8 pixels, each with a value of its own below 64."""
    return np.repeat(np.arange(64, dtype=np.uint8).reshape(8, 8, 1), 3, axis=2)


def test_a_frame_is_around_its_box_and_hides_nothing_of_it(picture):
    framed = privilege.framed(picture, HALF)
    red = (framed == privilege.FRAME_COLOR).all(axis=-1)
    around = np.zeros((8, 8), bool)
    around[3:7, 3:7] = True
    around[4:6, 4:6] = False
    np.testing.assert_array_equal(red, around)
    np.testing.assert_array_equal(framed[~around], picture[~around])


def test_a_frame_of_a_box_at_the_border_stays_inside_the_picture(picture):
    framed = privilege.framed(picture, np.array([[0.0, 0.0, 1.0, 1.0]]))
    np.testing.assert_array_equal(framed[1:-1, 1:-1], picture[1:-1, 1:-1])
    assert (framed[[0, -1]] == privilege.FRAME_COLOR).all()


def test_crops_leave_what_is_in_and_around_a_box_where_it_is(picture):
    cropped = privilege.cropped(picture, HALF)  # a quarter of 2 pixels, to whole ones: one pixel around
    kept = np.zeros((8, 8), bool)
    kept[3:7, 3:7] = True
    np.testing.assert_array_equal(cropped[kept], picture[kept])
    assert (cropped[~kept] == privilege.GREY).all()


def test_without_boxes_there_is_nothing_to_frame_and_nothing_to_see(picture):
    none = np.zeros((0, 4))
    np.testing.assert_array_equal(privilege.framed(picture, none), picture)
    assert (privilege.cropped(picture, none) == privilege.GREY).all()


@pytest.mark.parametrize("kind", privilege.KINDS)
def test_all_pictures_are_shown_as_large_as_they_are_and_none_is_written_to(picture, kind):
    before = picture.copy()
    shown = privilege.shown((picture, picture[:, :4]), HALF, kind)
    assert [image.shape for image in shown] == [(8, 8, 3), (8, 4, 3)]
    np.testing.assert_array_equal(picture, before)


@pytest.mark.parametrize(
    "mix", [None, RewardMix({"f1": 1.0}, "", False)], ids=["own reward", "another reward"]
)
def test_a_pair_shows_the_boxes_of_its_differences_in_both_images(mix):
    task = pairs_task()
    example = task.example(draw_pair(1, size=(64, 64), num_differences=2, seed=0))
    task = Rewarded(task, mix) if mix else task
    assert set(task.privileges) == set(privilege.KINDS)
    told = task.privileged(example, "crops")
    assert (told.id, told.messages, told.target) == (example.id, example.messages, example.target)
    for image, shown in zip(example.images, told.images, strict=True):
        np.testing.assert_array_equal(shown, privilege.cropped(image, example.target.boxes))


def test_a_phrase_shows_its_box_in_the_images_that_are_shown_whole(picture):
    messages = (Turn("user", (0, Object(1), "Find it.")),)
    example = Example("a", messages, (picture, picture[:4]), Target("it", HALF), "referring")
    told = Referring(base.get_config(), answerer()).privileged(example, "boxes")
    np.testing.assert_array_equal(told.images[0], privilege.framed(picture, HALF))
    np.testing.assert_array_equal(told.images[1], picture[:4])
