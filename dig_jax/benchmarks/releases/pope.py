"""POPE as published (github.com/AoiDragon/POPE): output/coco/coco_pope_SPLIT.json beside COCO's val2014."""

from __future__ import annotations

from collections.abc import Sequence

from etils import epath

from dig_jax.benchmarks.releases import files
from dig_jax.benchmarks.row import PictureFile, Row

SPLITS = ("random", "popular", "adversarial")
ANSWERS = {"yes": "Yes", "no": "No"}


def rows(root: epath.Path, split: str) -> Sequence[Row]:
    """The questions of one file, which is JSON lines whatever its name says.

    Raises:
      FileNotFoundError: the file is missing.
      ValueError: a line is of another form; names it.
    """
    name = f"coco_pope_{files.split_of(split, SPLITS, 'POPE')}.json"
    path = files.find(root, name, f"POPE/output/coco/{name}", f"POPE/coco/{name}", f"POPE/{name}")
    pictures = files.find(
        root, "pictures val2014", "POPE/val2014", "POPE/output/coco/val2014", "coco/val2014", "COCO/val2014"
    )
    found = [
        Row(
            index=f"{split}-{record.number('question_id')}",
            images=(PictureFile(pictures / record.text("image")),),
            question=record.text("text"),
            answer=record.one_of("label", ANSWERS),
            category=split,
            splits=(split,),
            fields=record.fields() | {"category": split},
        )
        for record in files.jsonl(path)
    ]
    return found


def official_answer(text: str) -> str:
    """What the official script takes an answer for: "No" if its first sentence says no or not, else "Yes".

    "I am not sure" is No so, and an empty answer is Yes.
    """
    sentence = text.partition(".")[0].replace(",", "")
    return "No" if {"No", "not", "no"} & set(sentence.split(" ")) else "Yes"
