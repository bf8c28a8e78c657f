"""A picture of a pair as phrases see it: its objects with their attributes, places and visible boxes."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from data_gen.alignment.rules import Rules
from data_gen.records.dataset import NoDataset
from data_gen.records.record import to_pixels
from data_gen.scenes.geometry import camera_axes, unit_outline
from data_gen.scenes.scene import Camera, asset_word, texture_word
from data_gen.scenes.schema import PLAIN
from data_gen.scenes.shapes import SHAPES

PixelBox = tuple[int, int, int, int]

ATTRIBUTES = ("shape", "color", "size", "material", "texture")  # in the order that phrases prefer them
OF_SURFACE = ("shape", "color", "material", "texture")  # what a crop shows: zooming hides the size


@dataclasses.dataclass(frozen=True)
class Thing:
    """One object that the picture shows some of.

    Attributes:
      id: in its scene.
      shape: what sentences call it; of a user's mesh the words of its file.
      color, size, material: as words.
      texture: its adjective, "plain" without one.
      box: around its visible pixels, half-open.
      pixels: that are visible.
      seen: visible share of its silhouette.
      depth: of the point where it touches the ground, along the view axis, in metres.
      radius: in metres.
      extent: geometric mean of its three sides, in metres.
      place: centre in the scene, in metres.
    """

    id: int
    shape: str
    color: str
    size: str
    material: str
    texture: str
    box: PixelBox
    pixels: int
    seen: float
    depth: float
    radius: float
    extent: float
    place: tuple[float, float, float]

    @property
    def surface(self) -> tuple[str, ...]:
        """What tells its crop from another's."""
        return tuple(getattr(self, name) for name in OF_SURFACE)

    @property
    def area(self) -> int:
        """Of its box, in pixels."""
        x0, y0, x1, y1 = self.box
        return (x1 - x0) * (y1 - y0)


@dataclasses.dataclass(frozen=True)
class View:
    """One picture.

    Attributes:
      id: unique and stable, of the pair and "a" or "b".
      width, height: in pixels.
      things: all that show at least one pixel, in the order of the scene.
      rules: what is clear in it.
    """

    id: str
    width: int
    height: int
    things: tuple[Thing, ...]
    rules: Rules

    @property
    def side(self) -> int:
        """Of the square that the picture is centred in, in pixels."""
        return max(self.width, self.height)

    @functools.cached_property
    def by_id(self) -> dict[int, Thing]:
        return {thing.id: thing for thing in self.things}

    def box_text(self, box: Sequence[float]) -> str:
        """Pixels -> "[0.402,0.610,0.481,0.689]", shares of the square that the picture is centred in."""
        left, top = (self.side - self.width) // 2, (self.side - self.height) // 2
        shares = ((value + (top if axis % 2 else left)) / self.side for axis, value in enumerate(box))
        return "[" + ",".join(f"{min(1.0, max(0.0, share)):.3f}" for share in shares) + "]"

    def centre(self, thing: Thing) -> tuple[float, float]:
        """Of the visible box, in shares of the square."""
        x0, y0, x1, y1 = thing.box
        return (x0 + x1) / 2 / self.side, (y0 + y1) / 2 / self.side

    def model_pixels(self, length: float) -> float:
        """Pixels of the picture -> pixels as the model sees them."""
        return length * self.rules.model_side / self.side

    def well_seen(self, thing: Thing) -> bool:
        """Whether its attributes can be told from the picture."""
        pixels = thing.pixels * (self.rules.model_side / self.side) ** 2
        return thing.seen >= self.rules.min_seen and pixels >= self.rules.min_pixels

    @functools.cached_property
    def eligible(self) -> tuple[Thing, ...]:
        """Those that can be asked for: well seen, with a box neither tiny nor most of the picture."""
        low, high = (share * self.width * self.height for share in self.rules.crop_area)

        def short(thing: Thing) -> float:
            x0, y0, x1, y1 = thing.box
            return self.model_pixels(min(x1 - x0, y1 - y0))

        return tuple(
            thing
            for thing in self.things
            if self.well_seen(thing) and low <= thing.area <= high and short(thing) >= self.rules.crop_side
        )

    def decided(self, thing: Thing) -> bool:
        """Whether a crop of it can only be of it: no other object looks the same, whatever its size."""
        return sum(other.surface == thing.surface for other in self.things) == 1


def view_of(record: Mapping[str, Any], which: str, rules: Rules) -> View:
    """Picture "a" or "b" of a `dig_pairs` record of plain values.

    Raises:
      NoDataset: the record has no scene, as records of imported pictures do not.
    """
    try:
        scene, objects = json.loads(record[f"scene_{which}"]), record[f"objects_{which}"]
        camera = Camera(**{key: _tuple(value) for key, value in scene["camera"].items()})
        size = scene["width"], scene["height"]
        columns = zip(*(objects[key] for key in ("id", "bbox", "visible_pixels", "occlusion")), strict=True)
        shown = {int(id): (box, int(pixels), float(hidden)) for id, box, pixels, hidden in columns}
        things = tuple(
            _thing(item, camera, *shown[item["id"]], size)
            for item in scene["objects"]
            if shown[item["id"]][1] > 0
        )
    except (KeyError, TypeError, ValueError) as error:
        raise NoDataset(
            f"{record.get('id')}: no scene with visible boxes in it ({error!r}); only pairs that"
            " `python -m data_gen` rendered have one"
        ) from error
    return View(f"{record['id']}/{which}", *size, things, rules)


def _thing(
    item: Mapping[str, Any],
    camera: Camera,
    box: Sequence[float],
    pixels: int,
    hidden: float,
    size: tuple[int, int],
) -> Thing:
    x, y, z = item["position"]
    depth = float(camera_axes(camera)[2] @ (np.array([x, y, 0.0]) - np.asarray(camera.location)))
    known, radius = item["shape"] in SHAPES, float(item["radius"])
    sides = np.ptp(unit_outline(item["shape"]), axis=0) if known else np.full(3, 2.0)
    return Thing(
        id=item["id"],
        shape=SHAPES[item["shape"]].noun if known else asset_word(item["shape"]),
        color=item["color"],
        size=item["size"],
        material=item["material"],
        texture="plain" if item["texture"] == PLAIN else texture_word(item["texture"]),
        box=to_pixels(box, *size),
        pixels=pixels,
        seen=round(1.0 - hidden, 6),  # so that it is the same after JSON and back
        depth=depth,
        radius=radius,
        extent=radius * float(np.prod(sides)) ** (1 / 3),
        place=(float(x), float(y), float(z)),
    )


def to_json_values(view: View) -> dict[str, Any]:
    """The view as JSON values, without its rules: they are those of the whole dataset."""
    return {
        "id": view.id,
        "width": view.width,
        "height": view.height,
        "things": [dataclasses.asdict(thing) for thing in view.things],
    }


def from_json_values(values: Mapping[str, Any], rules: Rules) -> View:
    """The view written by `to_json_values`."""
    things = tuple(
        Thing(**{key: _tuple(value) for key, value in thing.items()}) for thing in values["things"]
    )
    return View(values["id"], values["width"], values["height"], things, rules)


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
