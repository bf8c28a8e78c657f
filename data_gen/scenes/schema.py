"""The JSON Schema of a scene, and the check that every scene passes before Blender sees it.

`python -m data_gen.schema` prints the schema; docs/scene.schema.json holds it for other tools.
"""

from __future__ import annotations

import json
import math
import sys
from typing import Any

import jsonschema

from data_gen.scenes.shapes import SHAPES

# Version of the JSON, raised with every change after which an old scene means something else.
VERSION = 2

MATERIALS = ("rubber", "metal", "glass")
PLAIN = "plain"  # the texture of an object of one colour
TEXTURES = (
    *("checker", "stripes", "dots", "brick", "noise", "wood"),
    *("marble", "voronoi", "magic", "waves", "grid", "halves"),
)
# The CC0 pictures of surroundings that come with Blender.
ENVIRONMENTS = ("city", "courtyard", "forest", "interior", "night", "studio", "sunrise", "sunset")
LIGHTING = ("simple", "studio", "hdri", "sky")

MAX_PIXELS = 8192  # of a side
MAX_SAMPLES = 4096
MAX_OBJECTS = 64
MAX_LAMPS = 16
FAR = 1000.0  # metres; float32 depth in Blender stays exact to a tenth of a millimetre

# A file below the asset folder; no "..", no absolute path (see assets.py for what the folder may hold).
ASSET = r"^asset:(?!/)(?!.*(^|[/:])\.\.?(/|$))[A-Za-z0-9_. /-]{1,200}$"


class SceneError(ValueError):
    """A scene that is not valid; the message names the place in the JSON, the value and what was expected."""


def _number(low: float, high: float) -> dict[str, Any]:
    return {"type": "number", "minimum": low, "maximum": high}


def _whole(low: int, high: int) -> dict[str, Any]:
    return {"type": "integer", "minimum": low, "maximum": high}


def _several(item: dict[str, Any], count: int) -> dict[str, Any]:
    return {"type": "array", "items": item, "minItems": count, "maxItems": count}


def _record(**properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _one_of(*names: str, asset: bool = False) -> dict[str, Any]:
    return (
        {"anyOf": [{"enum": list(names)}, {"type": "string", "pattern": ASSET}]}
        if asset
        else {"enum": list(names)}
    )


_VECTOR = _several(_number(-FAR, FAR), 3)
_COLOR = _several(_whole(0, 255), 3)
_WORD = {"type": "string", "pattern": r"^[\w -]{1,40}$"}


def scene_schema() -> dict[str, Any]:
    """The schema as JSON values."""
    lamp = _record(position=_VECTOR, irradiance=_number(0, 1000), radius=_number(0, 100))
    item = _record(
        id=_whole(1, 254),
        shape=_one_of(*BUILT_IN_SHAPES, asset=True),
        material=_one_of(*MATERIALS),
        color=_WORD,
        rgb=_COLOR,
        size=_WORD,
        radius=_number(0.01, 100),
        position=_VECTOR,
        rotation=_number(-360, 360),
        texture=_one_of(PLAIN, *TEXTURES, asset=True),
    )
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A scene of data_gen",
        **_record(
            version={"const": VERSION},
            width=_whole(8, MAX_PIXELS),
            height=_whole(8, MAX_PIXELS),
            samples=_whole(1, MAX_SAMPLES),
            seed=_whole(0, 2**31 - 1),
            denoise={"type": "boolean"},
            camera=_record(location=_VECTOR, target=_VECTOR, lens=_number(5, 500)),
            lighting=_record(
                kind=_one_of(*LIGHTING),
                lamps={"type": "array", "items": lamp, "maxItems": MAX_LAMPS},
                ambient=_several(_number(0, 100), 2),
                horizon=_several(_number(0, 100), 2),
                image=_one_of("", *ENVIRONMENTS, asset=True),
                rotation=_number(-360, 360),
                elevation=_number(0, 90),
                strength=_number(0, 100),
            ),
            ground=_record(
                rgb=_COLOR,
                texture=_one_of(PLAIN, *TEXTURES, asset=True),
                rgb2=_COLOR,
                scale=_number(0.01, 100),
            ),
            objects={"type": "array", "items": item, "maxItems": MAX_OBJECTS},
        ),
    }


