"""Named recipes: what scenes look like, how many differences a pair has, and when a pair is good enough."""

from __future__ import annotations

import dataclasses
import math

from data_gen.scenes.scene import Color, Ground
from data_gen.scenes.schema import ENVIRONMENTS, TEXTURES
from data_gen.scenes.shapes import SHAPES

# CLEVR's palette (Johnson et al. 2017, `properties.json`), sRGB, and a stronger one for small pictures.
CLEVR_COLORS: dict[str, Color] = {
    "gray": (87, 87, 87),
    "red": (173, 35, 35),
    "blue": (42, 75, 215),
    "green": (29, 105, 20),
    "brown": (129, 74, 25),
    "purple": (129, 38, 192),
    "cyan": (41, 208, 208),
    "yellow": (255, 238, 51),
}
STRONG_COLORS: dict[str, Color] = {
    "red": (215, 25, 28),
    "blue": (30, 60, 225),
    "green": (20, 140, 35),
    "yellow": (250, 215, 20),
    "purple": (140, 40, 190),
    "cyan": (40, 205, 215),
    "orange": (250, 120, 10),
}
RICH_COLORS = STRONG_COLORS | {
    "pink": (240, 110, 170),
    "brown": (115, 65, 25),
    "white": (238, 238, 234),
    "black": (26, 26, 28),
}
RICH_GROUNDS = (
    Ground((178, 178, 180)),
    Ground((206, 196, 178)),
    Ground((100, 108, 116)),
    Ground((150, 168, 150)),
    Ground((172, 128, 86), "wood", (144, 102, 64), 1.4),
    Ground((198, 194, 188), "checker", (168, 162, 156), 2.6),
    Ground((172, 136, 120), "brick", (192, 172, 160), 2.6),
    Ground((156, 152, 144), "noise", (136, 132, 124), 1.2),
    Ground((206, 204, 200), "marble", (172, 170, 168), 4.0),
    Ground((190, 196, 202), "grid", (158, 166, 174), 2.2),
    Ground((204, 184, 148), "waves", (186, 164, 128), 1.2),
)

MAX_DIFFERENCES = 4  # as in the paper
MAX_CAMERA_JITTER = 0.25  # metres; more, and the union of a box over both pictures says little
MAX_LIGHT_JITTER = 2.0  # metres


@dataclasses.dataclass(frozen=True)
class Acceptance:
    """When a pair is kept. Pixels are counted in masks; colour distances are CIELAB delta E (CIE 1976).

    Attributes:
      min_visible: share of the picture every object must show.
      min_visible_fraction: share of its own silhouette every object must show.
      max_occlusion: share of its silhouette a changed object may hide, where it shows.
      changed_delta_e: colour distance from which a pixel counts as changed.
      min_changed_fraction: share of a changed object's pixels that must be changed.
      min_changed: the same, as a share of the picture.
      min_changed_pixels: the same, as a number.
      min_delta_e, max_delta_e: mean colour distance over a changed object's pixels; a low maximum makes a
        set of hard pairs.
      max_box_iou: boxes of two differences must overlap by less.
      max_outside: share of the picture that may be changed outside all boxes, by shadows and reflections.
      max_outside_ratio: size of the largest such patch, relative to the smallest difference's changed pixels.
    """

    min_visible: float = 0.0012
    min_visible_fraction: float = 0.4
    max_occlusion: float = 1.0
    changed_delta_e: float = 10.0
    min_changed_fraction: float = 0.15
    min_changed: float = 0.0003  # 64 pixels of 448 x 448
    min_changed_pixels: int = 0
    min_delta_e: float = 8.0
    max_delta_e: float = 1000.0
    max_box_iou: float = 0.3
    max_outside: float = 0.01
    max_outside_ratio: float = 0.5


@dataclasses.dataclass(frozen=True)
class Preset:
    """The ranges a pair is drawn from; lengths in metres, angles in degrees, ranges (lowest, highest).

    Attributes:
      version: raised with every change after which a seed gives other pairs of this preset.
      samples: Cycles samples per pixel.
      objects: number of objects in a pair, those of only one scene included; more when differences need them.
      weights: weights[m] is the relative share of pairs with m differences; 0 differences are a pair that
        shows the same scene twice.
      colors: name -> sRGB.
      sizes: name -> radius.
      camera_distance, camera_elevation, camera_azimuth: where the camera stands around the origin.
      lens: focal length in millimetres on a 36 mm wide sensor.
      reach: how far before and behind the origin, as the camera sees it, objects may stand.
      kinds: the changes that occur, each equally often.
      textures, plain: the textures, and the share of objects that have none.
      frame_margin: share of the picture's width that stays clear at its border.
      max_overlap: share of an object's box that another object's box may cover.
      gap: free space between objects.
      lighting: kinds of it (see scene.Lighting), each equally often; `environments` are the pictures of hdri.
      light_distance, light_irradiance, light_angle: simple lighting's lamp: distance from the origin, what it
        gives the origin in W/m2, and its apparent diameter; larger is softer.
      ambient, horizon: see scene.Lighting.
      denoise: see scene.Scene.
      balanced: deal kinds, sizes and regions of the picture to the differences like cards, instead of
        drawing kinds alone at random.
      unique_names: reject scenes with two objects of one name instead of telling them apart by position.
      camera_jitter, light_jitter: distractors that are no differences: how far B's camera and lamps may move
        along each axis. Surroundings and sun turn by up to 10 degrees per metre of light_jitter.
    """

    name: str
    version: int
    width: int
    height: int
    samples: int
    objects: tuple[int, int]
    weights: tuple[float, ...]
    colors: dict[str, Color]
    sizes: dict[str, float]
    camera_distance: tuple[float, float]
    camera_elevation: tuple[float, float]
    camera_azimuth: tuple[float, float]
    lens: tuple[float, float]
    reach: float
    accept: Acceptance = Acceptance()
    shapes: tuple[str, ...] = ("cube", "sphere", "cylinder", "cone")
    materials: tuple[str, ...] = ("rubber", "metal")
    textures: tuple[str, ...] = ()
    plain: float = 1.0
    kinds: tuple[str, ...] = ("color", "material", "shape", "size", "add", "remove")
    frame_margin: float = 0.02
    max_overlap: float = 0.1
    gap: float = 0.15
    lighting: tuple[str, ...] = ("studio",)
    environments: tuple[str, ...] = ENVIRONMENTS
    light_distance: float = 30.0
    light_irradiance: tuple[float, float] = (2.0, 2.4)
    light_angle: tuple[float, float] = (5.0, 9.0)
    ambient: tuple[float, float] = (0.16, 0.45)
    horizon: tuple[float, float] = (0.1, 0.7)
    grounds: tuple[Ground, ...] = (Ground((178, 178, 180)),)
    denoise: bool = True
    balanced: bool = True
    unique_names: bool = False
    camera_jitter: float = 0.0
    light_jitter: float = 0.0

    def __post_init__(self) -> None:
        """Raises ValueError for settings that contradict each other."""
        for name, limit in (("camera_jitter", MAX_CAMERA_JITTER), ("light_jitter", MAX_LIGHT_JITTER)):
            if not 0 <= getattr(self, name) <= limit:
                raise ValueError(f"{name}={getattr(self, name)}: expected 0 to {limit} metres")
        if not self.kinds:
            raise ValueError("kinds: expected at least one kind of change")
        if "texture" in self.kinds and len(self.textures) < 2:
            raise ValueError(f"preset {self.name} has no textures, so kind 'texture' cannot occur; use rich")
        if "simple" in self.lighting and ("glass" in self.materials or self.textures):
            raise ValueError(f"preset {self.name}: simple lighting shows neither glass nor textures")


