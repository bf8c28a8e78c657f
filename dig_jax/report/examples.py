"""The examples of a benchmark on a page, with what a model answered where it was measured.

    python -m dig_jax.report.examples --benchmark=refcoco --data_root=DIR --out=refcoco.html
    python -m dig_jax.report.examples --benchmark=refcoco --data_root=DIR --answers=RESULTS --out=wrong.html

RESULTS is the folder of `python -m dig_jax.evaluate --benchmarks`; wrong answers come first then. The page
needs nothing but itself.
"""

from __future__ import annotations

import argparse
import html
import json
from collections.abc import Mapping, Sequence

from etils import epath

from dig_jax.benchmarks import opening, registry
from dig_jax.benchmarks.benchmark import Benchmark
from dig_jax.benchmarks.row import Mark, Row, pixels
from dig_jax.data.example import Size
from dig_jax.machines.folder import to_path, writable_file
from dig_jax.measure.results import chosen, from_record
from dig_jax.report.overlay import Box, Pictures
from dig_jax.report.page import section, write_page
from dig_jax.run import cli

COUNT = 48  # rows shown, unless it is said otherwise


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="dig_jax.report.examples",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--benchmark", required=True, help="its name, as docs/benchmarks.md lists them")
    add("--data_root", required=True, help="folder of the benchmarks' files")
    add("--split", action="append", default=[], help="may be repeated (default: those that are scored)")
    add("--answers", help="folder that dig_jax.evaluate wrote: shows what a model answered, wrong ones first")
    add("--count", type=int, default=COUNT, help=f"rows shown, a random part (default {COUNT}; 0: all)")
    add("--seed", type=int, default=0, help="of that choice")
    add("--out", required=True, help="file to write: a page")
    args = parser.parse_args(argv)
    with cli.user_errors():
        out = writable_file(args.out, "--out")
        benchmark = registry.benchmark(args.benchmark)
        rows = opening.open_rows(benchmark, args.data_root, args.split).rows
        marks = read_marks(to_path(args.answers), benchmark) if args.answers else {}
        if args.answers:
            rows = tuple(row for row in rows if row.index in marks)
        shown = chosen(benchmark, rows, args.count, args.seed)
        print(write_examples(benchmark, shown, len(rows), marks, out))


def read_marks(folder: epath.Path, benchmark: Benchmark) -> dict[str, Mark]:
    """What a model's answers were taken for, by index of the row.

    Raises:
      FileNotFoundError: the benchmark was not measured there, or not to its end.
    """
    path = folder / f"{benchmark.name}.json"
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: {benchmark.name} was not measured there to its end")
    return {mark.index: mark for _, mark in map(from_record, json.loads(path.read_text())["rows"])}


def write_examples(
    benchmark: Benchmark, rows: Sequence[Row], count: int, marks: Mapping[str, Mark], out: epath.Path
) -> epath.Path:
    """Writes the page.

    Args:
      benchmark: of the rows.
      rows: to show; those with the least hit come first where there are marks.
      count: how many there are in all.
      marks: by index, of rows that were answered.
      out: the file.
    """
    ordered = sorted(rows, key=lambda row: marks[row.index].hit if row.index in marks else 0)
    pictures = Pictures()
    figures = "".join(_figure(row, marks.get(row.index), pictures) for row in ordered)
    right = sum(mark.hit for mark in marks.values()) / len(marks) if marks else None
    facts = f"{len(rows)} of {count} examples" + ("" if right is None else f" &middot; mean hit {right:.3f}")
    body = [
        f"<header><h1>{html.escape(benchmark.title)}</h1><p>{facts}</p></header>\n",
        section("Examples", f'<div class="samples">{figures}</div>'),
        pictures.store(),
    ]
    return write_page(out, f"dig_jax: {benchmark.title}", body)


def _figure(row: Row, mark: Mark | None, pictures: Pictures) -> str:
    images = [pixels(picture) for picture in row.images]
    shown = pictures.with_boxes(
        [pictures.add(image) for image in images], row.boxes, boxes_of(mark, row.size)
    )
    lines = [row.hint, row.question, *(f"{letter}. {text}" for letter, text in row.options.items())]
    said = [html.escape(line) for line in lines if line]
    if row.answer:
        said.append(f"<b>right: {html.escape(row.answer)}</b>")
    if mark is not None:
        words = f"answered: {mark.answer or 'nothing'} ({mark.reason}), hit {mark.hit:.3g}"
        said.append(f'<span class="{"better" if mark.hit >= 1 else "worse"}">{html.escape(words)}</span>')
    which = html.escape(" ".join(filter(None, (row.index, row.category))))
    said.append(f'<span class="same">{which}</span>')
    return f"<figure>{shown}<figcaption>{'<br>'.join(said)}</figcaption></figure>"


def boxes_of(mark: Mark | None, size: Size | None) -> list[Box]:
    """The boxes that an answer was taken for, in shares; none of a letter or a word.

    Args:
      mark: of the answer, boxes in pixels where the row tells the size of its picture, else in shares.
      size: (height, width), from the row.
    """
    try:
        found = json.loads(mark.answer) if mark is not None else []
    except ValueError:
        return []
    if not isinstance(found, list) or not all(isinstance(box, list) and len(box) == 4 for box in found):
        return []
    height, width = size or (1, 1)
    return [(x0 / width, y0 / height, x1 / width, y1 / height) for x0, y0, x1, y1 in found]


if __name__ == "__main__":
    main()