# Before a user's meshes are added to SHAPES.
BUILT_IN_SHAPES = tuple(SHAPES)
# JSON Schema counts 1.0 among the integers; Blender does not.
_VALIDATOR = jsonschema.validators.extend(
    jsonschema.Draft202012Validator,
    type_checker=jsonschema.Draft202012Validator.TYPE_CHECKER.redefine(
        "integer", lambda _, value: isinstance(value, int) and not isinstance(value, bool)
    ),
)(scene_schema())


def load_json(text: str, nan: bool = False) -> Any:
    """Parses JSON. Raises SceneError, also for what Python's reader lets pass: NaN, and a key given twice.

    `nan` lets NaN and Infinity pass, for a caller that can say where they stand.
    """

    def refuse(constant: str) -> Any:
        raise SceneError(f"{constant} is no JSON number")

    try:
        return json.loads(text, parse_constant=float if nan else refuse, object_pairs_hook=_without_repeats)
    except json.JSONDecodeError as error:
        raise SceneError(f"not JSON: {error}") from None
    except RecursionError:
        raise SceneError("nested too deep") from None
    except SceneError:
        raise
    except ValueError:  # Python reads no integer of more digits
        raise SceneError(f"a number has more than {sys.get_int_max_str_digits()} digits") from None


def _without_repeats(items: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(items)
    if len(found) < len(items):
        names = [name for name, _ in items]
        raise SceneError(f"the key {next(name for name in names if names.count(name) > 1)!r} is given twice")
    return found


def check_scene(data: Any) -> None:
    """Raises SceneError for the first thing that is wrong with a scene given as JSON values."""
    # A version that is not ours makes every other complaint beside the point.
    if isinstance(data, dict) and data.get("version", VERSION) != VERSION:
        raise SceneError(f"$.version is {shown(data['version'])}; this version of data_gen reads {VERSION}")
    error = jsonschema.exceptions.best_match(_VALIDATOR.iter_errors(data))
    if error is not None:
        raise SceneError(describe(error))
    _check_meaning(data)


def shown(value: Any) -> str:
    """A value as an error message quotes it: not all of a very long one."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."


def describe(error: jsonschema.ValidationError) -> str:
    """One line: path, complaint, and what is allowed."""
    message = error.message.replace(repr(error.instance), shown(error.instance))
    if error.validator == "pattern" and error.validator_value == ASSET:
        message = f"{shown(error.instance)} is neither a known name nor asset:FILE below the asset folder"
    elif error.validator == "enum":
        message = f"{shown(error.instance)} is not one of {', '.join(map(repr, error.validator_value))}"
    return f"{error.json_path}: {message[:300]}"


def _check_meaning(data: dict[str, Any]) -> None:
    """What a schema cannot say."""
    for path, number in _numbers(data, "$"):
        if not math.isfinite(number):  # 1e999 is read as infinity, NaN passes every comparison
            raise SceneError(f"{path}: {number} is not a finite number")
    seen: set[int] = set()
    for number, item in enumerate(data["objects"]):
        path = f"$.objects[{number}]"
        if item["id"] in seen:
            raise SceneError(f"{path}.id: {item['id']} is the id of two objects")
        seen.add(item["id"])
        if item["shape"] not in SHAPES:
            raise SceneError(
                f"{path}.shape: {item['shape']!r} is not in the asset folder; name it with --assets=DIR"
            )
        if data["lighting"]["kind"] == "simple" and (item["material"] == "glass" or item["texture"] != PLAIN):
            raise SceneError(f"{path}: simple lighting shows rubber and metal of one colour only")
    if data["lighting"]["kind"] == "simple" and data["ground"]["texture"] != PLAIN:
        raise SceneError("$.ground.texture: simple lighting shows a ground of one colour only")
    if data["lighting"]["kind"] == "hdri" and not data["lighting"]["image"]:
        raise SceneError(f"$.lighting.image: hdri needs one of {', '.join(ENVIRONMENTS)} or asset:FILE")
    camera = data["camera"]
    across = math.dist(camera["location"][:2], camera["target"][:2])
    if across < 1e-4:
        raise SceneError("$.camera: it looks straight up or down; move location or target a little aside")


def _numbers(value: Any, path: str) -> Any:
    """(path, number) of every float in JSON values."""
    if isinstance(value, float):
        yield path, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _numbers(item, f"{path}.{key}")
    elif isinstance(value, list | tuple):
        for number, item in enumerate(value):
            yield from _numbers(item, f"{path}[{number}]")
