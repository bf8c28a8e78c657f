"""Kinds of change happen where they show, and a file of one's own adds another."""

import dataclasses
import random

import pytest

from data_gen.changes import CHANGES, load_file
from data_gen.plan.pair import sample_object
from data_gen.scenes.presets import RICH, STAGE3
from tests.data_gen.plan.test_plan import plan_something

PLAIN = dataclasses.replace(sample_object(random.Random(0), STAGE3, 1), material="rubber", shape="cube")

KIND = """
import dataclasses
from data_gen.changes import Kind, register

@register
class Inflate(Kind):
    name = "inflate"

    def suits(self, item, preset):
        return item.size != "large"

    def apply(self, rng, item, preset):
        return item, dataclasses.replace(item, radius=item.radius * 1.5)

    def sentence(self, subject, before, after, scene):
        return f"{subject} was inflated"
"""


@pytest.mark.parametrize(
    ("shape", "texture", "turns"),
    [
        ("sphere", "plain", False),
        ("gear", "plain", False),
        ("sphere", "dots", True),
        ("arch", "plain", True),
    ],
)
def test_a_turn_needs_a_shape_or_a_texture_that_shows_it(shape, texture, turns):
    item = dataclasses.replace(PLAIN, shape=shape, texture=texture)
    assert CHANGES["rotate"].suits(item, RICH) is turns
    assert CHANGES["texture"].suits(item, RICH) is (texture != "plain")


def test_a_turned_shape_is_at_least_a_third_of_a_turn_from_looking_the_same():
    for shape, turn in (("cube", 90), ("star", 72), ("arch", 180), ("monkey", 240)):
        for seed in range(20):
            item = dataclasses.replace(PLAIN, shape=shape)
            before, after = CHANGES["rotate"].apply(random.Random(seed), item, RICH)
            rest = (after.rotation - before.rotation) % turn
            assert turn / 3 < min(rest, turn - rest) + 1e-6 or shape == "monkey"


def test_a_textured_object_does_not_become_glass():
    item = dataclasses.replace(PLAIN, texture="dots")
    found = {CHANGES["material"].apply(random.Random(seed), item, RICH)[1].material for seed in range(20)}
    assert found == {"metal"}


def test_a_file_adds_a_kind_of_change(tmp_path):
    (tmp_path / "inflate.py").write_text(KIND)
    try:
        assert load_file(tmp_path / "inflate.py") == ["inflate"]
        preset = dataclasses.replace(STAGE3, kinds=("inflate",), sizes={"small": 0.35, "medium": 0.5})
        plan = plan_something(preset, 0, 0)
        assert plan.changes
        for change in plan.changes:
            assert change.after.radius == pytest.approx(1.5 * change.before.radius)
            assert change.after.position[:2] == change.before.position[:2]
            assert change.description.endswith(" was inflated")
        with pytest.raises(ValueError, match="called 'inflate' already"):
            load_file(tmp_path / "inflate.py")
    finally:
        CHANGES.pop("inflate")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1", "registers no kind"),
        ("1 / 0", "ZeroDivisionError"),
        ("def", "SyntaxError"),
        (None, "no such"),
    ],
)
def test_a_file_that_adds_no_kind_is_an_error_that_names_it(text, message, tmp_path):
    path = tmp_path / "kind.py"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ValueError, match=f"{path}.*{message}"):
        load_file(path)
