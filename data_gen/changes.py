"""The kinds of difference. To add one, write a function and register it: nothing else lists them.

A change takes an object of the scene and says what it is before and after, `None` meaning absent. It runs
before objects are placed, so the layout can make room for both versions.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Iterable

from data_gen.presets import Preset
from data_gen.scene import Object

UNCHANGED = "unchanged"


@dataclasses.dataclass(frozen=True)
class Change:
    """One object of a pair: as it is in scene A, as it is in scene B, and a sentence about it."""

    kind: str
    before: Object | None
    after: Object | None
    description: str

    @property
    def versions(self) -> tuple[Object, ...]:
        """The object as it is wherever it exists: one or two entries."""
        return tuple(item for item in (self.before, self.after) if item is not None)

    @property
    def object_id(self) -> int:
        return self.versions[0].id


def unchanged(item: Object) -> Change:
    """The object of both scenes that nothing happens to."""
    return Change(UNCHANGED, item, item, "")


ChangeFunction = Callable[[random.Random, Object, Preset], Change]
CHANGES: dict[str, ChangeFunction] = {}


def register(kind: str) -> Callable[[ChangeFunction], ChangeFunction]:
    """Makes the decorated function the change called `kind`."""

    def add(function: ChangeFunction) -> ChangeFunction:
        CHANGES[kind] = function
        return function

    return add


@register("color")
def change_color(rng: random.Random, item: Object, preset: Preset) -> Change:
    color = other(rng, preset.colors, item.color)
    after = dataclasses.replace(item, color=color, rgb=preset.colors[color])
    return Change("color", item, after, f"the {item.name} became {color}")


@register("material")
def change_material(rng: random.Random, item: Object, preset: Preset) -> Change:
    material = other(rng, preset.materials, item.material)
    after = dataclasses.replace(item, material=material)
    return Change("material", item, after, f"the {item.name} became {material}")


@register("shape")
def change_shape(rng: random.Random, item: Object, preset: Preset) -> Change:
    shape = other(rng, preset.shapes, item.shape)
    after = dataclasses.replace(item, shape=shape)
    return Change("shape", item, after, f"the {item.name} became a {shape}")


@register("size")
def change_size(rng: random.Random, item: Object, preset: Preset) -> Change:
    size = other(rng, preset.sizes, item.size)
    after = dataclasses.replace(item, size=size, radius=preset.sizes[size])
    return Change("size", item, after, f"the {item.name} became {size}")


@register("add")
def add_object(rng: random.Random, item: Object, preset: Preset) -> Change:
    return Change("add", None, item, f"a {item.name} was added")


@register("remove")
def remove_object(rng: random.Random, item: Object, preset: Preset) -> Change:
    return Change("remove", item, None, f"the {item.name} was removed")


def other(rng: random.Random, choices: Iterable[str], current: str) -> str:
    """A random choice that is not `current`."""
    return rng.choice([choice for choice in choices if choice != current])
