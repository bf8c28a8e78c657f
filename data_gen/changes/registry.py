"""What a kind of difference is, and the table of all of them."""

from __future__ import annotations

import abc
import dataclasses
import importlib.util
import random
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar

from data_gen.scenes.presets import Preset
from data_gen.scenes.scene import Object, Scene

UNCHANGED = "unchanged"


@dataclasses.dataclass(frozen=True)
class Change:
    """One object of a pair: as it is in scene A, as it is in scene B, and a sentence about it."""

    kind: str
    before: Object | None
    after: Object | None
    description: str = ""

    @property
    def versions(self) -> tuple[Object, ...]:
        """The object as it is wherever it exists: one or two entries."""
        return tuple(item for item in (self.before, self.after) if item is not None)

    @property
    def object_id(self) -> int:
        return self.versions[0].id


def unchanged(item: Object) -> Change:
    """The object of both scenes that nothing happens to."""
    return Change(UNCHANGED, item, item)


class Kind(abc.ABC):
    """A kind of difference; subclasses have a `name` and say what happens to an object."""

    name: ClassVar[str]

    def suits(self, item: Object, preset: Preset) -> bool:
        """Whether this can happen to the object and would be seen."""
        return True

    @abc.abstractmethod
    def apply(self, rng: random.Random, item: Object, preset: Preset) -> tuple[Object | None, Object | None]:
        """The object before and after, None meaning absent.

        It runs before objects have places, so that the layout can make room for both versions: where the
        positions of the two differ, that difference is how far the object moves.
        """

    @abc.abstractmethod
    def sentence(self, subject: str, before: Object | None, after: Object | None, scene: Scene) -> str:
        """What happened, in English.

        `subject` is what to call the object in `scene`, which is A, or B for an object that A lacks: "the
        red cube", or "a red cube" for one that is new.
        """


CHANGES: dict[str, Kind] = {}


def register(kind: type[Kind]) -> type[Kind]:
    """Class decorator that adds a kind. Raises ValueError when its name is taken."""
    if kind.name in CHANGES or kind.name == UNCHANGED:
        raise ValueError(f"there is a kind of change called {kind.name!r} already")
    CHANGES[kind.name] = kind()
    return kind


def load_file(path: Path) -> list[str]:
    """Runs a Python file that registers kinds and returns their names. Raises ValueError, naming the file."""
    known = set(CHANGES)
    spec = importlib.util.spec_from_file_location(f"data_gen_kinds_{path.stem}", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise ValueError(f"{path}: no such Python file")
    try:
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
    except Exception as error:
        raise ValueError(f"{path}: {type(error).__name__}: {error}") from error
    if not (added := [name for name in CHANGES if name not in known]):
        raise ValueError(f"{path} registers no kind of change; see docs/changes.md")
    return added


def other(rng: random.Random, choices: Iterable[str], current: str) -> str:
    """A random choice that is not `current`."""
    return rng.choice([choice for choice in choices if choice != current])
