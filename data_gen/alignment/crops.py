"""Cuts an object out of its picture, by one law for all: what is asked for, and every option beside it.

The window is the object's box, grown and squared with what the picture shows there; where it crosses the
border it is moved inward and never padded, as padding would tell where the object was. Then the law of
augmentation: edges, zoom, rotation, blur, lost resolution, brightness and contrast; no change of hue or
saturation, as colour is a label, and no mirror image, as left and right are. All of it is in `Cut`, so that a
crop can be cut again.

What is cut is the picture itself, or a rendering of the window alone (closeups.py).
"""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

from data_gen.alignment.things import PixelBox, Thing

# Where pixels of a crop are from: the picture itself; a rendering of the window, as the picture's camera sees
# it; one from another side of the object.
IMAGE, CLOSEUP, RERENDER = "image", "closeup", "rerender"
SOURCES = (IMAGE, CLOSEUP, RERENDER)
PATCH_MARGIN = 2  # pixels around a rendered window, for the resampling of a turned one
GROW = 0.15  # of the box, by which each side may grow
SHIFT = 0.10  # of the window's side, by which its centre may move
EDGE = 0.05  # of the window's side, by which it may be taken larger or smaller
ZOOM = (0.8, 1.25)
ANGLE = 10.0  # degrees, either way
TONE = 0.2  # of brightness and of contrast, either way
BLUR = 1.0  # largest sigma in pixels of the crop
LOSS = 0.5  # smallest share of the side that a crop is scaled down to and back


@dataclasses.dataclass(frozen=True)
class Turn:
    """Where the object of a crop was rendered from.

    Attributes:
      azimuth: degrees that the camera went around the object's vertical axis, anticlockwise from above.
      box: around what is visible of the object from there, in pixels of a picture of the same size.
    """

    azimuth: float
    box: PixelBox


@dataclasses.dataclass(frozen=True)
class Cut:
    """One crop: what it shows and how it is made.

    Attributes:
      thing: id of the object.
      box: its visible box, in pixels.
      centre, side: of the square window, in pixels.
      angle: that the window is turned by, in degrees.
      brightness, contrast: factors.
      blur: sigma in pixels of the crop.
      loss: share of its side that it is scaled down to and back.
      view: where its pixels are from, of SOURCES.
      turn: of RERENDER, whose window is of the turned picture; else None.
    """

    thing: int
    box: PixelBox
    centre: tuple[float, float]
    side: float
    angle: float
    brightness: float
    contrast: float
    blur: float
    loss: float
    view: str = IMAGE
    turn: Turn | None = None


def plan_cut(thing: Thing, width: int, height: int, rng: random.Random) -> Cut:
    """Draws a crop of a thing from the law."""
    x0, y0, x1, y1 = map(float, thing.box)
    grown = [rng.uniform(0, GROW) for _ in range(4)]
    x0, x1 = x0 - grown[0] * (x1 - x0), x1 + grown[1] * (x1 - x0)
    y0, y1 = y0 - grown[2] * (y1 - y0), y1 + grown[3] * (y1 - y0)
    side = max(x1 - x0, y1 - y0)
    centre_x = (x0 + x1) / 2 + rng.uniform(-SHIFT, SHIFT) * side
    centre_y = (y0 + y1) / 2 + rng.uniform(-SHIFT, SHIFT) * side
    side *= (1 + rng.uniform(-EDGE, EDGE)) / math.exp(rng.uniform(*map(math.log, ZOOM)))
    angle = rng.uniform(-ANGLE, ANGLE)
    turned = abs(math.cos(math.radians(angle))) + abs(math.sin(math.radians(angle)))
    side = min(side, min(width, height) / turned)  # or no place inside the picture would hold it
    reach = side * turned / 2
    values: dict[str, Any] = {
        "centre": (
            _between(centre_x, reach, width - reach),
            _between(centre_y, reach, height - reach),
        ),
        "side": side,
        "angle": angle,
        "brightness": 1 + rng.uniform(-TONE, TONE),
        "contrast": 1 + rng.uniform(-TONE, TONE),
        "blur": rng.uniform(0, BLUR),
        "loss": rng.uniform(LOSS, 1),
    }
    short: dict[str, Any] = {key: _short(value) for key, value in values.items()}
    return Cut(thing=thing.id, box=thing.box, **short)


def cut(picture: np.ndarray, plan: Cut, side: int) -> np.ndarray:
    """The crop, uint8 [side, side, 3], of a picture, uint8 [height, width, 3]."""
    fine = max(side, round(plan.side))  # sampled as finely as the picture is, then made smaller
    step, turn = plan.side / fine, math.radians(plan.angle)
    across, down = step * math.cos(turn), step * math.sin(turn)
    x, y = plan.centre
    # Pixel (column, row) of the crop lies at the centre plus its distance from the crop's centre, turned.
    affine = (
        across,
        -down,
        x - (across - down) * fine / 2,
        down,
        across,
        y - (down + across) * fine / 2,
    )
    image = Image.fromarray(picture).transform(
        (fine, fine), Image.Transform.AFFINE, affine, Image.Resampling.BICUBIC
    )
    image = image.resize((side, side), Image.Resampling.BICUBIC)
    if (lost := max(1, round(plan.loss * side))) < side:
        image = image.resize((lost, lost), Image.Resampling.BICUBIC).resize(
            (side, side), Image.Resampling.BICUBIC
        )
    image = image.filter(ImageFilter.GaussianBlur(plan.blur))
    image = ImageEnhance.Brightness(image).enhance(plan.brightness)
    return np.asarray(ImageEnhance.Contrast(image).enhance(plan.contrast))


def patch_of(plan: Cut, side: int) -> tuple[tuple[float, float, float, float], int, Cut]:
    """What is rendered so that a crop of `side` pixels can be cut of it.

    Returns:
      The square of the picture, x0, y0, x1, y1 in its pixels, which holds the window as it is turned; how
      many pixels a side it is rendered with, which is as fine as the crop; and the cut in those pixels.
    """
    turn = math.radians(plan.angle)
    pixels = math.ceil(side * (abs(math.cos(turn)) + abs(math.sin(turn)))) + 2 * PATCH_MARGIN
    reach = pixels / 2 * plan.side / side
    x, y = plan.centre
    inside = dataclasses.replace(plan, centre=(pixels / 2, pixels / 2), side=float(side))
    return (x - reach, y - reach, x + reach, y + reach), pixels, inside


def to_json_values(plan: Cut) -> dict[str, Any]:
    """The cut as JSON values: a `turn` where there is one."""
    values = dataclasses.asdict(plan)
    return values if plan.turn else {key: value for key, value in values.items() if key != "turn"}


def from_json_values(values: dict[str, Any]) -> Cut:
    """The cut whose fields are these JSON values."""
    turn = values.get("turn")
    read = {"box": tuple(values["box"]), "centre": tuple(values["centre"])}
    return Cut(
        **{**values, **read, "turn": turn and Turn(float(turn["azimuth"]), tuple(turn["box"]))},
    )


def overlap(a: Sequence[int], b: Sequence[int]) -> tuple[float, float]:
    """Intersection of two boxes, over their union and over the smaller one."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    inside = max(0, width) * max(0, height)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return inside / (sum(areas) - inside), inside / min(areas)


def _between(value: float, low: float, high: float) -> float:
    return min(max(value, low), max(low, high))


def _short(value: Any) -> Any:
    """Rounded as it is stored, so that what is stored makes the same crop."""
    if isinstance(value, tuple):
        return tuple(_short(item) for item in value)
    return round(value, 4)
