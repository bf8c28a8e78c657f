"""Visual Spatial Reasoning as published: data/splits/KIND/PART.jsonl, pictures of COCO 2017 in one folder."""

from __future__ import annotations

from collections.abc import Sequence

from etils import epath

from dig_jax.benchmarks.releases import files
from dig_jax.benchmarks.row import PictureFile, Row

_ANSWERS = {"0": "No", "1": "Yes"}

# VLMEvalKit asks the same of a caption; the release has statements, which are true or false.
_QUESTION = "Is the following statement about the image true? {caption}"

KINDS = ("zeroshot", "random")
SPLITS = tuple(f"{kind}_{part}" for kind in KINDS for part in ("test", "dev", "train"))


def rows(root: epath.Path, split: str) -> Sequence[Row]:
    """The captions of one split, such as "zeroshot_test"; a kind alone means its test part.

    Raises:
      FileNotFoundError: the file is missing.
      ValueError: a line is of another form; names it.
    """
    wanted = files.split_of(f"{split}_test" if split in KINDS else split, SPLITS, "VSR")
    kind, part = wanted.split("_")
    name = f"splits/{kind}/{part}.jsonl"
    path = files.find(root, name, f"VSR/{name}", f"VSR/data/{name}")
    pictures = files.find(root, "pictures", "VSR/images", "VSR/data/images", "VSR/trainval2017")
    found = [
        Row(
            index=f"{split}-{number}",
            images=(PictureFile(pictures / record.text("image")),),
            question=_QUESTION.replace("{caption}", record.text("caption")),
            answer=record.one_of("label", _ANSWERS),
            category=record.text("relation"),
            splits=(split,),
            fields=record.fields(),
        )
        for number, record in enumerate(files.jsonl(path))
    ]
    return found
