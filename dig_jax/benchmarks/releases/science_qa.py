"""ScienceQA as published: problems.json, pid_splits.json and images/SPLIT/ID/image.png.

The benchmark, ScienceQA-IMG, is those questions of a split that have a picture.
"""

from __future__ import annotations

from collections.abc import Sequence

from etils import epath

from dig_jax.benchmarks.releases import files
from dig_jax.benchmarks.row import PictureFile, Row
from dig_jax.machines import textfile

SPLITS = ("test", "val")
_FOLDERS = ("ScienceQA", "scienceqa", "ScienceQA/data/scienceqa", "data/scienceqa")


def rows(root: epath.Path, split: str) -> Sequence[Row]:
    """The questions of a split that have a picture, in the order of pid_splits.json.

    Raises:
      FileNotFoundError: a file is missing.
      ValueError: an entry is of another form; names it.
    """
    files.split_of(split, SPLITS, "ScienceQA")
    name = "problems.json"
    path = files.find(root, name, *(f"{at}/{name}" for at in _FOLDERS))
    problems = textfile.read_json(path)
    where = path.parent / "pid_splits.json"
    if not where.exists():
        raise FileNotFoundError(f"{where} is missing: it says which questions are of the split {split}")
    ids = files.Record(textfile.read_json(where), str(where)).texts(split)
    pictures = files.find(path.parent, f"pictures images/{split}", f"images/{split}", f"ScienceQA/{split}")
    found = []
    for id in ids:
        place = f"{path}, {id}"
        if not isinstance(problems.get(id), dict):
            raise ValueError(f"{place}: there is no such problem, and {where} names it for {split}")
        record = files.Record(problems[id], place)
        if record.values.get("image"):
            found.append(_row(record, id, pictures / id / record.text("image"), split))
    return found


def _row(record: files.Record, id: str, picture: epath.Path, split: str) -> Row:
    options = files.lettered(record.texts("choices"), record.place)
    number = record.number("answer")
    if not 0 <= number < len(options):
        raise ValueError(f"{record.place}: answer is {number}, and there are {len(options)} choices")
    subject = record.text("subject", default="")
    return Row(
        index=id,
        images=(PictureFile(picture),),
        question=record.text("question"),
        options=options,
        answer=list(options)[number],
        hint=record.text("hint", default=""),
        category=subject,
        splits=(split,),
        fields={
            "category": subject,
            "l2-category": record.text("topic", default=""),
            "split": split,
        },
    )
