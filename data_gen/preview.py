"""Shows pairs of a dataset with their boxes, as a page or a picture.

`python -m data_gen.preview DATASET --out=pairs.html` (see gallery.py) or `--out=pairs.png`. Of a dataset of
`data_gen.align`, the page shows items of every kind (see alignment/gallery.py).
"""

from __future__ import annotations

import argparse
import collections
import sys
import textwrap

from PIL import Image, ImageDraw, ImageFont

from data_gen.alignment.gallery import PER_KIND
from data_gen.alignment.gallery import write_gallery as write_items
from data_gen.alignment.records import AlignedDataset, is_aligned
from data_gen.files.userfiles import check_writable, user_path
from data_gen.records.dataset import Dataset, NoDataset, Pair
from data_gen.records.gallery import MAX_PAIRS, color_of, shrunk, write_gallery

SUFFIXES = (".html", ".png", ".jpg", ".jpeg", ".webp")
GAP = 8  # pixels around every picture
LINE = 16  # height of a line of text
LETTER = 7  # width of a letter of it


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns 0, or 2 when the dataset or a pair of it does not exist."""
    parser = argparse.ArgumentParser(
        prog="python -m data_gen.preview",
        description="Shows pairs of a dig_pairs dataset with their boxes: as an HTML gallery with a blink "
        "comparator, filters and statistics, or as one picture. Items of data_gen.align: as a page.",
    )
    parser.add_argument("dataset", type=user_path, help="folder of a dig_pairs or dig_align dataset")
    parser.add_argument("--out", type=user_path, required=True, help="file to write: .html, .png or .jpg")
    parser.add_argument("--split", default="train", help="of a picture: train (default) or test")
    parser.add_argument(
        "--first", type=int, default=0, help="of a picture: index of the first pair (default 0)"
    )
    parser.add_argument(
        "--count", type=int, help=f"number of pairs (default 8 in a picture, up to {MAX_PAIRS} in a gallery)"
    )
    parser.add_argument("--columns", type=int, default=2, help="of a picture: pairs side by side (default 2)")
    args = parser.parse_args(argv)
    try:
        if args.out.suffix.lower() not in SUFFIXES:
            raise ValueError(f"--out={args.out}: expected a file that ends in one of {', '.join(SUFFIXES)}")
        check_writable(args.out, "--out")  # before the time that drawing takes
        if is_aligned(args.dataset):
            if args.out.suffix.lower() != ".html":
                raise ValueError(
                    f"--out={args.out}: items are shown as a page; name a file that ends in .html"
                )
            write_items(AlignedDataset(args.dataset), args.out, args.count or PER_KIND)
            return 0
        dataset = Dataset(args.dataset)
        if args.out.suffix.lower() == ".html":
            write_gallery(dataset, args.out, args.count or MAX_PAIRS)
        else:
            pairs = read_pairs(dataset, args.split, args.first, args.count or 8)
            sheet([draw_pair(pair) for pair in pairs], args.columns).save(args.out, optimize=True)
    except (ValueError, OSError) as error:  # no such pairs, no such folder, a suffix that is no picture's
        print(f"data_gen.preview: {error}", file=sys.stderr)
        return 2
    return 0


def read_pairs(dataset: Dataset, split: str, first: int, count: int) -> list[Pair]:
    """Up to `count` pairs from number `first` on. Raises NoDataset when there are none."""
    if split not in dataset.splits:
        raise NoDataset(f"{dataset.folder} has no split {split!r}; it has {', '.join(dataset.splits)}")
    total = dataset.splits[split]
    if not 0 <= first < total:
        raise NoDataset(f"--first={first}: {dataset.folder} has pairs 0 to {total - 1} in split {split!r}")
    return [dataset.pair(split, index) for index in range(first, min(first + count, total))]


def draw_pair(pair: Pair) -> Image.Image:
    """Both pictures side by side, every difference boxed in both and described below."""
    pictures = [shrunk(picture) for picture in pair.decoded()]
    width, height = pictures[0].size
    lines = [
        (part, color)
        for sentence, color in sentences(pair)
        for part in textwrap.wrap(sentence, max(20, 2 * width // LETTER))
    ]
    canvas = Image.new("RGB", (2 * width + 3 * GAP, height + 2 * GAP + LINE * len(lines)), "white")
    draw = ImageDraw.Draw(canvas)
    for left, picture in zip((GAP, width + 2 * GAP), pictures, strict=True):
        canvas.paste(picture, (left, GAP))
        for kind, (x0, y0, x1, y1) in zip(pair.kinds, pair.boxes, strict=True):
            # The box is half-open: its last pixel is one before its end, but not before its first.
            x, y = left + x0 * width, GAP + y0 * height
            corners = (x, y, max(x, left + x1 * width - 1), max(y, GAP + y1 * height - 1))
            outer = (corners[0] - 1, corners[1] - 1, corners[2] + 1, corners[3] + 1)
            draw.rectangle(outer, outline="white", width=4)  # or it would be lost on pictures of its colour
            draw.rectangle(corners, outline=color_of(kind), width=2)
    font = ImageFont.load_default(size=12)
    for number, (line, color) in enumerate(lines):
        draw.text((GAP, height + GAP + 2 + LINE * number), line, fill=color, font=font)
    return canvas


def sentences(pair: Pair) -> list[tuple[str, str]]:
    """What differs, and the colour of its box; differences that nobody described are counted by kind."""
    described = list(zip(pair.kinds, pair.descriptions, strict=True))
    told = [(sentence, color_of(kind)) for kind, sentence in described if sentence]
    untold = collections.Counter(kind for kind, sentence in described if not sentence)
    told += [(f"{number} x {kind}", color_of(kind)) for kind, number in untold.items()]
    return told or [("no difference", "black")]


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
