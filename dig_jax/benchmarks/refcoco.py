"""RefCOCO, RefCOCO+ and RefCOCOg: box the one thing that a phrase describes.

Precision@1 is the share of phrases whose box has IoU >= 0.5, in percent; "Average" is the mean of the splits,
not weighted. Boxes of the table are pixels of the picture, whose size it gives in `width` and `height`.
"""

import ast
import dataclasses
import re
from collections.abc import Sequence

from dig_jax.benchmarks import asking, marking, quoted, scores
from dig_jax.benchmarks.benchmark import Benchmark
from dig_jax.benchmarks.releases import ref_coco
from dig_jax.benchmarks.row import Mark, Row

_SIZES = (10834, 5657, 5095, 10758, 5726, 4889, 4896, 9602)
_CORNERS = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2")


def _plain(split: str) -> str:
    """What is the same in "RefCOCO testA", "RefCOCO_testA" and "refcoco test_a"."""
    return re.sub(r"[\s_-]", "", split).lower()


_SPLITS = {_plain(split): split for split in ref_coco.SPLITS}


def precision(rows: Sequence[Row], marks: Sequence[Mark]) -> scores.Scores:
    """ "Average/..." and of each split "RefCOCO_testA/...": Precision@1, Average IoU, Samples."""
    found = {}
    for split, own in scores.by(rows, marks, lambda row: row.splits[0] if row.splits else "").items():
        ious = scores.mean(mark.values["iou"] for mark in own)
        found[split.replace(" ", "_")] = (100 * scores.hits(own), ious, float(len(own)))
    hits, ious = (scores.mean(of[place] for of in found.values()) for place in (0, 1))
    found = {"Average": (hits, ious, float(len(marks)))} | found
    columns = ("Precision@1", "Average IoU", "Samples")
    return {
        f"{split}/{column}": value
        for split, values in found.items()
        for column, value in zip(columns, values, strict=True)
    }


def _from_table(row: Row, table: str) -> Row:
    split = _SPLITS.get(_plain(row.category), "")
    if not split:
        known = ", ".join(ref_coco.SPLITS)
        raise ValueError(f"{table}, index {row.index}: category is {row.category!r}; expected one of {known}")
    prefix = split.replace(" ", "_") + "_"
    index = row.index if row.index.startswith(prefix) else prefix + row.index
    try:
        width, height = (int(float(row.fields[name])) for name in ("width", "height"))
        x0, y0, x1, y1 = map(float, _corners(row))
        box = (x0 / width, y0 / height, x1 / width, y1 / height)
    except (KeyError, ValueError, SyntaxError, TypeError, ZeroDivisionError) as error:
        raise ValueError(
            f"{table}, index {row.index}: expected width, height, and a box of pixels in answer or in"
            f" {', '.join(_CORNERS)} ({error!r})"
        ) from error
    return dataclasses.replace(
        row, index=index, answer="", boxes=(box,), size=(height, width), category=split, splits=(split,)
    )


def _corners(row: Row) -> Sequence[str | float]:
    if all(row.fields.get(name) for name in _CORNERS):
        return [row.fields[name] for name in _CORNERS]
    corners = ast.literal_eval(row.answer)
    if len(corners) != 4:
        raise ValueError(f"answer is {row.answer}")
    return list(corners)


BENCHMARK = Benchmark(
    name="refcoco",
    title="RefCOCO/+/g",
    task="referring",
    splits=ref_coco.SPLITS,
    sizes=dict(zip(ref_coco.SPLITS, _SIZES, strict=True)),
    tables={"RefCOCO": ref_coco.SPLITS},
    ask=asking.referring,
    mark=marking.referring,
    aggregate=precision,
    headline="Average/Precision@1",
    top=100.0,
    from_table=_from_table,
    release=ref_coco.rows,
    quoted=quoted.REFCOCO,
)
