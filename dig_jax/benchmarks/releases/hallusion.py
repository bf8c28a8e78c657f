"""HallusionBench as published: HallusionBench.json, and pictures in hallusion_bench/ beside it.

178 of the 1,129 questions are asked without a picture; VLMEvalKit's table leaves them out.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Sequence

from etils import epath

from dig_jax.benchmarks.releases import files
from dig_jax.benchmarks.row import Mark, PictureFile, Row

_ANSWERS = {"0": "No", "1": "Yes"}
_CATEGORIES = {"vd": "VD", "vs": "VS"}
_PARTS = ("category", "subcategory", "visual_input", "set_id", "figure_id", "question_id")


def rows(root: epath.Path, split: str) -> Sequence[Row]:
    """All questions, those without a picture among them.

    Raises:
      FileNotFoundError: the file is missing.
      ValueError: an entry is of another form; names it.
    """
    name = "HallusionBench.json"
    path = files.find(root, name, f"HallusionBench/{name}", f"hallusion_bench/{name}")
    found = []
    for record in files.json_list(path):
        category = record.one_of("category", _CATEGORIES)
        l2 = f"{category}_{record.text('subcategory')}"
        picture = record.text("filename", default="") if record.values.get("filename") else ""
        found.append(
            Row(
                index="_".join(record.text(part) for part in _PARTS),
                images=(PictureFile(path.parent / picture),) if picture else (),
                question=record.text("question"),
                answer=record.one_of("gt_answer", _ANSWERS),
                category=category,
                splits=(split,),
                fields=record.fields() | {"category": category, "l2-category": l2},
            )
        )
    return found


def official_scores(rows: Sequence[Row], marks: Sequence[Mark]) -> dict[str, float]:
    """The figures of the official script in percent, over all questions, those without a picture too.

    There an answer that is neither yes nor no counts as right: nothing is shown that would tell. "easy" and
    "hard" are called accuracies per question there, and are shares of question groups that are right on all
    of their original, or all of their edited, pictures.

    Args:
      rows: of the release, or of a table with its indices.
      marks: of the answer to each.
    """
    right = [
        bool(mark.hit) or (not row.images and mark.unparsed) for row, mark in zip(rows, marks, strict=True)
    ]
    asked = list(zip(rows, right, strict=True))

    def question(row: Row) -> tuple[str, ...]:
        about, _, set_id, _, number = _parts(row)
        return about, set_id, number

    def figure(row: Row) -> tuple[str, ...]:
        about, _, set_id, number, _ = _parts(row)
        return about, set_id, number

    edited = [(row, hit) for row, hit in asked if _parts(row)[1] == "2"]
    original = [(row, hit) for row, hit in asked if _parts(row)[1] != "2"]
    shown = [(row, hit) for row, hit in asked if row.category != "VS" or _parts(row)[3] != "0"]
    return {
        "official/aAcc": 100 * sum(right) / max(len(right), 1),
        "official/qAcc": _all_right(asked, question),
        "official/fAcc": _all_right(shown, figure),
        "official/easy": _all_right(original, question),
        "official/hard": _all_right(edited, question),
    }


def _parts(row: Row) -> list[str]:
    """Category and subcategory, kind of picture, set, figure and question: rows of a table have no more."""
    return row.index.rsplit("_", 4)


def _all_right(asked: Sequence[tuple[Row, bool]], key: Callable[[Row], tuple[str, ...]]) -> float:
    groups = collections.defaultdict(list)
    for row, hit in asked:
        groups[key(row)].append(hit)
    return 100 * sum(map(all, groups.values())) / max(len(groups), 1)
