"""Crops: windows of real content, cut again from what is stored of them."""

import json
import math
import random

import numpy as np
import pytest

from data_gen.alignment.crops import Cut, cut, from_json_values, overlap, plan_cut
from tests.data_gen.alignment.scenes import thing

CORNERS = [(0, 0, 20, 20), (80, 0, 100, 20), (0, 55, 10, 75), (90, 60, 100, 75), (20, 20, 70, 70)]


def plain(**more):
    values = {"angle": 0.0, "brightness": 1.0, "contrast": 1.0, "blur": 0.0, "loss": 1.0}
    return Cut(thing=1, box=(0, 0, 4, 4), **{**values, **more})


def test_an_untouched_crop_is_the_window_itself():
    picture = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    shown = cut(picture, plain(centre=(30.0, 20.0), side=16.0), 16)
    np.testing.assert_array_equal(shown, picture[12:28, 22:38])


@pytest.mark.parametrize("box", CORNERS)
def test_windows_stay_inside_the_picture_however_they_are_turned(box):
    for seed in range(200):
        plan = plan_cut(thing(1, "small red rubber cube", box), 100, 75, random.Random(seed))
        turn, reach = math.radians(plan.angle), plan.side / 2
        corners = [
            (
                plan.centre[0] + reach * (a * math.cos(turn) - b * math.sin(turn)),
                plan.centre[1] + reach * (a * math.sin(turn) + b * math.cos(turn)),
            )
            for a in (-1, 1)
            for b in (-1, 1)
        ]
        assert all(-0.01 <= x <= 100.01 and -0.01 <= y <= 75.01 for x, y in corners)


def test_no_pixel_of_a_crop_is_padding():
    white = np.full((75, 100, 3), 255, np.uint8)
    for seed, box in enumerate(CORNERS * 4):
        plan = plan_cut(thing(1, "small red rubber cube", box), 100, 75, random.Random(seed))
        shown = cut(white, plan, 24)
        assert shown.min() == shown.max()  # one shade: padding would be black


def test_what_is_stored_of_a_crop_cuts_the_same_pixels():
    picture = np.random.default_rng(0).integers(0, 256, (75, 100, 3), np.uint8)
    plan = plan_cut(thing(1, "small red rubber cube", (30, 30, 50, 55)), 100, 75, random.Random(3))
    import dataclasses

    again = from_json_values(json.loads(json.dumps(dataclasses.asdict(plan))))
    assert again == plan
    np.testing.assert_array_equal(cut(picture, again, 32), cut(picture, plan, 32))


def test_grey_stays_grey_so_that_colour_is_a_label():
    grey = np.repeat(np.random.default_rng(0).integers(0, 256, (75, 100, 1), np.uint8), 3, axis=2)
    shown = cut(
        grey, plan_cut(thing(1, "small red rubber cube", (30, 30, 50, 55)), 100, 75, random.Random(1)), 32
    )
    assert (shown == shown[..., :1]).all()


def test_containment_is_seen_where_the_union_hides_it():
    union, smaller = overlap((0, 0, 100, 100), (10, 10, 20, 20))
    assert (union, smaller) == (0.01, 1.0)
    assert overlap((0, 0, 10, 10), (10, 0, 20, 10)) == (0.0, 0.0)
