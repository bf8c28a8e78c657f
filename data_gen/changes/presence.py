"""Whether an object is there: add, remove."""

from __future__ import annotations

import random

from data_gen.changes.registry import Kind, Object, Preset, Scene, register


@register
class Add(Kind):
    name = "add"

    def apply(self, rng: random.Random, item: Object, preset: Preset) -> tuple[None, Object]:
        return None, item

    def sentence(self, subject: str, before: Object | None, after: Object | None, scene: Scene) -> str:
        return f"{subject} was added"


@register
class Remove(Kind):
    name = "remove"

    def apply(self, rng: random.Random, item: Object, preset: Preset) -> tuple[Object, None]:
        return item, None

    def sentence(self, subject: str, before: Object | None, after: Object | None, scene: Scene) -> str:
        return f"{subject} was removed"
