"""A user's folder of meshes, textures and pictures of surroundings, to be used like the built-in ones.

Meshes (.blend, .obj, .glb, .ply) are shapes, .png files textures, .hdr and .exr files surroundings; each is
called asset: and its path below the folder, like asset:toys/car.glb. Links out of the folder are refused.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from data_gen.render.controller import Worker
from data_gen.scenes.presets import Preset
from data_gen.scenes.scene import asset_word
from data_gen.scenes.schema import ASSET
from data_gen.scenes.shapes import SHAPES, Shape

MESHES = (".blend", ".obj", ".glb", ".ply")
TEXTURES = (".png",)
ENVIRONMENTS = (".hdr", ".exr")
MAX_BYTES = 200_000_000  # of a file
MAX_FILES = 10_000


@dataclasses.dataclass(frozen=True)
class Assets:
    """The names of what a folder holds."""

    folder: Path
    shapes: tuple[str, ...]
    textures: tuple[str, ...]
    environments: tuple[str, ...]


def scan(folder: Path) -> Assets:
    """Lists a folder and those below it; other files are passed over.

    Raises ValueError, naming the file, for one that is empty, too large, outside the folder by a link, or of
    a name that a scene cannot hold, and for a folder that holds nothing of use.
    """
    if not folder.is_dir():
        raise ValueError(f"--assets={folder}: no such folder")
    root = folder.resolve()
    found: dict[tuple[str, ...], list[str]] = {MESHES: [], TEXTURES: [], ENVIRONMENTS: []}
    for count, path in enumerate(sorted(folder.rglob("*"))):
        if count >= MAX_FILES:
            raise ValueError(f"--assets={folder}: more than {MAX_FILES} files")
        for suffixes, names in found.items():
            if path.suffix.lower() in suffixes and path.is_file():
                names.append(check_file(path, folder, root))
    if not any(found.values()):
        wanted = ", ".join((*MESHES, *TEXTURES, *ENVIRONMENTS))
        raise ValueError(f"--assets={folder}: no file to use; expected {wanted}")
    return Assets(folder, *(tuple(names) for names in found.values()))


def check_file(path: Path, folder: Path, root: Path) -> str:
    """The asset's name. Raises ValueError, naming the file."""
    if not path.resolve().is_relative_to(root):
        raise ValueError(f"{path} is a link to a file outside {folder}; copy the file instead")
    if not 0 < path.stat().st_size <= MAX_BYTES:
        raise ValueError(f"{path} has {path.stat().st_size} bytes; expected 1 to {MAX_BYTES}")
    name = f"asset:{path.relative_to(folder).as_posix()}"
    if not re.match(ASSET, name):
        raise ValueError(f"{path}: an asset's path may have letters, digits, spaces, and _ - . / only")
    return name


def register(worker: Worker, assets: Assets) -> None:
    """Has Blender measure every mesh, and makes it a shape. Raises WorkerError, naming the file, for a bad
    one.

    The worker must have been started with --assets.
    """
    for name in assets.shapes:
        measured = worker.ask({"op": "measure", "shape": name})
        outline = tuple((x, y, z) for x, y, z in measured["outline"])
        # Nobody knows how symmetric it is: a turn that does not show is rejected as faint.
        SHAPES[name] = Shape(asset_word(name), measured["half_height"], 360.0, outline, recipe=None)


def extend(preset: Preset, assets: Assets) -> Preset:
    """The preset with these assets beside its own; surroundings are used where its lighting has hdri."""
    return dataclasses.replace(
        preset,
        shapes=preset.shapes + assets.shapes,
        textures=preset.textures + assets.textures,
        environments=preset.environments + assets.environments,
    )
