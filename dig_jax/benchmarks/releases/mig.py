"""MIG-Bench as published: MIG_data.json and the folder of pictures that its paths begin with."""

from __future__ import annotations

from collections.abc import Sequence

from etils import epath

from dig_jax.benchmarks.releases import files
from dig_jax.benchmarks.row import PictureFile, Row
from dig_jax.data import images

# One file has ten tasks; these ask for the box of a change between two pictures.
SPLITS = ("diff", "view_diff")
_ANY = (1000, 1000)  # IoU is the same whatever the size, so that answers can be scored without pictures


def rows(root: epath.Path, split: str) -> Sequence[Row]:
    """The items of one task, numbered as in the whole file.

    Raises:
      FileNotFoundError: the file is missing.
      ValueError: an item is of another form; names it.
    """
    files.split_of(split, SPLITS, "MIG-Bench")
    name = "MIG_data.json"
    path = files.find(root, name, f"MIG-Bench/MIG-Bench/{name}", f"MIG-Bench/{name}", f"MIG_Bench/{name}")
    found = []
    for number, record in enumerate(files.json_list(path)):
        if record.text("task") != split:
            continue
        shown = [_picture(path.parent, text) for text in record.texts("images")]
        if len(shown) != 2:
            raise ValueError(f"{record.place}: {len(shown)} images; expected two")
        box = record.numbers("answer", 4)
        if not (0 <= box[0] < box[2] <= 1 and 0 <= box[1] < box[3] <= 1):
            raise ValueError(f"{record.place}: answer is {list(box)}; expected x0 < x1 and y0 < y1 in 0..1")
        last = shown[-1]  # the one that view_diff asks about; those of diff are of one size
        found.append(
            Row(
                index=str(number),
                images=tuple(PictureFile(place) for place in shown),
                question=record.text("question"),
                boxes=((box[0], box[1], box[2], box[3]),),
                size=images.image_size(images.read_file(last), str(last)) if last.exists() else _ANY,
                category=split,
                splits=(split,),
                fields={"category": split},
            )
        )
    return found


def _picture(folder: epath.Path, text: str) -> epath.Path:
    """A picture, whether paths begin in the folder of the file or in the one above it."""
    inner, outer = folder / text, folder.parent / text
    return outer if not inner.exists() and outer.exists() else inner
