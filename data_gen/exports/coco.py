"""A dataset of pairs as COCO JSON with PNG files beside it.

    OUT/pairs.json
    OUT/images/train/000000.image_a.png, 000000.image_b.png, ...
    OUT/features.json, metadata.json

An entry of `images` is a pair: `file_name` is its first picture, as other tools want it, `file_name_a` and
`file_name_b` are both, as `data_gen.import_pairs` does. An annotation is a difference: `bbox` around it in
both pictures, `bbox_a` and `bbox_b` in each (null where it does not show), all [x, y, width, height] in
pixels. What COCO has no place for (scenes, measures, boxes to the last bit) is in `record` of the entry.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from data_gen.exports.rows import Row, Rows, picture_names
from data_gen.records.dataset import NoDataset, decode_png

FILE = "pairs.json"
ANNOTATED = ("bbox", "bbox_a", "bbox_b", "area", "iscrowd", "description")  # of an annotation, beside its ids


def write(rows: Rows, out: Path) -> None:
    """Writes all but features and metadata into the folder `out`."""
    pictures = picture_names(rows.features)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    kinds: dict[str, int] = {}
    for split in rows.splits:
        (out / "images" / split).mkdir(parents=True)
        for index, row in enumerate(rows.rows(split)):
            names = {key: f"images/{split}/{index:06d}.{key}.png" for key in pictures}
            for key, name in names.items():
                (out / name).write_bytes(row[key])
            images.append(_image(len(images) + 1, split, row, names))
            for difference in _differences(row, images[-1]):
                kind = kinds.setdefault(difference.pop("kind"), len(kinds) + 1)
                id = len(annotations) + 1
                annotations.append({"id": id, "image_id": len(images), "category_id": kind, **difference})
    categories = [
        {"id": number, "name": kind, "supercategory": "difference"} for kind, number in kinds.items()
    ]
    values = {"images": images, "annotations": annotations, "categories": categories}
    (out / FILE).write_text(json.dumps(values))


def _image(id: int, split: str, row: Row, names: dict[str, str]) -> dict[str, Any]:
    height, width = decode_png(row["image_a"], f"{row['id']}, image_a").shape[:2]
    return {
        "id": id,
        "file_name": names["image_a"],
        "file_name_a": names["image_a"],
        "file_name_b": names["image_b"],
        "width": width,
        "height": height,
        "split": split,
        "pictures": names,
        "record": {key: value for key, value in row.items() if key not in names},
    }


def _differences(row: Row, image: dict[str, Any]) -> Iterator[dict[str, Any]]:
    size = (image["width"], image["height"])
    for number, kind in enumerate(row["kinds"]):
        union, in_a, in_b = (_bbox(row[key][number], *size) for key in ("bboxes", "bboxes_a", "bboxes_b"))
        yield {
            "kind": kind,
            "bbox": union,
            "bbox_a": in_a,
            "bbox_b": in_b,
            "area": union[2] * union[3] if union else 0,
            "iscrowd": 0,
            "description": row["descriptions"][number],
        }


def _bbox(box: Sequence[float], width: int, height: int) -> list[float] | None:
    """Corners in shares -> [x, y, width, height] in pixels; None for the zeros of what does not show."""
    if not any(box):
        return None
    x0, y0, x1, y1 = (round(share * side, 4) for share, side in zip(box, (width, height) * 2, strict=True))
    return [x0, y0, round(x1 - x0, 4), round(y1 - y0, 4)]


def read(folder: Path) -> Rows:
    """What `write` wrote.

    Raises:
      NoDataset: the file is of another tool, or its annotations were changed: `import_pairs` reads those.
    """
    values = json.loads((folder / FILE).read_text())
    kinds = {category["id"]: category["name"] for category in values["categories"]}
    differences: dict[int, list[dict[str, Any]]] = {}
    for annotation in values["annotations"]:
        known = {key: annotation.get(key) for key in ANNOTATED} | {"kind": kinds[annotation["category_id"]]}
        differences.setdefault(annotation["image_id"], []).append(known)
    by_split: dict[str, list[dict[str, Any]]] = {}
    for image in values["images"]:
        found = differences.get(image["id"], [])
        if "record" not in image or found != list(_differences(image["record"], image)):
            raise NoDataset(
                f"{folder / FILE}, image {image['id']}: its annotations are not those of its record. Files of"
                " other tools, or changed ones, are read by python -m data_gen.import_pairs"
            )
        by_split.setdefault(image["split"], []).append(image)

    def rows(split: str) -> Iterator[Row]:
        for image in by_split[split]:
            pictures = {key: (folder / name).read_bytes() for key, name in image["pictures"].items()}
            yield {**image["record"], **pictures}

    return Rows(folder, {split: len(some) for split, some in by_split.items()}, rows)
