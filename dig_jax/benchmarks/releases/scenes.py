"""Questions about rendered scenes, from the objects that `dig_pairs` records list: is there one, and where.

"Is there a red cube in the image?", as POPE asks of photographs: of every image as many questions that are
rightly answered yes as no. What is asked for and not there has, where it can, the color of one object of the
image and the shape of another, which POPE calls adversarial; else it is an object of another image. An object
that the image does not show, because another hides it, is asked for in neither way.

Phrases are those of the task referring that are about one object of one image.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from dig_jax.benchmarks.releases import files
from dig_jax.benchmarks.releases.own_pairs import RecordPicture
from dig_jax.benchmarks.row import Row
from dig_jax.data import images
from dig_jax.data.example import Shape
from dig_jax.data.records import Records, open_records
from dig_jax.tasks.referring.records import RecordSource

MOST = 2  # questions of either answer per image


@dataclasses.dataclass(frozen=True, order=True)
class Kind:
    """What objects are asked for by.

    Attributes:
      color: "" for one without.
      noun: its shape.
    """

    color: str
    noun: str

    def __str__(self) -> str:
        """With its article: "a red cube"."""
        words = " ".join(word for word in (self.color, self.noun) if word)
        return f"{'an' if words[:1] in tuple('aeiou') else 'a'} {words}"


@dataclasses.dataclass(frozen=True)
class Scene:
    """The objects of one image.

    Attributes:
      shown: kinds of which the image shows one.
      there: all kinds, those of hidden objects too.
    """

    shown: frozenset[Kind]
    there: frozenset[Kind]

    @classmethod
    def of(cls, objects: Mapping[str, Sequence[Any]]) -> Scene:
        """The scene of a record's `objects_a` or `objects_b`."""
        columns = (objects[key] for key in ("color", "shape", "bbox"))
        found = [
            (Kind(color.decode(), shape.decode().replace("_", " ")), bool(np.any(box)))
            for color, shape, box in zip(*columns, strict=True)
        ]
        return cls(frozenset(kind for kind, shown in found if shown), frozenset(kind for kind, _ in found))


def questions(
    scene: Scene, elsewhere: Sequence[Kind], rng: np.random.Generator
) -> list[tuple[Kind, str, str]]:
    """What is asked about an image.

    Args:
      scene: of the image.
      elsewhere: kinds of objects of all images, sorted.
      rng: chooses among what could be asked.

    Returns:
      kind, "Yes" or "No", and why it was chosen: "present", "adversarial" or "elsewhere"; as many of either
      answer.
    """
    mixed = {Kind(one.color, other.noun) for one in scene.shown for other in scene.shown} - scene.there
    others = [kind for kind in elsewhere if kind not in scene.there and kind not in mixed]
    count = min(MOST, len(scene.shown), len(mixed) + len(others))
    yes = _some(sorted(scene.shown), count, rng)
    near = _some(sorted(mixed), min(count, len(mixed)), rng)
    far = _some(others, count - len(near), rng)
    return [
        *((kind, "Yes", "present") for kind in yes),
        *((kind, "No", "adversarial") for kind in near),
        *((kind, "No", "elsewhere") for kind in far),
    ]


def _some(kinds: Sequence[Kind], count: int, rng: np.random.Generator) -> list[Kind]:
    return [kinds[i] for i in rng.permutation(len(kinds))[:count]]


def object_rows(root: epath.Path, split: str) -> list[Row]:
    """Questions about the objects of every image of a split.

    Raises:
      FileNotFoundError: there is no dataset.
      ValueError: its records list no objects, or one cannot be read; names it.
    """
    records = _open(root, split)
    scenes = [
        (number, id, side, Scene.of(objects))
        for number, id, sides in _objects(records)
        for side, objects in zip("ab", sides, strict=True)
    ]
    elsewhere = sorted({kind for *_, scene in scenes for kind in scene.shown})
    return [
        Row(
            index=f"{id}/{side}{place}",
            images=(RecordPicture(records, number, f"image_{side}", id),),
            question=f"Is there {kind} in the image?",
            answer=answer,
            category=why,
            splits=(split,),
        )
        for number, id, side, scene in scenes
        for place, (kind, answer, why) in enumerate(
            questions(scene, elsewhere, np.random.default_rng([number, "ab".index(side)]))
        )
    ]


def phrase_rows(root: epath.Path, split: str) -> list[Row]:
    """Phrases for single objects of one image each. Raises as `object_rows`."""
    records = _open(root, split)
    source = RecordSource(records, lambda phrase, sizes: Shape((), sizes), "referring")
    for _, error in source.unusable:
        raise error
    rows, sizes = [], {}
    for asked in source.asked:
        if len(asked.images) > 1 or not len(asked.target.boxes):
            continue
        id = asked.id.partition("/")[0]
        picture = RecordPicture(records, asked.record, asked.images[0], id)
        if picture.key not in sizes:
            sizes[picture.key] = images.image_size(picture.read(), picture.name)
        x0, y0, x1, y1 = asked.target.boxes[0].tolist()
        rows.append(
            Row(
                index=asked.id,
                images=(picture,),
                question=asked.target.phrase,
                boxes=((x0, y0, x1, y1),),
                size=sizes[picture.key],
                splits=(split,),
            )
        )
    return rows


def _open(root: epath.Path, split: str) -> Records:
    folder = files.find(root, "folder own_pairs, a dig_pairs dataset,", "own_pairs", "own_pairs/.")
    records = open_records(folder, split)
    if not records.has("id", "objects_a", "objects_b"):
        raise ValueError(f"{folder}: its records list no objects, as those of rendered pairs do")
    return records


def _objects(records: Records) -> list[tuple[int, str, tuple[Mapping[str, Any], Mapping[str, Any]]]]:
    """Number, id and the objects of both images of every record."""
    found = []
    for number in range(len(records)):
        try:
            read = records.read(number, ("id", "objects_a", "objects_b"))
            found.append((number, read["id"].decode(), (read["objects_a"], read["objects_b"])))
        except Exception as error:  # damaged bytes can make any of the readers raise anything
            raise ValueError(f"{records.name}, pair {number}: {error}") from error
    return found
