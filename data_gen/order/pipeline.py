"""Runs the stages plan, render, verify and pack of an order; see options.py for what each does."""

from __future__ import annotations

import collections
import errno
import functools
import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from data_gen.files.staging import Job, Staging, differing_keys, lock, write_json
from data_gen.order.cost import disk_bytes
from data_gen.order.options import Order, to_json_values
from data_gen.order.progress import Progress
from data_gen.plan.pair import pair_id
from data_gen.plan.stage import PlanAttempt, cut_to_whole_lines, read_plan, write_plan
from data_gen.records.dataset import METADATA, Dataset, Pair, staged_pair
from data_gen.records.provenance import git_revision
from data_gen.records.record import features
from data_gen.records.statistics import Statistics
from data_gen.render.build import Recipe, make_pair
from data_gen.render.controller import Worker, WorkerError
from data_gen.render.crew import Crew
from data_gen.render.interpreter import Blender, NoBlender, find_blender
from data_gen.verify import Report, check_pairs, limits_for

# How long a request may take before its worker counts as hung. A core needs about 2 s per million samples;
# the rest is for machines where many processes share a core.
TIMEOUT = 60.0
TIMEOUT_PER_MEGASAMPLE = 40.0

GALLERY = "preview.html"  # in the dataset's folder

# Bytes that must stay free, so that a full disk is found before a worker trips over it.
DISK_RESERVE = 64 << 20


class Incomplete(RuntimeError):
    """The dataset was not made; the message says what is missing and how to go on."""


def run(order: Order) -> None:
    """Runs the order's stages.

    Raises Incomplete when pairs are missing, ValueError for a folder in use or of something else, NoBlender,
    and OSError when the disk is full or may not be written.
    """
    if is_complete(order):
        print(f"{order.out} is complete: {describe_counts(order.counts)}.")
        if order.preview:
            write_preview(order.out)
        return
    order.out.parent.mkdir(parents=True, exist_ok=True)
    staging = Staging(order.staging_root, dataset_spec(order), order.shard)
    if order.stages == ("pack",):
        pack_stage(order, staging, {})
        return
    failures: dict[Job, str] = {}
    with staging.locked():
        if "render" in order.stages:
            require_disk(order, sum(not staging.is_done(job) for job in order.jobs(order.shard)))
            blender = find_blender(order.blender_python, order.blender)
        if "plan" in order.stages or "render" in order.stages:
            plan_attempt = planner(order)
        if "plan" in order.stages:
            failures |= plan_stage(order, staging, plan_attempt)
        if "render" in order.stages:
            failures |= render_stage(order, staging, blender, plan_attempt)
        if "verify" in order.stages:
            verify_stage(order, staging)
    if "pack" in order.stages and order.shard.count == 1:
        pack_stage(order, staging, failures)
    elif "render" in order.stages:
        require_pairs(order, staging, order.jobs(order.shard), failures)
        print(f"{staging.folder} is rendered.")
        if order.shard.count > 1:
            print("When all shards are, the same command with --stage=pack makes the dataset.")


def dataset_spec(order: Order) -> dict[str, Any]:
    """What decides the pairs of a dataset, whatever their number."""
    return {
        "preset": to_json_values(order.preset),
        "seed": order.seed,
        "masks": order.masks,
        "depth": order.depth,
        "inputs": order.inputs.digests(),
    }


def describe_counts(counts: Mapping[str, int]) -> str:
    return f"{counts['train']} train and {counts['test']} test pairs"


def is_complete(order: Order) -> bool:
    """Whether `order.out` holds the wanted dataset. Raises ValueError when it holds anything else."""
    if not order.out.exists():
        return False
    wanted = dataset_spec(order) | {"counts": order.counts}
    try:
        found = json.loads((order.out / METADATA).read_text())
        found = {key: found.get(key) for key in wanted}
    except (OSError, ValueError, AttributeError):
        raise ValueError(
            f"--out={order.out} exists and is not a dataset made by data_gen; name a new folder"
        ) from None
    if differences := differing_keys(found, wanted):
        raise ValueError(f"--out={order.out} holds another dataset ({differences}); name a new folder")
    return True


def planner(order: Order) -> PlanAttempt:
    """The function that plans attempt n at a pair of this order.

    Raises ValueError for scenes and meshes that cannot be used, NoBlender where meshes need it.
    """
    if order.inputs.assets:  # planning has to know how large they are
        with start_worker(order, find_blender(order.blender_python, order.blender)) as worker:
            try:
                order.inputs.measure_assets(worker)
            except WorkerError as error:
                raise ValueError(f"--assets={order.inputs.assets}: {error}") from error
    return order.inputs.planner(order.preset, order.seed)


