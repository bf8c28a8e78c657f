"""An HTML gallery of a dataset: one file, which a browser opens without a server.

Pairs with boxes coloured by kind, a blink comparator, filters by kind, number and difficulty of differences,
and plots of what the whole dataset holds.
"""

from __future__ import annotations

import base64
import html
import io
import json
import string
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data_gen.records.dataset import Dataset, Pair
from data_gen.records.statistics import Statistics

TEMPLATE = Path(__file__).with_name("templates") / "gallery.html"
LOOK = TEMPLATE.with_name("look.css")  # that all galleries share
MAX_PAIRS = 96  # shown; the plots count all
MAX_SIDE = 640  # pixels of a shown picture; larger ones are scaled down
WEBP_QUALITY = 90
DISTANCE_BINS = 15
REASONS = 8

KIND_COLORS = {
    "color": "#e5484d",
    "material": "#8e4ec6",
    "shape": "#3e63dd",
    "size": "#f76b15",
    "add": "#2b9a66",
    "remove": "#7d4b1f",
    "move": "#0894b3",
    "rotate": "#d6409f",
    "texture": "#99a300",
    "change": "#e6007e",  # of pairs that a user imported without naming kinds
}
OTHER_COLOR = "#ffc53d"  # of kinds that a user added


def color_of(kind: str) -> str:
    """The colour of a kind's boxes, as #rrggbb."""
    return KIND_COLORS.get(kind, OTHER_COLOR)


def write_gallery(dataset: Dataset, path: Path, max_pairs: int = MAX_PAIRS) -> None:
    """Writes the page: all pairs of a small dataset, else pairs spread evenly over it."""
    splits = dataset.splits
    total = sum(splits.values())
    chosen = set(np.linspace(0, total - 1, min(max_pairs, total)).round().astype(int).tolist())
    statistics, shown = Statistics(), []
    for number, pair in enumerate(dataset.pairs(sorted(splits, reverse=True))):
        statistics.add(pair)
        if number in chosen:
            shown.append(pair)
    metadata = dataset.metadata()
    data = {
        "facts": facts(splits, metadata),
        "stats": plots(statistics, metadata.get("rejected_attempts", {})),
        "pairs": describe_pairs(shown),
        "colors": {kind: color_of(kind) for kind in sorted(statistics.kinds)},
    }
    preset = metadata.get("preset", {}).get("name")
    title = (
        f"dig_pairs: {preset}, seed {metadata.get('seed')}" if preset else f"dig_pairs: {dataset.folder.name}"
    )
    write_page(TEMPLATE, path, title, data)


def write_page(template: Path, path: Path, title: str, data: Any) -> None:
    """Writes a page of a template with `$title`, `$look` and, inside a script, `$data`."""
    values = {"title": html.escape(title), "look": LOOK.read_text(), "data": script_json(data)}
    path.write_text(string.Template(template.read_text()).substitute(values))


