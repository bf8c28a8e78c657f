"""From the files of runs to figures: one record per arm and seed."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dig_jax.data.records import open_pairs
from dig_jax.report import read_evals, read_lines
from study.arms import FINAL
from study.jobs import Place, plan

FOUND_IOU = 0.5  # a true box is found when a box of the answer overlaps it this much
MAIN = "mixed"  # the main evaluation of configs/scratch.py, and what it is in runs from before it had a name
Record = dict[str, Any]
Truth = dict[str, tuple[tuple[str, ...], np.ndarray]]  # id of a pair -> kinds, boxes [M, 4]


def measure(place: Place, names: Sequence[str], seeds: Sequence[int], quick: bool) -> list[Record]:
    """A record of each run that is done: arms, and the warm-ups they start from.

    Returns:
        Records with `name`, `seed`, `minutes` (of its steps), `stages` (held-out figures at the start and at
        the end of each stage), `curve` (main figures of every evaluation), the figures of
        `answer_figures`, and `mismatched`: those of answers to pairs whose image A is that of another, None
        where the study did not ask.
    """
    pairs = open_pairs(place.data / FINAL, "test")
    truth = {pair.id: (pair.kinds, pair.boxes) for pair in (pairs[index] for index in range(len(pairs)))}
    jobs = plan(place, names, seeds, quick)
    trained = dict.fromkeys(job.name.rpartition("_")[0] for job in jobs if _is_training(job.command))
    records = []
    for name in trained:
        for seed in seeds:
            if not place.answers(name, seed).exists():
                continue
            other = place.answers(name, seed, mismatched=True)
            records.append(
                {
                    "name": name,
                    "seed": seed,
                    "minutes": minutes(place.run(name, seed)),
                    "stages": stage_figures(place.run(name, seed)),
                    "curve": curve(place.run(name, seed)),
                    **answer_figures(json.loads(place.answers(name, seed).read_text()), truth),
                    "mismatched": json.loads(other.read_text())["metrics"] if other.exists() else None,
                }
            )
    return records


def _is_training(command: Sequence[str]) -> bool:
    return "dig_jax.main" in command


def stage_figures(workdir: Path) -> list[Record]:
    """Held-out figures at the start and at the end of every stage of a run, each with its stage's name."""
    order = json.loads((workdir / "config.json").read_text())["curriculum"]["order"]
    evals = read_evals(workdir, MAIN)
    ends = {int(line["stage"]): line for line in evals}
    return [{"name": "start", **evals[0]}] + [
        {"name": order[number - 1], **line} for number, line in ends.items()
    ]


def curve(workdir: Path) -> list[Record]:
    """The main figures of every evaluation of a run."""
    names = ("step", f"{MAIN}/f1", f"{MAIN}/reward_sampled")
    return [{key: line.get(key) for key in names} for line in read_evals(workdir, MAIN)]


def minutes(workdir: Path) -> float:
    """The minutes that a run's steps took: without start, compilation and evaluations, stopped or not."""
    lines = read_lines(workdir / "metrics.jsonl")
    return sum(max(0.0, line["time/step"] - line["time/compile"]) for line in lines) / 60


def answer_figures(scored: Record, truth: Truth) -> Record:
    """Figures of the greedy answers to the final pairs, from what `dig_jax.evaluate --out` wrote.

    Returns:
        `metrics` as printed there; `numbers`, F1 by number of differences; `kinds`, the share found by kind
        of difference; `counts`, how many pairs or differences each of these is of; `identical`, of the pairs
        without a difference: the share answered `right`, and `false_boxes` per pair.
    """
    answers = scored["answers"]
    numbers: dict[str, list[float]] = {}
    kinds: dict[str, list[bool]] = {}
    for answer in answers:
        numbers.setdefault(str(int(answer["num_true"])), []).append(answer["f1"])
        names, boxes = truth[answer["id"]]
        for kind, found in zip(names, is_found(boxes, np.array(answer["boxes"])), strict=True):
            kinds.setdefault(kind, []).append(bool(found))
    identical = [answer for answer in answers if answer["num_true"] == 0]
    return {
        "metrics": scored["metrics"],
        "numbers": {name: float(np.mean(numbers[name])) for name in sorted(numbers)},
        "kinds": {name: float(np.mean(kinds[name])) for name in sorted(kinds)},
        "counts": {name: len(values) for name, values in sorted((numbers | kinds).items())},
        "identical": {
            "right": _mean([answer["f1"] for answer in identical]),
            "false_boxes": _mean([answer["num_predicted"] for answer in identical]),
        },
    }


def is_found(true_boxes: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Whether each true box [M, 4] has an IoU of `FOUND_IOU` with some box [N, 4] of an answer: bool [M]."""
    if not boxes.size:
        return np.zeros(len(true_boxes), bool)
    low = np.maximum(true_boxes[:, None, :2], boxes[None, :, :2])
    high = np.minimum(true_boxes[:, None, 2:], boxes[None, :, 2:])
    shared = np.prod(np.clip(high - low, 0, None), axis=-1)  # [M, N]
    areas = [np.prod(part[:, 2:] - part[:, :2], axis=-1) for part in (true_boxes, boxes)]
    union = areas[0][:, None] + areas[1][None] - shared
    return np.any(shared >= FOUND_IOU * union - 1e-6, axis=1)


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None
