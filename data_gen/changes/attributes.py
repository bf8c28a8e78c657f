"""What an object is like: color, material, shape, size, texture."""

from __future__ import annotations

import abc
import dataclasses
import random

from data_gen.changes.registry import Kind, Object, Preset, Scene, other, register
from data_gen.scenes.scene import texture_word
from data_gen.scenes.schema import PLAIN
from data_gen.scenes.shapes import shape


class Became(Kind):
    """An object that is in both scenes and of which one word says what it has become."""

    def sentence(self, subject: str, before: Object | None, after: Object | None, scene: Scene) -> str:
        assert before is not None and after is not None
        return f"{subject} became {self.word(before, after)}"

    @abc.abstractmethod
    def word(self, before: Object, after: Object) -> str:
        """What it is now."""


@register
class Color(Became):
    name = "color"

    def apply(self, rng: random.Random, item: Object, preset: Preset) -> tuple[Object, Object]:
        color = other(rng, preset.colors, item.color)
        return item, dataclasses.replace(item, color=color, rgb=preset.colors[color])

    def word(self, before: Object, after: Object) -> str:
        return after.color


@register
class Material(Became):
    name = "material"

    def suits(self, item: Object, preset: Preset) -> bool:
        return bool(self._choices(item, preset))

    def apply(self, rng: random.Random, item: Object, preset: Preset) -> tuple[Object, Object]:
        return item, dataclasses.replace(item, material=rng.choice(self._choices(item, preset)))

    def word(self, before: Object, after: Object) -> str:
        return after.material

    @staticmethod
    def _choices(item: Object, preset: Preset) -> list[str]:
        """Glass shows no texture, so a textured object would change in two ways."""
        textured = item.texture != PLAIN
        return [
            name for name in preset.materials if name != item.material and not (textured and name == "glass")
        ]


@register
class Shape(Became):
    name = "shape"

    def apply(self, rng: random.Random, item: Object, preset: Preset) -> tuple[Object, Object]:
        return item, dataclasses.replace(item, shape=other(rng, preset.shapes, item.shape))

    def word(self, before: Object, after: Object) -> str:
        return with_article(shape(after.shape).noun)


@register
class Size(Became):
    name = "size"

    def apply(self, rng: random.Random, item: Object, preset: Preset) -> tuple[Object, Object]:
        size = other(rng, preset.sizes, item.size)
        return item, dataclasses.replace(item, size=size, radius=preset.sizes[size])

    def word(self, before: Object, after: Object) -> str:
        return "larger" if after.radius > before.radius else "smaller"


@register
class Texture(Became):
    """From one texture to another; an object of one colour stays one."""

    name = "texture"

    def suits(self, item: Object, preset: Preset) -> bool:
        return item.texture != PLAIN and len(preset.textures) > 1

    def apply(self, rng: random.Random, item: Object, preset: Preset) -> tuple[Object, Object]:
        return item, dataclasses.replace(item, texture=other(rng, preset.textures, item.texture))

    def word(self, before: Object, after: Object) -> str:
        return texture_word(after.texture)


def with_article(noun: str) -> str:
    """ "a cube", "an arch", "an L-shaped block"."""
    return f"{'an' if noun[0].lower() in 'aeio' or noun.startswith('L-') else 'a'} {noun}"
