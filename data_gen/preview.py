"""Draws pairs of a dataset with their boxes: `python -m data_gen.preview DATASET --out=pairs.png`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

GAP = 8  # pixels around every picture
LINE = 16  # height of a line of text
KIND_COLORS = {
    "color": "#d62728",
    "material": "#9467bd",
    "shape": "#1f77b4",
    "size": "#ff7f0e",
    "add": "#2ca02c",
    "remove": "#000000",
}


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns 0, or 2 when the dataset or a pair of it does not exist."""
    parser = argparse.ArgumentParser(
        prog="python -m data_gen.preview", description="Draws pairs of a dig_pairs dataset with their boxes."
    )
    parser.add_argument("dataset", type=Path, help="folder that `python -m data_gen` wrote")
    parser.add_argument("--out", type=Path, required=True, help="picture to write (.png or .jpg)")
    parser.add_argument("--split", default="train", help="train (default) or test")
    parser.add_argument("--first", type=int, default=0, help="index of the first pair (default 0)")
    parser.add_argument("--count", type=int, default=8, help="number of pairs (default 8)")
    parser.add_argument("--columns", type=int, default=2, help="pairs side by side (default 2)")
    args = parser.parse_args(argv)
    try:
        records = read_pairs(args.dataset, args.split, args.first, args.count)
    except ValueError as error:
        print(f"data_gen.preview: {error}", file=sys.stderr)
        return 2
    sheet([draw_pair(record) for record in records], args.columns).save(args.out, optimize=True)
    return 0


def read_pairs(dataset: Path, split: str, first: int, count: int) -> list[dict[str, Any]]:
    """Up to `count` decoded records from number `first` on. Raises ValueError when there are none."""
    import tensorflow_datasets as tfds  # slow to import: not for --help

    if not (dataset / "dataset_info.json").exists():
        raise ValueError(f"{dataset} is not a dataset: it has no dataset_info.json")
    builder = tfds.builder_from_directory(dataset)
    if split not in builder.info.splits:
        raise ValueError(f"{dataset} has no split {split!r}; it has {', '.join(builder.info.splits)}")
    source = builder.as_data_source(split=split)
    if not 0 <= first < len(source):
        raise ValueError(f"--first={first}: {dataset} has pairs 0 to {len(source) - 1} in split {split!r}")
    return [source[index] for index in range(first, min(first + count, len(source)))]


def draw_pair(record: dict[str, Any]) -> Image.Image:
    """Both pictures side by side, every difference boxed in both and described below."""
    height, width = record["image_a"].shape[:2]
    lines = [text.decode() for text in record["descriptions"]] or ["no difference"]
    canvas = Image.new("RGB", (2 * width + 3 * GAP, height + 2 * GAP + LINE * len(lines)), "white")
    draw = ImageDraw.Draw(canvas)
    kinds = [kind.decode() for kind in record["kinds"]]
    for left, name in ((GAP, "image_a"), (width + 2 * GAP, "image_b")):
        canvas.paste(Image.fromarray(record[name]), (left, GAP))
        for kind, (x0, y0, x1, y1) in zip(kinds, record["bboxes"], strict=True):
            # The box is half-open: its last pixel is one before its end.
            corners = (left + x0 * width, GAP + y0 * height, left + x1 * width - 1, GAP + y1 * height - 1)
            draw.rectangle(corners, outline=KIND_COLORS.get(kind, "#d62728"), width=2)
    font = ImageFont.load_default(size=12)
    for number, line in enumerate(lines):
        color = KIND_COLORS.get(kinds[number], "black") if kinds else "black"
        draw.text((GAP, height + GAP + 2 + LINE * number), line, fill=color, font=font)
    return canvas


def sheet(tiles: list[Image.Image], columns: int) -> Image.Image:
    """The tiles in rows of `columns`, each row as high as its highest tile."""
    rows = [tiles[start : start + columns] for start in range(0, len(tiles), columns)]
    heights = [max(tile.height for tile in row) for row in rows]
    width = max(sum(tile.width for tile in row) for row in rows)
    result = Image.new("RGB", (width, sum(heights)), "white")
    for number, row in enumerate(rows):
        for column, tile in enumerate(row):
            result.paste(tile, (column * tile.width, sum(heights[:number])))
    return result


if __name__ == "__main__":
    sys.exit(main())
