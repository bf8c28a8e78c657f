"""The command `python -m dig_jax.main`, noting what it samples, scores and writes: see test_multihost.py.

    python tests/helpers/distributed_run.py NOTES FLAG...

Appends a line of JSON to the file NOTES for each thing of note. An untrained model says nothing that a reward
could tell apart, so every answer is taken for boxes that its text decides.
"""

import json
import sys
import zlib
from typing import Any

import numpy as np

from dig_jax import main
from dig_jax.report import runlog
from dig_jax.rollout.sampler import Sampler
from dig_jax.tasks.boxes import text
from dig_jax.tasks.differences import reward

notes = open(sys.argv.pop(1), "a", buffering=1)  # noqa: SIM115  open as long as the process


def note(**fields: Any) -> None:
    notes.write(json.dumps(fields) + "\n")


complete, score, parse = Sampler.complete, Sampler._score, text.read_boxes
Writer = runlog.report.MetricsWriter


def noted_complete(self: Sampler, weights: Any, batch: Any, keys: Any, *args: Any, **options: Any) -> Any:
    completions = complete(self, weights, batch, keys, *args, **options)
    rollout = completions.rollout
    answers = [
        [row[mask > 0].tolist() for row, mask in zip(rows, masks, strict=True)]
        for rows, masks in zip(rollout.tokens, rollout.mask, strict=True)
    ]
    note(sampled={id: answers[row] for id, row in zip(batch.ids, batch.rows, strict=True)})
    return completions


def noted_score(self: Sampler, *args: Any) -> Any:
    scores, seconds = score(self, *args)
    note(scored=len(scores.reward))
    return scores, seconds


def noted_writer(*args: Any, **options: Any) -> Any:
    note(writer=True)
    return Writer(*args, **options)


def parse_anything(answer: str, **options: Any) -> Any:
    rng = np.random.default_rng(zlib.crc32(answer.encode()))
    corners = np.sort(rng.integers(1000, size=(2, 2, 2)), axis=1)
    return parse(json.dumps(corners.reshape(2, 4)[: 1 + len(answer) % 2].tolist()), **options)


Sampler.complete = noted_complete
Sampler._score = noted_score  # type: ignore[method-assign]
reward.read_boxes = text.read_boxes = parse_anything
runlog.report.MetricsWriter = noted_writer
main.run()
