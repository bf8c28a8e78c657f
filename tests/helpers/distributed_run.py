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
from dig_jax.tasks.differences import reward
from dig_jax.tasks.differences.task import Differences

notes = open(sys.argv.pop(1), "a", buffering=1)  # noqa: SIM115  open as long as the process


def note(**fields: Any) -> None:
    notes.write(json.dumps(fields) + "\n")


complete, score, parse = Sampler.complete, Differences.score, reward.read_boxes
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


def noted_score(self: Differences, texts: list[str], examples: Any) -> Any:
    note(scored=len(texts))
    return score(self, texts, examples)


def noted_writer(*args: Any, **options: Any) -> Any:
    note(writer=True)
    return Writer(*args, **options)


def parse_anything(text: str, **options: Any) -> Any:
    corners = np.sort(np.random.default_rng(zlib.crc32(text.encode())).integers(1000, size=(2, 2, 2)), axis=1)
    return parse(json.dumps(corners.reshape(2, 4)[: 1 + len(text) % 2].tolist()), **options)


Sampler.complete = noted_complete
Differences.score = noted_score  # type: ignore[method-assign]
reward.read_boxes = parse_anything
runlog.report.MetricsWriter = noted_writer
main.run()
