"""What to call an object so that everyone sees which one is meant, in as few words as that takes."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from data_gen.changes.attributes import with_article
from data_gen.scenes.geometry import project
from data_gen.scenes.scene import Object, Scene, texture_word
from data_gen.scenes.schema import PLAIN
from data_gen.scenes.shapes import shape

# Attributes in the order they stand before the noun, and in the order they are tried.
ORDER = ("size", "color", "texture", "material")
PREFERENCE = ("color", "texture", "material", "size")

CLEAR = 0.04  # share of the picture by which an object must stand apart to be called its leftmost

# By place from the left; scenes have at most schema.MAX_OBJECTS objects.
ORDINALS = (
    "first",
    "second",
    "third",
    "fourth",
    "fifth",
    "sixth",
    "seventh",
    "eighth",
    "ninth",
    "tenth",
) + tuple(
    f"{number}{'th' if number % 10 not in (1, 2, 3) or number < 20 else ('st', 'nd', 'rd')[number % 10 - 1]}"
    for number in range(11, 65)
)


def subject(item: Object, scene: Scene, new: bool = False) -> str:
    """What to call it: "the red cube", "the leftmost small cube", or if `new`, "a red cube".

    Told apart from all other objects of `scene`: with the fewest attributes that no other object of its shape
    shares, else with all of them and its place among its twins, counted from the left.
    """
    same_noun = [other for other in scene.objects if noun(other) == noun(item)]
    for count in range(len(PREFERENCE) + 1):
        for attributes in itertools.combinations(PREFERENCE, count):
            if sum(matches(other, item, attributes) for other in same_noun) == 1:
                name = phrase(item, attributes)
                return with_article(name) if new else f"the {name}"
    twins = [other for other in same_noun if matches(other, item, PREFERENCE)]
    # "plain" tells nothing where nothing has a texture.
    useful = [name for name in PREFERENCE if name != "texture" or any(o.texture != PLAIN for o in same_noun)]
    name = place_among(item, twins, scene).format(phrase(item, useful))
    return f"{with_article(phrase(item, useful))}, now {name}," if new else name


def noun(item: Object) -> str:
    return shape(item.shape).noun


def word(item: Object, attribute: str) -> str:
    """The adjective for an attribute."""
    if attribute == "texture":
        return "plain" if item.texture == PLAIN else texture_word(item.texture)
    return str(getattr(item, attribute))


def matches(other: Object, item: Object, attributes: Sequence[str]) -> bool:
    """Whether these attributes of `item` describe `other` too."""
    return all(word(item, name) == word(other, name) for name in attributes)


def phrase(item: Object, attributes: Sequence[str]) -> str:
    return " ".join([*(word(item, name) for name in ORDER if name in attributes), noun(item)])


def place_among(item: Object, twins: Sequence[Object], scene: Scene) -> str:
    """Its place among objects that words cannot tell apart, as a pattern: "the leftmost {}".

    Left and right if the picture shows the object clearly apart from its twins that way, else near and far,
    else by count from the left.
    """
    centres = project(scene.camera, scene.width, scene.height, np.array([twin.position for twin in twins]))
    own = centres[[twin.id for twin in twins].index(item.id)]
    others = np.array([centre for centre, twin in zip(centres, twins, strict=True) if twin.id != item.id])
    for axis, length, first, last in (
        (0, scene.width, "leftmost", "rightmost"),
        (1, scene.height, "farthest", "nearest"),
    ):
        apart = (own[axis] - others[:, axis]) / length
        if (apart < -CLEAR).all():
            return f"the {first} {{}}"
        if (apart > CLEAR).all():
            return f"the {last} {{}}"
    # Twins one above the other: the farther one counts first.
    before = sum((x, y) < (own[0], own[1]) for x, y in others.tolist())
    return f"the {ORDINALS[before]} {{}} from the left"
