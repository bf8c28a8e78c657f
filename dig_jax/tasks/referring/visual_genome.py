"""Visual Genome: phrases for regions, and names of objects, as published (visualgenome.org).

A folder with `image_data.json` beside `region_descriptions.json` (a phrase for a box each) or `objects.json`.
The path is that of one of the two files, or of the folder, where it means the region descriptions. Images are
in `VG_100K` and `VG_100K_2`, or wherever `config.data.images` says, by the names in their addresses.

Phrases are as annotators wrote them: many a region is described by words that fit other places of its image
as well. A phrase that an image has for two boxes is left out, and so is the name of an object that is there
twice. Boxes that reach over the border are cut off there; some lie beside their image altogether (of 5.4
million regions 5,654 have a negative coordinate: issue 21 of ranjaykrishna/visual_genome_python_driver) and
are left out with a warning. There are no splits: all is one, whatever it is called.
"""

from __future__ import annotations

import collections
from collections.abc import Iterator, Mapping
from typing import Any

from etils import epath

from dig_jax.machines import textfile
from dig_jax.tasks.published import check_count
from dig_jax.tasks.referring.target import Entry, box_in, say_left_out

REGIONS, OBJECTS, IMAGES = "region_descriptions.json", "objects.json", "image_data.json"
FOLDERS = ("VG_100K", "VG_100K_2")


def is_there(path: epath.Path) -> bool:
    """Whether a path is Visual Genome's: its folder, or one of the two files of it."""
    return (path / REGIONS).exists() if path.is_dir() else path.name in (REGIONS, OBJECTS)


def read(path: epath.Path, root: epath.Path | None) -> list[Entry]:
    """The phrases that fit one box of their image.

    Args:
      path: the folder, or one of the two files.
      root: folder of the images; None for that of the files, where they may also be in `FOLDERS`.

    Raises:
      ValueError: an entry is of another form; names file, number and image. Or there are more images than
        were published.
    """
    file = path / REGIONS if path.is_dir() else path
    known = {
        image["image_id"]: image
        for image in _list(file.parent / IMAGES, ("image_id", "url", "width", "height"))
    }
    about = _list(file, ())
    check_count("visual_genome", len(about), file)
    base = root or file.parent
    folders = [folder for folder in (base / FOLDERS[0], base / FOLDERS[1]) if folder.exists()] or [base]
    files = {image.name: image for folder in folders for image in folder.iterdir()}
    entries: list[Entry] = []
    outside: list[str] = []
    for number, entry in enumerate(about, start=1):
        try:
            id = entry["image_id"] if "image_id" in entry else entry["id"]
            image = known[id]
            size = int(image["height"]), int(image["width"])
            name = str(image["url"]).rpartition("/")[2]
            found = files.get(name, folders[0] / name)
            said = list(_regions(entry) if file.name == REGIONS else _objects(entry))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{file}, entry {number}: {error!r} is missing or of another form") from error
        times = collections.Counter(phrase.lower() for _, phrase, _ in said)
        for own, phrase, corners in said:
            one = Entry(f"{id}-{own}", found, size, phrase, corners)
            if times[phrase.lower()] > 1:
                continue
            try:
                box_in(one, size)
                entries.append(one)
            except ValueError as error:
                outside.append(f"{one.id}: {error}")
    say_left_out(outside, len(entries) + len(outside), file)
    return entries


def _regions(entry: Mapping[str, Any]) -> Iterator[tuple[Any, str, tuple[float, ...]]]:
    for region in entry["regions"]:
        phrase = str(region["phrase"]).strip().rstrip(".").strip()
        if phrase:
            yield region["region_id"], phrase, _corners(region, "width", "height")


def _objects(entry: Mapping[str, Any]) -> Iterator[tuple[Any, str, tuple[float, ...]]]:
    for thing in entry["objects"]:
        names = thing["names"]
        if names and str(names[0]).strip():
            yield thing["object_id"], str(names[0]).strip(), _corners(thing, "w", "h")


def _corners(box: Mapping[str, Any], width: str, height: str) -> tuple[float, ...]:
    x, y = float(box["x"]), float(box["y"])
    return x, y, x + float(box[width]), y + float(box[height])


def _list(file: epath.Path, keys: tuple[str, ...]) -> list[dict[str, Any]]:
    """The objects in a file's list, each of which has the keys. Raises ValueError."""
    entries = textfile.parse_json(textfile.read_text(file), str(file))
    if not isinstance(entries, list):
        raise ValueError(f"{file}: expected a JSON list")
    for number, entry in enumerate(entries, start=1):
        if not isinstance(entry, dict) or (missing := [key for key in keys if key not in entry]):
            lacks = f"it has no {missing[0]}" if isinstance(entry, dict) else "expected an object {...}"
            raise ValueError(f"{file}, entry {number}: {lacks}")
    return entries
