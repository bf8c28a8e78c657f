"""From the files of the study of object crops to figures: one record per run."""

from __future__ import annotations

import ast
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from etils import epath

from dig_jax.benchmarks import scores
from dig_jax.benchmarks.row import Mark, Row
from dig_jax.data.encode import ExampleEncoder
from dig_jax.data.example import Turn
from dig_jax.data.images import ImageConfig
from dig_jax.data.records import open_records
from dig_jax.data.tokenizer import load_tokenizer
from dig_jax.machines.folder import to_path
from dig_jax.measure import folder
from dig_jax.models import families
from dig_jax.report import read_evals
from dig_jax.tasks.aligned import AlignedSource, text_of, with_boxes
from dig_jax.tasks.boxes.text import BoxFormat
from study.measure import minutes

Record = dict[str, Any]
SAMPLED = 500  # questions of a kind whose tokens are counted


def tokens(model: Path, data: Path, step: int) -> dict[str, float]:
    """Kind -> the mean number of tokens of a question with its pictures and its answer, in training.

    Args:
        model: folder of a Hugging Face model.
        data: dataset of aligned records.
        step: that numbers of boxes are multiples of.
    """
    path, tokenizer = to_path(model), load_tokenizer(to_path(model))
    images, architecture = ImageConfig.from_folder(path), families.load_config(path)
    boxes = BoxFormat("unit", step, lambda size: size)
    encoder = ExampleEncoder(tokenizer, images, architecture, max_answer_length=0)
    records = open_records(data, "train")
    kinds = {
        kind.decode() for n in range(len(records)) for kind in records.read(n, ("items",))["items"]["kind"]
    }
    found = {}
    for kind in sorted(kinds):
        source = AlignedSource(records, (kind,), "", lambda turns, size: text_of(turns[-1]), boxes)
        shapes = [shape for shape in source.shapes()[:SAMPLED] if shape is not None]
        asked = [encoder.need(shape).prompt_length for shape in shapes]
        targets = [with_boxes((Turn("", (source[n].target,)),), (1, 1), boxes)[0] for n in range(len(shapes))]
        said = [len(tokenizer.encode(text_of(target))) + 1 for target in targets]
        found[kind] = float(np.mean(asked) + np.mean(said))
    return found


def records(place: Path) -> list[Record]:
    """A record of every run that is done: `arm`, `seed`, `minutes` of its steps, and its figures."""
    found = []
    for answers in sorted((place / "answers").glob("*")):
        arm, _, seed = answers.name.rpartition("_")
        if (answers / "align_objects.json").exists():  # the last one that is asked
            run = place / "runs" / answers.name
            facts = {"arm": arm, "seed": int(seed), "minutes": minutes(run)}
            found.append(facts | figures(epath.Path(answers)))
    for run in sorted((place / "runs").glob("dig_*")):
        found += _of_pairs(run)
    return found


def figures(answers: epath.Path) -> Record:
    """Shares of 0 to 1 of the answers of a run's end; `rec` is the primary one."""
    _, marked = folder.read(answers)
    _, rows, marks = marked["align_phrases"]
    found = {
        "rec": scores.hits(marks),
        "iou": scores.mean(mark.values["iou"] for mark in marks),
        "pointing": scores.mean(_points(row, mark) for row, mark in zip(rows, marks, strict=True)),
        "unread": scores.mean(mark.unparsed for mark in marks),
        "phrases": len(rows),
        "columns": _columns(rows, marks),
    }
    found["I-C"] = scores.hits(marked["align_crops"][2])
    _, rows, marks = marked["align_choices"]
    found |= {kind: scores.hits(own) for kind, own in scores.by(rows, marks, scores.category).items()}
    return found | {"exist": scores.hits(marked["align_objects"][2])}


def _columns(rows: Sequence[Row], marks: Sequence[Mark]) -> dict[str, float]:
    return {name: scores.hits(own) for name, own in scores.by(rows, marks, lambda row: row.splits[0]).items()}


def _points(row: Row, mark: Mark) -> bool:
    """Whether the centre of the answer's box lies in the true one."""
    if not mark.answer or row.size is None:
        return False
    height, width = row.size
    x0, y0, x1, y1 = np.divide(ast.literal_eval(mark.answer), [width, height] * 2)
    left, top, right, bottom = row.boxes[0]
    return bool(left <= (x0 + x1) / 2 < right and top <= (y0 + y1) / 2 < bottom)


def _of_pairs(run: Path) -> list[Record]:
    """F1 of held-out pairs before and after GRPO; nothing of a run that has not come to its end."""
    config = run / "config.json"
    order = json.loads(config.read_text())["curriculum"]["order"] if config.exists() else []
    ends = {int(line["stage"]): line["mixed/f1"] for line in read_evals(run, "mixed")} if order else {}
    arm, _, seed = run.name.rpartition("_")
    if len(ends) < len(order) or not order:
        return []
    facts = {"arm": arm, "seed": int(seed), "minutes": minutes(run)}
    return [facts | {"before": ends[1], "after": ends[len(order)]}]
