"""The stages plan and render as an Apache Beam pipeline, for Dataflow, Flink or Spark.

    python -m data_gen.beam --preset=stage1 --num_pairs=1600 --out=gs://BUCKET/stage1 \\
        --runner=DataflowRunner --project=... --sdk_container_image=IMAGE_WITH_BLENDER_AND_THIS_PACKAGE

Pairs go to OUT.staging in the form that every other run leaves (see staging.py), so a stopped pipeline goes
on where it was. Copy the folder to a disk if it is not on one; `python -m data_gen ... --stage=pack` makes
the dataset. On one machine plain `python -m data_gen` is simpler, and shows its progress.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.io.filesystems import FileSystems
from apache_beam.metrics import Metrics
from apache_beam.options.pipeline_options import PipelineOptions

from data_gen.files.filesystems import write
from data_gen.files.staging import Job, Shard, differing_keys
from data_gen.files.userfiles import home_expanded
from data_gen.order.options import Order, argument_parser, read_order
from data_gen.order.pipeline import dataset_spec, planner, start_worker
from data_gen.plan.stage import PairFailed, plan_next
from data_gen.render.build import FinishedPair, Recipe, make_pair
from data_gen.render.controller import WorkerError
from data_gen.render.crew import MAX_WORKER_FAILURES
from data_gen.render.interpreter import NoBlender, find_blender

SKIPPED = "skipped"  # tag of the output with pairs that could not be made


class MakePair(beam.DoFn):
    """Job -> job of a pair that is staged. Owns a render worker, a process beside Beam's own.

    bpy runs in none of Beam's threads and processes: there it crashes when it renders twice at once, and when
    its process ends.
    """

    def __init__(self, order: Order, staging: str) -> None:
        self.order, self.staging = order, staging

    def setup(self) -> None:
        blender = find_blender(self.order.blender_python, self.order.blender)
        renderer = {"blender": blender.version, "device": self.order.device}
        require_same(FileSystems.join(self.staging, "renderer.json"), renderer)
        self.worker = start_worker(self.order, blender)
        self.folder = tempfile.TemporaryDirectory(prefix="data_gen_")
        self.order.inputs.load_kinds()
        order = self.order
        self.recipe = Recipe(planner(order), order.preset.accept, order.masks, order.depth)

    def process(self, job: Job) -> Iterator[Any]:
        """Makes one pair, unless it is there already; a pair that fails goes to the output SKIPPED."""
        split, index = job
        name = FileSystems.join(self.staging, split, f"{index:06d}")
        if not FileSystems.exists(f"{name}.json"):
            try:
                pair = self.make(job)
            except (PairFailed, WorkerError) as error:
                Metrics.counter("data_gen", "skipped").inc()
                skipped = {"seed": self.order.seed, "split": split, "index": index, "reason": str(error)}
                yield beam.pvalue.TaggedOutput(SKIPPED, json.dumps(skipped))
                return
            for picture, png in pair.pictures.items():
                write(f"{name}.{picture}.png", png)
            write(f"{name}.json", json.dumps(pair.record, separators=(",", ":")).encode())
            Metrics.counter("data_gen", "made").inc()
            Metrics.counter("data_gen", "attempts_rejected").inc(len(pair.record["rejected"]))
        yield job

    def make(self, job: Job) -> FinishedPair:
        """Makes one pair, starting the worker again when it dies or hangs. Raises PairFailed, WorkerError."""
        planned = plan_next(self.recipe.plan_attempt, job)
        for _ in range(MAX_WORKER_FAILURES - 1):
            try:
                return make_pair(self.worker, self.recipe, planned, Path(self.folder.name))
            except WorkerError:
                Metrics.counter("data_gen", "worker_failures").inc()
        return make_pair(self.worker, self.recipe, planned, Path(self.folder.name))

    def teardown(self) -> None:
        self.worker.__exit__(None, None, None)
        self.folder.cleanup()


def build(pipeline: beam.Pipeline, order: Order, staging: str) -> None:
    """Adds the stages to a pipeline."""
    made = (
        pipeline
        | "Jobs" >> beam.Create(order.jobs())
        | "Spread" >> beam.Reshuffle()
        | "Make" >> beam.ParDo(MakePair(order, staging)).with_outputs(SKIPPED, main="made")
    )
    path = FileSystems.join(staging, "skipped.jsonl")
    _ = made[SKIPPED] | "Skipped" >> beam.io.WriteToText(path, shard_name_template="")


def require_same(path: str, wanted: dict[str, Any]) -> None:
    """Writes a JSON file, or raises ValueError when it is there and says something else."""
    if not FileSystems.exists(path):
        write(path, json.dumps(wanted, indent=2).encode() + b"\n")
        return
    with FileSystems.open(path) as file:
        found = json.loads(file.read())
    if found != wanted:
        differences = differing_keys(found, wanted)
        raise ValueError(f"{path} is of another dataset ({differences}); name another --out")


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns 0, 1 (pairs are missing) or 2 (bad arguments, no Blender)."""
    parser = argument_parser("data_gen.beam")
    args, beam_flags = parser.parse_known_args(argv)
    try:
        order = read_order(args)
        # --out may be an address; Path would swallow one of its slashes.
        out = next(
            home_expanded(flag.partition("=")[2]) for flag in (argv or sys.argv) if flag.startswith("--out=")
        )
        staging = FileSystems.join(f"{out.rstrip('/')}.staging", Shard().name)
        require_same(FileSystems.join(staging, "spec.json"), dataset_spec(order))
        with beam.Pipeline(options=PipelineOptions(beam_flags)) as pipeline:
            build(pipeline, order, staging)
    except (ValueError, NoBlender, StopIteration) as error:
        print(f"data_gen.beam: {error}", file=sys.stderr)
        return 2
    jobs = order.jobs()
    (matches,) = FileSystems.match([FileSystems.join(staging, "t*", "*.json")])
    found = {match.path for match in matches.metadata_list}
    missing = [job for job in jobs if FileSystems.join(staging, job[0], f"{job[1]:06d}.json") not in found]
    print(f"{len(jobs) - len(missing)} of {len(jobs)} pairs are in {staging}")
    return 1 if missing else 0


if __name__ == "__main__":
    # By its own name, so that Beam's workers find the classes of this file in the module and not in __main__.
    from data_gen.beam import main as main_of_the_module

    sys.exit(main_of_the_module())
