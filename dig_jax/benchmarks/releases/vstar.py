"""V* Bench as published: direct_attributes/ and relative_position/, a picture and a JSON file of one name.

The first option of a JSON file is always the right one, so options are never shown in that order: where
test_questions.jsonl is there, its order counts, else each question's options are shuffled by a fixed seed.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence

from etils import epath

from dig_jax.benchmarks.releases import files
from dig_jax.benchmarks.row import PictureFile, Row
from dig_jax.machines import textfile

CATEGORIES = ("direct_attributes", "relative_position")
_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
_SEED = 0
_OPTION = re.compile(r"^\(([A-Z])\)[ \t]*(.+?)[ \t]*$", re.MULTILINE)


def rows(root: epath.Path, split: str) -> Sequence[Row]:
    """The questions of both folders.

    Raises:
      FileNotFoundError: there is no folder of questions.
      ValueError: a file or line is of another form; names it.
    """
    name = "direct_attributes"
    base = files.find(root, name, f"vstar_bench/{name}", f"VStarBench/{name}", f"{name}/").parent
    listed = base / "test_questions.jsonl"
    found = _listed(listed, split) if listed.exists() else _shuffled(base, split)
    return list(found)


def _listed(path: epath.Path, split: str) -> Iterator[Row]:
    for record in files.jsonl(path):
        category = record.text("category")
        if category not in CATEGORIES:  # the hub has other folders, which are not part of the benchmark
            continue
        text = record.text("text")
        options = dict(_OPTION.findall(text))
        if list(options) != list(files.lettered(list(options.values()), record.place)):
            raise ValueError(f"{record.place}: text has no lines (A) ..., (B) ...: {text[:80]!r}")
        yield Row(
            index=record.text("question_id"),
            images=(PictureFile(path.parent / record.text("image")),),
            question=text[: text.index("(A)")].strip(),
            options=options,
            answer=files.right_letter(record.text("label"), options, record.place),
            category=category,
            splits=(split,),
            fields={"category": category},
        )


def _shuffled(base: epath.Path, split: str) -> Iterator[Row]:
    for category in CATEGORIES:
        folder = files.find(base, f"folder {category}", category)
        pictures = {path.stem: path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES}
        for path in sorted(folder.glob("*.json")):
            record = files.Record(textfile.read_json(path), str(path))
            right, *_ = texts = list(record.texts("options"))
            # Of its own seed, so that the order depends on no other file; the same on every machine.
            random.Random(f"{_SEED}/{category}/{path.stem}").shuffle(texts)
            options = files.lettered(texts, str(path))
            yield Row(
                index=f"{category}/{path.stem}",
                images=(PictureFile(pictures.get(path.stem, path.with_suffix(".jpg"))),),
                question=record.text("question"),
                options=options,
                answer=next(letter for letter, text in options.items() if text == right),
                category=category,
                splits=(split,),
                fields={"category": category},
            )
