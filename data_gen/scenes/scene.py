"""What a scene is: plain data that says everything the renderer needs, to and from JSON.

Units are Blender's: metres on the ground plane z = 0, degrees for angles, sRGB 0..255 for colours.
docs/scene.md describes the JSON; schema.py has its version and checks it.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from data_gen.scenes.schema import PLAIN, VERSION, check_scene, load_json
from data_gen.scenes.shapes import shape

Vector = tuple[float, float, float]
Color = tuple[int, int, int]


@dataclasses.dataclass(frozen=True)
class Object:
    """One solid on the ground.

    `id` is 1..254 and is the object's value in a mask; it is the same in both scenes of a pair. `color` and
    `size` are the words for `rgb` and `radius`. `rotation` turns the object about its vertical axis.
    """

    id: int
    shape: str
    material: str
    color: str
    rgb: Color
    size: str
    radius: float
    position: Vector = (0.0, 0.0, 0.0)
    rotation: float = 0.0
    texture: str = PLAIN

    @property
    def name(self) -> str:
        """All that can be said of it: "small red striped rubber cube"."""
        texture = "" if self.texture == PLAIN else f"{texture_word(self.texture)} "
        return f"{self.size} {self.color} {texture}{self.material} {shape(self.shape).noun}"

    def at(self, x: float, y: float) -> Object:
        """The same object resting on the ground at (x, y)."""
        return dataclasses.replace(self, position=(x, y, self.radius * shape(self.shape).half_height))


@dataclasses.dataclass(frozen=True)
class Camera:
    """A perspective camera with a 36 mm wide sensor that looks at `target`, z up; `lens` in millimetres."""

    location: Vector
    target: Vector
    lens: float


@dataclasses.dataclass(frozen=True)
class Lamp:
    """A white lamp that is not seen itself; `irradiance` is what it gives the origin, in W/m2.

    A ball of `radius` in simple lighting, a disc of it that faces the origin in the others.
    """

    position: Vector
    irradiance: float
    radius: float


@dataclasses.dataclass(frozen=True)
class Lighting:
    """Where the light comes from.

    `kind` is one of
      simple: lamps, and hemisphere light as a function of the surface normal instead of bounced light. Free
        of noise, so a few samples do and no denoiser is needed; matt and metal surfaces of one colour only.
      studio: lamps in a dim room; `strength` is the room's brightness.
      hdri: the surroundings are the picture `image`, turned by `rotation`, times `strength`.
      sky: a sun at `elevation`, in direction `rotation`, with its sky, times `strength`.

    For simple lighting, `ambient` is the share of hemisphere light a matt surface gets facing down and facing
    up, `horizon` the grey that metal reflects at the horizon and overhead.
    """

    kind: str
    lamps: tuple[Lamp, ...] = ()
    ambient: tuple[float, float] = (0.16, 0.45)
    horizon: tuple[float, float] = (0.1, 0.7)
    image: str = ""
    rotation: float = 0.0
    elevation: float = 45.0
    strength: float = 1.0


@dataclasses.dataclass(frozen=True)
class Ground:
    """The plane the objects stand on: a texture in two colours; `scale` is the size of a repeat in metres."""

    rgb: Color = (178, 178, 180)
    texture: str = PLAIN
    rgb2: Color = (140, 140, 140)
    scale: float = 1.0


@dataclasses.dataclass(frozen=True)
class Scene:
    """Everything that decides a picture.

    `seed` seeds the sampling noise: both scenes of a pair use the same one, so that pixels no change reaches
    are equal to the last bit, or with `denoise` to 1/255.
    """

    width: int
    height: int
    samples: int
    seed: int
    camera: Camera
    lighting: Lighting
    objects: tuple[Object, ...]
    ground: Ground = Ground()
    denoise: bool = True
    version: int = VERSION


TEXTURE_WORDS = {
    "checker": "checkered",
    "stripes": "striped",
    "dots": "dotted",
    "brick": "bricked",
    "noise": "speckled",
    "wood": "wood-grained",
    "marble": "marbled",
    "voronoi": "cracked",
    "magic": "swirly",
    "waves": "wavy",
    "grid": "latticed",
    "halves": "two-tone",
}


def texture_word(texture: str) -> str:
    """The adjective of a texture; a user's picture is called by its file."""
    return TEXTURE_WORDS.get(texture) or asset_word(texture)


def asset_word(name: str) -> str:
    """asset:toys/Red-car_2.obj -> "red car 2"."""
    stem = name.rpartition("/")[2].rpartition(".")[0] or name
    return " ".join(stem.removeprefix("asset:").replace("-", " ").replace("_", " ").split()).lower()


def to_dict(scene: Scene) -> dict[str, Any]:
    """The scene as plain dicts, lists and numbers, ready for `json.dumps`."""
    return dataclasses.asdict(scene)


def to_json(scene: Scene) -> str:
    """One line of JSON that `from_json` reads back to an equal scene."""
    return json.dumps(to_dict(scene), separators=(",", ":"))


def object_from_dict(data: dict[str, Any]) -> Object:
    return Object(**_tuples(data))


def from_dict(data: dict[str, Any]) -> Scene:
    """The scene written by `to_dict`. Raises schema.SceneError, naming the place, for anything else."""
    check_scene(data)
    lighting = data["lighting"]
    return Scene(
        **{
            **data,
            "camera": Camera(**_tuples(data["camera"])),
            "lighting": Lighting(
                **{**_tuples(lighting), "lamps": tuple(Lamp(**_tuples(lamp)) for lamp in lighting["lamps"])}
            ),
            "ground": Ground(**_tuples(data["ground"])),
            "objects": tuple(object_from_dict(item) for item in data["objects"]),
        }
    )


def from_json(text: str) -> Scene:
    """The scene written by `to_json`. Raises schema.SceneError, naming the place, for anything else."""
    return from_dict(load_json(text))


def _tuples(fields: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()}