def plan_stage(order: Order, staging: Staging, plan_attempt: PlanAttempt) -> dict[Job, str]:
    """Writes the shard's plan; returns why pairs could not be planned."""
    jobs = order.jobs(order.shard)
    planned = cut_to_whole_lines(staging.plan_path)
    missing = [job for job in jobs if not staging.is_done(job) and job not in planned]
    with (staging.folder / "log.txt").open("a") as log:
        progress = Progress(len(jobs), len(jobs) - len(missing), log, noun="plans")
        return write_plan(
            staging.plan_path,
            missing,
            plan_attempt,
            on_planned=lambda done: progress.add({"rejected": done.rejected}),
            on_failure=lambda job, why: progress.say(f"{job_name(order, job)} cannot be planned: {why}"),
        )


def render_stage(
    order: Order, staging: Staging, blender: Blender, plan_attempt: PlanAttempt
) -> dict[Job, str]:
    """Renders the shard's pairs that are not staged yet; returns why pairs could not be made."""
    if not staging.plan_path.exists():
        raise ValueError(f"{staging.plan_path} does not exist: run --stage=plan with the same flags first")
    if order.device != "cpu" or blender.installed:
        require_worker(order, blender)
    staging.use_renderer({"blender": blender.version, "device": order.device})
    jobs = set(order.jobs(order.shard))
    missing = {job for job in jobs if not staging.is_done(job)}
    recipe = Recipe(plan_attempt, order.preset.accept, order.masks, order.depth)
    preset = order.preset
    with (staging.folder / "log.txt").open("a") as log:
        progress = Progress(total=len(jobs), done=len(jobs) - len(missing), log=log)
        progress.say(
            f"{len(jobs)} pairs of preset {preset.name}, {preset.width}x{preset.height}, {preset.samples} "
            f"samples; {len(jobs) - len(missing)} are rendered already; {order.workers} workers; "
            f"Blender {blender.version}"
        )
        crew = Crew(
            start_worker=lambda: start_worker(order, blender, staging.scratch),
            make=functools.partial(make_checking_disk, recipe=recipe, staging=staging),
            staging=staging,
            on_pair=progress.add,
            on_failure=progress.fail,
        )
        pairs = read_plan(staging.plan_path, missing.__contains__)
        failures = crew.run(pairs, threads=min(order.workers, len(missing)))
    skipped = [
        {"id": job_name(order, job), "seed": order.seed, "split": job[0], "index": job[1], "reason": reason}
        for job, reason in failures.items()
    ]
    lines = "".join(json.dumps(item) + "\n" for item in skipped)
    (staging.folder / "skipped.jsonl").write_text(lines)
    return failures


def request_timeout(order: Order) -> float:
    """Seconds after which a request to a worker counts as hanging."""
    megasamples = order.preset.width * order.preset.height * order.preset.samples / 1e6
    return order.time_limit or TIMEOUT + TIMEOUT_PER_MEGASAMPLE * megasamples


def require_worker(order: Order, blender: Blender) -> None:
    """Raises NoBlender when no worker starts: with a GPU that is not there, one message is enough."""
    try:
        with start_worker(order, blender) as worker:
            worker.ask({"op": "hello"})
    except WorkerError as error:
        raise NoBlender(str(error)) from error


def start_worker(order: Order, blender: Blender, scratch: Path | None = None) -> Worker:
    """A render worker for this order."""
    device = [f"--device={order.device}"] if order.device != "cpu" else []
    command = blender.command(order.threads, *device, *order.inputs.worker_flags())
    return Worker(command, timeout=request_timeout(order), scratch=scratch)


def make_checking_disk(worker: Worker, planned: Any, folder: Path, recipe: Recipe, staging: Staging) -> Any:
    """`make_pair`; a full disk is an error of the run, not of the pair."""
    free = shutil.disk_usage(staging.folder).free
    if free < DISK_RESERVE:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(staging.folder))
    return make_pair(worker, recipe, planned, folder)


def require_disk(order: Order, pairs: int) -> None:
    """Raises OSError when the disk has no room for so many pairs."""
    needed, free = disk_bytes(order.preset, pairs), shutil.disk_usage(order.staging_root).free
    if needed + DISK_RESERVE > free:
        raise OSError(
            errno.ENOSPC,
            f"{pairs} pairs take about {needed / 1e9:.1f} GB, and the disk has {free / 1e9:.1f} GB left",
            str(order.staging_root),
        )


