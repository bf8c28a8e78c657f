"""Sentences name an object by the fewest words that tell it apart."""

import random

import pytest

from data_gen.changes import CHANGES
from data_gen.plan import describe
from data_gen.scenes import scene
from data_gen.scenes.presets import RICH

CAMERA = scene.Camera(location=(0.0, -10.0, 6.0), target=(0.0, 0.0, 0.0), lens=50.0)


def make_object(number, words, x=0.0, y=0.0):
    """From "small red dotted rubber cube"."""
    size, color, texture, material, shape = words.split()
    item = scene.Object(
        number, shape, material, color, RICH.colors[color], size, RICH.sizes[size], texture=texture
    )
    return item.at(x, y)


def make_scene(*objects):
    return scene.Scene(400, 300, 1, 0, CAMERA, scene.Lighting("studio"), objects)


def subjects(*words, places=None):
    """What each of these objects is called."""
    places = places or [(number, 0.0) for number in range(len(words))]
    shown = make_scene(*(make_object(n + 1, word, *places[n]) for n, word in enumerate(words)))
    return [describe.subject(item, shown) for item in shown.objects]


def test_an_object_of_a_shape_of_its_own_needs_no_adjective():
    assert subjects("small red plain rubber cube", "small red plain rubber arch") == ["the cube", "the arch"]


def test_one_word_is_enough_where_one_tells_apart():
    assert subjects(
        "small red plain rubber cube", "large blue plain rubber cube", "large green dots metal cube"
    ) == ["the red cube", "the blue cube", "the green cube"]
    assert subjects("small red plain rubber cube", "small red dots rubber cube") == [
        "the plain cube",
        "the dotted cube",
    ]
    assert subjects("small red plain rubber cube", "large red plain rubber cube") == [
        "the small cube",
        "the large cube",
    ]


def test_two_words_where_one_does_not():
    assert subjects(
        "small red plain metal cube", "large red plain metal cube", "small blue plain metal cube"
    ) == ["the small red cube", "the large cube", "the blue cube"]


def test_twins_are_told_apart_by_their_place():
    twin = "small red plain rubber cube"
    assert subjects(twin, twin, twin, places=[(-2, 0), (2, 0), (0, 0)]) == [
        "the leftmost small red rubber cube",
        "the rightmost small red rubber cube",
        "the second small red rubber cube from the left",
    ]
    # Nearly the same column: left and right would be hard to see.
    assert subjects(twin, twin, places=[(0, -1.5), (0.05, 1.5)]) == [
        "the nearest small red rubber cube",
        "the farthest small red rubber cube",
    ]


def test_a_new_object_has_an_indefinite_article():
    shown = make_scene(
        make_object(1, "small red plain rubber arch"), make_object(2, "small red plain rubber cube", 2)
    )
    assert describe.subject(shown.objects[0], shown, new=True) == "an arch"
    twins = make_scene(
        make_object(1, "small red plain rubber cube"), make_object(2, "small red plain rubber cube", 2)
    )
    assert describe.subject(twins.objects[1], twins, new=True) == (
        "a small red rubber cube, now the rightmost small red rubber cube,"
    )


@pytest.mark.parametrize(
    ("kind", "before", "after", "sentence"),
    [
        ("color", "small red plain rubber cube", "small blue plain rubber cube", "it became blue"),
        ("material", "small red plain rubber cube", "small red plain metal cube", "it became metal"),
        (
            "shape",
            "small red plain rubber cube",
            "small red plain rubber icosahedron",
            "it became an icosahedron",
        ),
        (
            "shape",
            "small red plain rubber cube",
            "small red plain rubber l_block",
            "it became an L-shaped block",
        ),
        ("size", "small red plain rubber cube", "medium red plain rubber cube", "it became larger"),
        ("texture", "small red dots rubber cube", "small red stripes rubber cube", "it became striped"),
        ("remove", "small red dots rubber cube", None, "it was removed"),
        ("add", None, "small red dots rubber cube", "it was added"),
    ],
)
def test_each_kind_has_its_sentence(kind, before, after, sentence):
    versions = [make_object(1, words) if words else None for words in (before, after)]
    assert CHANGES[kind].sentence("it", *versions, make_scene()) == sentence


@pytest.mark.parametrize(
    ("x", "y", "where"),
    [
        (1, 0, "to the right"),
        (-1, 0, "to the left"),
        (0, -1, "towards the camera"),
        (0, 1, "away from the camera"),
    ],
)
def test_a_move_is_described_as_the_camera_sees_it(x, y, where):
    before, after = (make_object(1, "small red plain rubber cube", *place) for place in [(0, 0), (x, y)])
    assert CHANGES["move"].sentence("it", before, after, make_scene()) == f"it moved {where}"


def test_a_turn_is_told_by_its_shorter_way():
    item = make_object(1, "small red plain rubber arch")
    rng = random.Random(0)
    for _ in range(20):
        before, after = CHANGES["rotate"].apply(rng, item, RICH)
        angle = (after.rotation - before.rotation + 180) % 360 - 180
        way = "counter-clockwise" if angle > 0 else "clockwise"
        expected = f"it turned {way} by about {5 * round(abs(angle) / 5)} degrees, seen from above"
        assert CHANGES["rotate"].sentence("it", before, after, make_scene()) == expected
