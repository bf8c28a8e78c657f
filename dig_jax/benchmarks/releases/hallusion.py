"""HallusionBench as published: HallusionBench.json, and pictures in hallusion_bench/ beside it.

178 of the 1,129 questions are asked without a picture; VLMEvalKit's table leaves them out.
"""

from __future__ import annotations

from collections.abc import Sequence

from etils import epath

from dig_jax.benchmarks.releases import files
from dig_jax.benchmarks.row import PictureFile, Row

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
