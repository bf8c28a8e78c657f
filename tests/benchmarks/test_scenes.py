"""Questions built from scenes: balanced, true, and near to what is there."""

import numpy as np

from dig_jax.benchmarks.releases.scenes import Kind, Scene, questions

RED_CUBE, BLUE_CONE, RED_CONE, BLUE_CUBE = (
    Kind(*words.split()) for words in ("red cube", "blue cone", "red cone", "blue cube")
)
ORANGE_BALL = Kind("orange", "ball")


def objects(*kinds: tuple[str, str, bool]) -> dict:
    return {
        "color": [color.encode() for color, _, _ in kinds],
        "shape": [shape.encode() for _, shape, _ in kinds],
        "bbox": [np.full(4, 0.5 * shown) for *_, shown in kinds],
    }


def test_a_kind_is_named_with_its_article():
    assert [str(kind) for kind in (RED_CUBE, ORANGE_BALL, Kind("", "icosphere"))] == [
        *("a red cube", "an orange ball", "an icosphere")
    ]


def test_an_image_has_as_many_questions_of_either_answer_and_all_are_true():
    scene = Scene.of(objects(("red", "cube", True), ("blue", "cone", True), ("red", "cone", False)))
    assert scene.shown == {RED_CUBE, BLUE_CONE} and RED_CONE in scene.there
    for seed in range(20):
        asked = questions(scene, sorted([RED_CUBE, ORANGE_BALL]), np.random.default_rng(seed))
        assert [answer for _, answer, _ in asked] == ["Yes", "Yes", "No", "No"]
        assert {kind for kind, answer, _ in asked if answer == "Yes"} == {RED_CUBE, BLUE_CONE}
        # The hidden red cone is neither there to be seen nor missing.
        assert [(kind, why) for kind, answer, why in asked if answer == "No"] == [
            (BLUE_CUBE, "adversarial"),
            (ORANGE_BALL, "elsewhere"),
        ]


def test_an_image_of_one_kind_is_asked_for_what_other_images_show():
    scene = Scene.of(objects(("red", "cube", True), ("red", "cube", True)))
    rng = np.random.default_rng(0)
    assert questions(scene, [BLUE_CONE], rng) == [
        (RED_CUBE, "Yes", "present"),
        (BLUE_CONE, "No", "elsewhere"),
    ]
    assert questions(scene, [RED_CUBE], rng) == []  # nothing that could be missing
    assert questions(Scene.of(objects()), [BLUE_CONE], rng) == []
