"""Named recipes: what scenes look like, how many differences a pair has, and when a pair is good enough."""

from __future__ import annotations

import dataclasses

# CLEVR's palette (Johnson et al. 2017, `properties.json`), sRGB, and a stronger one for small pictures.
CLEVR_COLORS = {
    "gray": (87, 87, 87),
    "red": (173, 35, 35),
    "blue": (42, 75, 215),
    "green": (29, 105, 20),
    "brown": (129, 74, 25),
    "purple": (129, 38, 192),
    "cyan": (41, 208, 208),
    "yellow": (255, 238, 51),
}
STRONG_COLORS = {
    "red": (215, 25, 28),
    "blue": (30, 60, 225),
    "green": (20, 140, 35),
    "yellow": (250, 215, 20),
    "purple": (140, 40, 190),
    "cyan": (40, 205, 215),
    "orange": (250, 120, 10),
}

MAX_DIFFERENCES = 4  # as in the paper


@dataclasses.dataclass(frozen=True)
class Acceptance:
    """When a pair is kept. Pixels are counted in masks; colour distances are CIELAB delta E (CIE 1976).

    Attributes:
      min_visible: share of the picture every object must show.
      min_visible_fraction: share of its own silhouette every object must show.
      changed_delta_e: colour distance from which a pixel counts as changed.
      min_changed_fraction: share of a changed object's pixels that must be changed.
      min_mean_delta_e: mean colour distance over a changed object's pixels.
      max_box_iou: boxes of two differences must overlap by less.
      max_outside: share of the picture that may be changed outside all boxes, by shadows and reflections.
      max_outside_ratio: size of the largest such patch, relative to the smallest difference's changed pixels.
    """

    min_visible: float = 0.0012
    min_visible_fraction: float = 0.4
    changed_delta_e: float = 10.0
    min_changed_fraction: float = 0.3
    min_mean_delta_e: float = 10.0
    max_box_iou: float = 0.3
    max_outside: float = 0.01
    max_outside_ratio: float = 0.5


@dataclasses.dataclass(frozen=True)
class Preset:
    """The ranges a pair is drawn from; lengths in metres, angles in degrees, ranges (lowest, highest).

    Attributes:
      samples: Cycles samples per pixel.
      objects: number of objects in a pair, those of only one scene included; more when differences need them.
      weights: weights[m] is the relative share of pairs with m differences.
      colors: name -> sRGB.
      sizes: name -> radius.
      kinds: the changes that occur, each equally often.
      camera_distance, camera_elevation, camera_azimuth: where the camera stands around the origin.
      lens: focal length in millimetres on a 36 mm wide sensor.
      reach: largest distance of an object from the origin.
      frame_margin: share of the picture's width that stays clear at its border.
      max_overlap: share of an object's box that another object's box may cover.
      gap: free space between objects.
      light_distance: from the origin; a near light falls off over the scene.
      light_irradiance: what the light gives the origin, in W/m2.
      light_angle: apparent diameter of the light seen from the origin; larger is softer.
      ambient, sky, ground: see scene.Scene.
    """

    name: str
    width: int
    height: int
    samples: int
    objects: tuple[int, int]
    weights: tuple[float, ...]
    colors: dict[str, tuple[int, int, int]]
    sizes: dict[str, float]
    camera_distance: tuple[float, float]
    camera_elevation: tuple[float, float]
    camera_azimuth: tuple[float, float]
    lens: float
    reach: float
    light_distance: float
    light_irradiance: tuple[float, float]
    accept: Acceptance
    shapes: tuple[str, ...] = ("cube", "sphere", "cylinder", "cone")
    materials: tuple[str, ...] = ("rubber", "metal")
    kinds: tuple[str, ...] = ("color", "material", "shape", "size", "add", "remove")
    frame_margin: float = 0.02
    max_overlap: float = 0.1
    gap: float = 0.15
    light_angle: tuple[float, float] = (5.0, 9.0)
    ambient: tuple[float, float] = (0.16, 0.45)
    sky: tuple[float, float] = (0.1, 0.7)
    ground: tuple[int, int, int] = (178, 178, 180)


# Few, large, strongly coloured objects seen from above: a small model learns them in minutes.
TINY = Preset(
    name="tiny",
    width=128,
    height=128,
    samples=8,
    objects=(3, 5),
    weights=(0.10, 0.45, 0.30, 0.15),
    colors=STRONG_COLORS,
    sizes={"small": 0.56, "large": 0.88},
    camera_distance=(11.0, 12.0),
    camera_elevation=(48.0, 56.0),
    camera_azimuth=(-8.0, 8.0),
    lens=72.0,
    reach=100.0,
    light_distance=30.0,
    light_irradiance=(2.0, 2.4),
    accept=Acceptance(min_visible=0.012, min_visible_fraction=0.7, max_outside=0.04, max_outside_ratio=0.6),
)

# CLEVR's own camera (35 mm on a 32 mm sensor), sizes, colours and counts, at the resolution of the paper.
CLEVR = Preset(
    name="clevr",
    width=480,
    height=320,
    samples=16,
    objects=(3, 10),
    weights=(0.0, 0.25, 0.25, 0.25, 0.25),
    colors=CLEVR_COLORS,
    sizes={"small": 0.35, "large": 0.70},
    camera_distance=(10.8, 11.8),
    camera_elevation=(27.0, 31.0),
    camera_azimuth=(-20.0, 20.0),
    lens=39.4,
    reach=4.2,
    light_distance=9.5,
    light_irradiance=(1.7, 2.0),
    max_overlap=0.3,
    accept=Acceptance(),
)

# The curriculum: one difference, two, then one to four. Identical pairs, whose answer is an empty list, are a
# choice of the command line: --differences=0:0.1,1:0.225,2:0.225,3:0.225,4:0.225 makes a tenth of them.
STAGE1 = dataclasses.replace(
    CLEVR,
    name="stage1",
    width=448,
    height=448,
    objects=(4, 9),
    weights=(0.0, 1.0),
    camera_elevation=(33.0, 40.0),
    lens=48.0,
)
STAGE2 = dataclasses.replace(STAGE1, name="stage2", weights=(0.0, 0.0, 1.0))
STAGE3 = dataclasses.replace(STAGE1, name="stage3", weights=(0.0, 0.25, 0.25, 0.25, 0.25))

PRESETS = {preset.name: preset for preset in (TINY, CLEVR, STAGE1, STAGE2, STAGE3)}


def parse_differences(text: str) -> tuple[float, ...]:
    """Weights of 0, 1, 2, ... differences from "2", "0-3" (equal shares) or "0:0.1,1:0.9"."""
    try:
        if ":" in text:
            shares = {
                int(count): float(share) for count, share in (item.split(":") for item in text.split(","))
            }
        else:
            first, _, last = text.partition("-")
            shares = dict.fromkeys(range(int(first), int(last or first) + 1), 1.0)
    except ValueError:
        shares = {}
    in_range = shares and min(shares) >= 0 and max(shares) <= MAX_DIFFERENCES
    if not in_range or min(shares.values()) < 0 or sum(shares.values()) <= 0:
        raise ValueError(
            f"--differences={text}: expected counts up to {MAX_DIFFERENCES}, "
            "like 2, 0-3 (equally often) or 0:0.1,1:0.6,2:0.3 (relative shares)"
        )
    return tuple(shares.get(count, 0.0) for count in range(max(shares) + 1))