# Few, large, strongly coloured objects seen from above: a small model learns them in minutes.
TINY = Preset(
    name="tiny",
    version=1,
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
    lens=(72.0, 72.0),
    reach=100.0,
    lighting=("simple",),
    denoise=False,
    balanced=False,
    unique_names=True,
    accept=Acceptance(
        min_visible=0.012,
        min_visible_fraction=0.7,
        min_changed_fraction=0.3,
        min_changed=0.0,
        min_delta_e=10.0,
        max_outside=0.04,
        max_outside_ratio=0.6,
    ),
)

# CLEVR's own camera (35 mm on a 32 mm sensor), sizes, colours, counts and three lamps, at the resolution of
# the paper.
CLEVR = Preset(
    name="clevr",
    version=2,
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
    lens=(39.4, 39.4),
    reach=3.8,
    max_overlap=0.3,
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
    lens=(48.0, 48.0),
)
STAGE2 = dataclasses.replace(STAGE1, name="stage2", weights=(0.0, 0.0, 1.0))
STAGE3 = dataclasses.replace(STAGE1, name="stage3", weights=(0.0, 0.25, 0.25, 0.25, 0.25))

# Everything there is: for models that should not learn one look.
RICH = Preset(
    name="rich",
    version=2,
    width=448,
    height=448,
    samples=16,
    objects=(5, 20),
    weights=(0.05, 0.25, 0.25, 0.25, 0.20),
    colors=RICH_COLORS,
    sizes={"small": 0.36, "medium": 0.52, "large": 0.74},
    camera_distance=(11.0, 13.0),
    camera_elevation=(24.0, 50.0),
    camera_azimuth=(-180.0, 180.0),
    lens=(44.0, 54.0),
    reach=4.2,
    shapes=tuple(SHAPES),
    materials=("rubber", "metal", "glass"),
    textures=TEXTURES,
    plain=0.5,
    kinds=("color", "material", "shape", "size", "add", "remove", "move", "rotate", "texture"),
    max_overlap=0.45,
    gap=0.06,
    lighting=("studio", "hdri", "sky"),
    grounds=RICH_GROUNDS,
    accept=Acceptance(
        min_visible=0.001,
        min_visible_fraction=0.3,
        max_occlusion=0.6,
        max_outside=0.02,
        max_outside_ratio=1.0,
    ),
)

# The same in pictures that are no squares, for models that centre them in one: as a fifth of their data, say.
RICH_WIDE = dataclasses.replace(RICH, name="rich_4x3", version=1, height=336)
RICH_TALL = dataclasses.replace(RICH, name="rich_3x4", version=1, width=336)

PRESETS = {
    preset.name: preset for preset in (TINY, CLEVR, RICH, RICH_WIDE, RICH_TALL, STAGE1, STAGE2, STAGE3)
}


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
    if not in_range or min(shares.values()) < 0 or not 0 < sum(shares.values()) < math.inf:
        raise ValueError(
            f"--differences={text}: expected counts up to {MAX_DIFFERENCES}, "
            "like 2, 0-3 (equally often) or 0:0.1,1:0.6,2:0.3 (relative shares)"
        )
    return tuple(shares.get(count, 0.0) for count in range(max(shares) + 1))


def with_identical(preset: Preset, share: float) -> Preset:
    """The preset with that share of pairs without a difference; the other shares keep their proportions.

    Raises ValueError for a share outside 0..1, or when no other pairs are there to keep.
    """
    rest = sum(preset.weights[1:])
    if not 0 <= share <= 1 or (rest == 0 and share < 1):
        raise ValueError(f"{share}: expected a share from 0 to 1 of pairs without a difference")
    others = [weight * (1 - share) / rest if rest else 0.0 for weight in preset.weights[1:]]
    return dataclasses.replace(preset, weights=(share, *others))