def script_json(value: Any) -> str:
    """JSON that can stand inside a <script> element, whatever its texts hold."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def facts(splits: dict[str, int], metadata: dict[str, Any]) -> list[tuple[str, str]]:
    """What the line under the title says: (value, what it is)."""
    found = [(str(number), f"{name} pairs") for name, number in splits.items()]
    preset, renderer = metadata.get("preset", {}), metadata.get("renderer", {})
    if preset:
        found.append((f"{preset['width']}\u00d7{preset['height']}", "pixels"))
        found.append((str(preset["samples"]), "samples"))
    if renderer:
        found.append((f"Blender {renderer['blender']}", f"on {renderer['device']}"))
    if imported := metadata.get("imported"):
        found.append((imported["file"], "imported"))
    if revision := metadata.get("git_revision"):
        found.append((revision[:9], "revision"))
    return found


def plots(statistics: Statistics, rejected: dict[str, int]) -> dict[str, Any]:
    """What the page plots."""
    distances = statistics.measures.get("mean_delta_e", [])
    top = max(10.0, 10 * np.ceil(max(distances, default=0.0) / 10))
    attempts = statistics.pairs + sum(rejected.values())
    note = f"{statistics.pairs} pairs out of {attempts} attempts" if rejected else ""
    return {
        "kinds": statistics.kinds.most_common(),
        "rejected": sorted(rejected.items(), key=lambda item: -item[1])[:REASONS],
        "rejected_note": note,
        "positions": statistics.positions.tolist(),
        "sides": statistics.side_histogram(),
        "objects": by_number(statistics.objects) if any(statistics.objects) else [],  # of own pairs unknown
        "differences": by_number(statistics.differences),
        "distances": np.histogram(distances, DISTANCE_BINS, (0.0, top))[0].tolist(),
        "distance_axis": ["0", f"{top / 2:g}", f"{top:g} \u0394E"],
    }


def by_number(counts: dict[int, int]) -> list[tuple[int, int]]:
    """Counts from the smallest to the largest number, those that do not occur included."""
    return [
        (number, counts.get(number, 0))
        for number in range(min(counts, default=0), max(counts, default=0) + 1)
    ]


def describe_pairs(pairs: Sequence[Pair]) -> list[dict[str, Any]]:
    """The pairs as the page takes them; their difficulty is relative to one another."""
    levels = difficulty_levels([visibility(pair) for pair in pairs])
    return [describe_pair(pair, level) for pair, level in zip(pairs, levels, strict=True)]


def describe_pair(pair: Pair, level: str) -> dict[str, Any]:
    pictures = pair.decoded()
    height, width = pictures[0].shape[:2]
    differences = []
    for number, kind in enumerate(pair.kinds):
        x0, y0, x1, y1 = pair.boxes[number].tolist()
        differences.append(
            {
                "kind": kind,
                "text": pair.descriptions[number] or kind,
                "boxes": [rounded(boxes[number]) for boxes in (pair.boxes, pair.boxes_a, pair.boxes_b)],
                "side": ((x1 - x0) * (y1 - y0)) ** 0.5,
                "distance": measure(pair, "mean_delta_e", number),
                "pixels": measure(pair, "changed_pixels", number),
                "hidden": measure(pair, "occlusion", number),
            }
        )
    seen = visibility(pair)
    return {
        "id": pair.id,
        "images": [data_uri(array) for array in pictures],
        "ratio": width / height,
        "differences": differences,
        "level": level,
        "visibility": seen if np.isfinite(seen) else 1e30,
        "moved": pair.camera_moved,
    }


def measure(pair: Pair, name: str, number: int) -> float | None:
    values = pair.measures.get(name)
    return values[number] if values else None


def visibility(pair: Pair) -> float:
    """How much the pair's least visible difference changes: its changed pixels times its colour distance.

    The area of its box where the record has no measures; infinite without differences.
    """
    if "changed_pixels" in pair.measures:
        pixels, distances = pair.measures["changed_pixels"], pair.measures["mean_delta_e"]
        return min((a * b for a, b in zip(pixels, distances, strict=True)), default=np.inf)
    areas = (pair.boxes[:, 2] - pair.boxes[:, 0]) * (pair.boxes[:, 3] - pair.boxes[:, 1])
    return float(areas.min(initial=np.inf))


def difficulty_levels(values: Sequence[float]) -> list[str]:
    """By thirds, from the least visible: "hard", "medium", "easy"; "" for pairs without differences."""
    finite = [value for value in values if np.isfinite(value)]
    low, high = np.quantile(finite, (1 / 3, 2 / 3)) if finite else (0.0, 0.0)
    return [
        "" if not np.isfinite(value) else "hard" if value < low else "medium" if value < high else "easy"
        for value in values
    ]


def rounded(box: Iterable[float]) -> list[float]:
    return [round(float(value), 5) for value in box]


def shrunk(picture: np.ndarray) -> Image.Image:
    """The picture as it is shown: not larger than MAX_SIDE a side."""
    image = Image.fromarray(picture)
    image.thumbnail((MAX_SIDE, MAX_SIDE))
    return image


def data_uri(picture: np.ndarray) -> str:
    """The picture as a WebP file in a data: address."""
    file = io.BytesIO()
    shrunk(picture).save(file, "WEBP", quality=WEBP_QUALITY, method=4)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()
