"""What a scene is: plain data that says everything the renderer needs, to and from JSON.

Units are Blender's: metres on the ground plane z = 0, degrees for angles, sRGB 0..255 for colours.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any

# Half the height of each shape of radius 1, which is how far above the ground its centre rests.
# worker.py builds the same solids and geometry.py projects them; a test compares the two.
HALF_HEIGHT = {"cube": 0.5**0.5, "sphere": 1.0, "cylinder": 0.85, "cone": 1.1}

Vector = tuple[float, float, float]


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
    rgb: tuple[int, int, int]
    size: str
    radius: float
    position: Vector = (0.0, 0.0, 0.0)
    rotation: float = 0.0

    @property
    def name(self) -> str:
        return f"{self.size} {self.color} {self.material} {self.shape}"

    def at(self, x: float, y: float) -> Object:
        """The same object resting on the ground at (x, y)."""
        return dataclasses.replace(self, position=(x, y, self.radius * HALF_HEIGHT[self.shape]))


@dataclasses.dataclass(frozen=True)
class Camera:
    """A perspective camera with a 36 mm wide sensor that looks at `target`, z up; `lens` in millimetres."""

    location: Vector
    target: Vector
    lens: float


@dataclasses.dataclass(frozen=True)
class Light:
    """A white ball of light that is not seen itself; `irradiance` is what it gives the origin, in W/m2."""

    position: Vector
    irradiance: float
    radius: float


@dataclasses.dataclass(frozen=True)
class Scene:
    """Everything that decides a picture.

    `ambient` is the share of hemisphere light a matt surface gets facing down and facing up, `sky` the grey
    that metal reflects at the horizon and overhead. `seed` seeds the sampling noise: both scenes of a pair
    use the same one, so that pixels no change reaches are equal to the last bit.
    """

    width: int
    height: int
    samples: int
    seed: int
    camera: Camera
    lights: tuple[Light, ...]
    ambient: tuple[float, float]
    sky: tuple[float, float]
    ground: tuple[int, int, int]
    objects: tuple[Object, ...]


def to_dict(scene: Scene) -> dict[str, Any]:
    """The scene as plain dicts, lists and numbers, ready for `json.dumps`."""
    return dataclasses.asdict(scene)


def to_json(scene: Scene) -> str:
    """One line of JSON that `from_json` reads back to an equal scene."""
    return json.dumps(to_dict(scene), separators=(",", ":"))


def from_json(text: str) -> Scene:
    """The scene written by `to_json`. Raises TypeError for a missing or unknown field."""
    data = json.loads(text)
    return Scene(
        **{
            **data,
            "camera": Camera(**_tuples(data["camera"])),
            "lights": tuple(Light(**_tuples(light)) for light in data["lights"]),
            "objects": tuple(Object(**_tuples(item)) for item in data["objects"]),
            "ambient": tuple(data["ambient"]),
            "sky": tuple(data["sky"]),
            "ground": tuple(data["ground"]),
        }
    )


def _tuples(fields: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()}