def verify_stage(order: Order, staging: Staging) -> None:
    """Checks the shard's staged pairs from their pictures alone. Raises Incomplete when pairs fail.

    A pair whose files are damaged is forgotten, so that the next run makes it again.
    """
    done = [job for job in order.jobs(order.shard) if staging.is_done(job)]
    damaged: dict[Job, str] = {}
    read_jobs: list[Job] = []
    report = Report()
    limits = limits_for({"preset": to_json_values(order.preset)})

    def read() -> Iterator[Pair]:
        for job in done:
            try:
                pair = staged_pair(staging, job)
            except (OSError, ValueError, KeyError, TypeError) as error:
                damaged[job] = repr(error)
                continue
            read_jobs.append(job)
            yield pair

    for number, (pair, finding) in enumerate(check_pairs(read(), limits, order.workers)):
        if finding.damaged:
            damaged[read_jobs[number]] = "; ".join(finding.problems)
        else:
            report.add(pair, finding)
    for job, reason in damaged.items():
        staging.discard(job)
        print(f"{job_name(order, job)} is damaged ({reason}) and forgotten", file=sys.stderr)
    if damaged:
        raise Incomplete(f"{len(damaged)} staged pairs were damaged; the same command makes them again.")
    if report.failed:
        listed = "\n".join(f"  {name}: {'; '.join(problems)}" for name, problems in report.failed.items())
        raise Incomplete(
            f"{len(report.failed)} pairs do not show what their boxes say:\n{listed}\nThis is a fault of the "
            f"generator; the pairs are in {staging.root}. Nothing was packed."
        )
    if "pack" not in order.stages and "render" not in order.stages:
        print(report.text())


def require_pairs(order: Order, staging: Staging, jobs: list[Job], failures: Mapping[Job, str]) -> list[Job]:
    """The jobs that are missing from `jobs`, and may be. Raises Incomplete when too many are missing."""
    missing = [job for job in jobs if not staging.is_done(job)]
    if not missing:
        return []
    shown = "\n".join(
        f"  {job_name(order, job)}: {failures.get(job, 'not rendered')}" for job in missing[:10]
    )
    more = f"\n  ... and {len(missing) - 10} more" if len(missing) > 10 else ""
    text = f"{len(missing)} of {len(jobs)} pairs are missing:\n{shown}{more}"
    if len(missing) > order.max_skipped or len(missing) == len(jobs):
        raise Incomplete(
            f"{text}\nNothing was packed. The same command tries again; --max_skipped={len(missing)} packs "
            "the others."
        )
    print(f"{text}\nThey are skipped (--max_skipped={order.max_skipped}).", file=sys.stderr)
    return missing


def pack_stage(order: Order, staging: Staging, failures: Mapping[Job, str]) -> None:
    """Packs all staged pairs beside `out`, renames the folder to `out`, then removes the staging folder."""
    if not staging.shard_folders():
        raise Incomplete(f"{staging.root} holds no pairs: nothing was rendered with these flags")
    with lock(staging.root / "lock"):
        if is_complete(order):
            return
        staging.scan()
        missing = set(require_pairs(order, staging, order.jobs(), failures))
        jobs = {
            split: [(split, index) for index in range(number) if (split, index) not in missing]
            for split, number in order.counts.items()
            if number
        }
        temporary = order.out.with_name(order.out.name + ".packing")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        skipped = {job_name(order, job): failures.get(job, "not rendered") for job in sorted(missing)}
        write_dataset(order, staging, jobs, skipped, temporary)
        os.replace(temporary, order.out)
        shutil.rmtree(staging.root)
    print(f"Wrote {order.out}: {describe_counts({s: len(jobs.get(s, [])) for s in ('train', 'test')})}.")


def write_dataset(
    order: Order, staging: Staging, jobs: dict[str, list[Job]], skipped: dict[str, str], folder: Path
) -> None:
    """Writes records, metadata, card and, if asked for, the gallery."""
    from data_gen.records.card import write_card
    from data_gen.records.pack import pack  # imports TFDS: too slow for --help and for errors

    statistics = Statistics()
    rejected: collections.Counter[str] = collections.Counter()
    for pairs in jobs.values():
        for job in pairs:
            statistics.add(staged_pair(staging, job))
            rejected.update(staging.record(job)["rejected"])
    metadata = dataset_spec(order) | {
        "counts": order.counts,
        "renderer": staging.renderer(),
        "git_revision": git_revision(),
        "flags": order.flags,
        "statistics": statistics.to_json_values(),
        "rejected_attempts": dict(rejected.most_common()),
        "skipped_pairs": skipped,
    }
    shape = features(order.preset.width, order.preset.height, masks=order.masks, depth=order.depth)
    pack(staging, jobs, shape, metadata, folder)
    write_json(folder / METADATA, metadata)  # TFDS writes it in one line
    write_card(folder, metadata)
    if order.preview:
        write_preview(folder)


def write_preview(folder: Path) -> None:
    """Writes the gallery of a dataset into its folder."""
    from data_gen.records.gallery import write_gallery  # as slow as pack

    write_gallery(Dataset(folder), folder / GALLERY)


def job_name(order: Order, job: Job) -> str:
    return pair_id(order.preset, order.seed, *job)
