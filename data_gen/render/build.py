"""Makes one pair: renders its plan, and plans it again while the rendered scenes are rejected."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data_gen.plan.pair import Rejected
from data_gen.plan.stage import PlanAttempt, Planned, plan_next
from data_gen.render.controller import Worker
from data_gen.render.pair import render_pair
from data_gen.scenes.presets import Acceptance


@dataclasses.dataclass(frozen=True)
class FinishedPair:
    """PNG files by the name of their feature ("image_a", ...), and the rest of the record (see record.py).

    Beyond its features the record has `rejected`, the reasons of the attempts before this one.
    """

    pictures: Mapping[str, bytes]
    record: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How the pairs of a dataset are made.

    Attributes:
      plan_attempt: plans attempt n at a pair.
      accept: when a rendered pair is good enough.
      masks, depth: whether the record has them.
    """

    plan_attempt: PlanAttempt
    accept: Acceptance
    masks: bool = False
    depth: bool = False


def make_pair(worker: Worker, recipe: Recipe, planned: Planned, folder: Path) -> FinishedPair:
    """Makes one pair; `folder` is for the renderer's files.

    Raises PairFailed when every attempt is rejected, WorkerError when the renderer fails.
    """
    while True:
        try:
            pair = render_pair(
                worker, planned.plan, recipe.accept, folder, masks=recipe.masks, depth=recipe.depth
            )
        except Rejected as reason:
            planned = plan_next(recipe.plan_attempt, planned.job, (*planned.rejected, str(reason)))
            continue
        pictures = {"image_a": pair.pictures[0], "image_b": pair.pictures[1], **pair.extras}
        return FinishedPair(pictures, {**pair.record, "rejected": list(planned.rejected)})
