"""The stage *plan*: a file with the scenes and changes of every pair, from the seed alone.

One JSON object per line, in the order in which pairs are rendered: a pair plan (see plan.to_dict) and the
reasons for which earlier attempts were turned down. A pair's line depends on its settings, seed, split and
index, never on workers, shards or other pairs.
"""

from __future__ import annotations

import collections
import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from data_gen.files.staging import Job
from data_gen.plan import pair as plans
from data_gen.plan.pair import PairPlan, Rejected

MAX_ATTEMPTS = 100  # at a pair whose scenes are rejected
MAX_WITHOUT_ROOM = 10  # of those, attempts in which the objects found no place
MAX_FIRST_FAILURES = 3  # pairs at the start that cannot be planned, before the rest is not tried
NO_ROOM = "objects do not fit"
NO_ROOM_ADVICE = "ask for fewer objects or smaller ones, or give them more ground (the preset's `reach`)"

PlanAttempt = Callable[[Job, int], PairPlan]  # plans attempt n at a pair, or raises Rejected


class PairFailed(RuntimeError):
    """A pair that could not be made; the message says which seed, split and index, and why."""


@dataclasses.dataclass(frozen=True)
class Planned:
    """A pair's plan and the reasons of the attempts before it, `plan.attempt` of them."""

    plan: PairPlan
    rejected: tuple[str, ...] = ()

    @property
    def job(self) -> Job:
        return self.plan.split, self.plan.index


def plan_next(plan_attempt: PlanAttempt, job: Job, rejected: Sequence[str] = ()) -> Planned:
    """The first attempt at a pair, after those in `rejected`, that planning accepts.

    Raises PairFailed when there have been too many attempts.
    """
    reasons = list(rejected)
    while len(reasons) < MAX_ATTEMPTS and reasons.count(NO_ROOM) < MAX_WITHOUT_ROOM:
        try:
            return Planned(plan_attempt(job, len(reasons)), tuple(reasons))
        except Rejected as reason:
            reasons.append(str(reason))
        except PairFailed as error:
            raise PairFailed("; ".join([*reasons, str(error)])) from None
    counts = ", ".join(f"{reason} {count}x" for reason, count in collections.Counter(reasons).most_common())
    advice = f"; {NO_ROOM_ADVICE}" if reasons.count(NO_ROOM) >= MAX_WITHOUT_ROOM else ""
    raise PairFailed(f"all {len(reasons)} attempts rejected ({counts}){advice}")


def write_plan(
    path: Path,
    jobs: Sequence[Job],
    plan_attempt: PlanAttempt,
    on_planned: Callable[[Planned], None],
    on_failure: Callable[[Job, str], None],
) -> dict[Job, str]:
    """Appends the jobs, none of which the file has, and says why pairs could not be planned.

    Gives up after the first pairs when none of them can be planned. The callbacks are told of every pair.
    """
    count = 0
    failures: dict[Job, str] = {}
    with path.open("a") as file:
        for job in jobs:
            try:
                planned = plan_next(plan_attempt, job)
            except PairFailed as error:
                failures[job] = str(error)
                on_failure(job, str(error))
                if len(failures) >= MAX_FIRST_FAILURES and not count:
                    break
                continue
            file.write(to_line(planned))
            count += 1
            on_planned(planned)
    return failures


def to_line(planned: Planned) -> str:
    line = {**plans.to_dict(planned.plan), "rejected": list(planned.rejected)}
    return json.dumps(line, separators=(",", ":")) + "\n"


def read_plan(path: Path, wanted: Callable[[Job], bool]) -> Iterator[Planned]:
    """The wanted pairs of a plan file, read as they are asked for.

    Raises ValueError, naming the line, for one that is no valid plan.
    """
    with path.open() as file:
        for number, text in enumerate(file, start=1):
            try:
                line = json.loads(text)
                rejected = tuple(line.pop("rejected"))
                if wanted((line["split"], line["index"])):
                    yield Planned(plans.from_dict(line), rejected)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise ValueError(f"{path}, line {number}: not a planned pair ({error!r})") from error


def cut_to_whole_lines(path: Path) -> set[Job]:
    """The jobs that the file has, after cutting off what a killed run left behind its last whole line."""
    jobs: set[Job] = set()
    if not path.exists():
        return jobs
    end = 0
    with path.open("rb") as file:
        for text in file:
            try:
                line = json.loads(text)
            except ValueError:
                break
            if not text.endswith(b"\n"):
                break
            jobs.add((line["split"], line["index"]))
            end += len(text)
    with path.open("r+b") as file:
        file.truncate(end)
    return jobs
