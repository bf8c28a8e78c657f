"""Makes aligned records as an Apache Beam pipeline, by the functions of data_gen.align.

    python -m data_gen.align_beam --data=/shared/stage1 --out=gs://BUCKET/align --runner=DataflowRunner ...

Workers read the pairs from --data, a folder that each of them sees, and leave a file per pair in OUT.staging;
what is there already is kept. Copy it to a disk, then `python -m data_gen.align --data=... --out=...
--staged=OUT.staging` checks and packs it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import apache_beam as beam
from apache_beam.io.filesystems import FileSystems
from apache_beam.metrics import Metrics
from apache_beam.options.pipeline_options import PipelineOptions

from data_gen.alignment.closeups import Rendering
from data_gen.alignment.options import argument_parser, counts_of, maker_of, picture_size, rendering_of
from data_gen.alignment.records import SPEC, Maker
from data_gen.alignment.staged import make_staged, staged_file
from data_gen.files.filesystems import write
from data_gen.files.staging import differing_keys
from data_gen.files.userfiles import home_expanded
from data_gen.records.dataset import Dataset
from data_gen.render.interpreter import NoBlender

Job = tuple[str, int]  # split, index of the pair


class MakeRecords(beam.DoFn):
    """Job -> job whose records are staged."""

    def __init__(self, data: str, maker: Maker, staging: str, rendering: Rendering | None) -> None:
        self.data, self.maker, self.staging, self.rendering = data, maker, staging, rendering

    def setup(self) -> None:
        self.source = Dataset(Path(self.data))
        self.open = contextlib.ExitStack()
        self.studio = self.open.enter_context(self.rendering.studio()) if self.rendering else None

    def teardown(self) -> None:
        self.open.close()

    def process(self, job: Job) -> Iterator[Job]:
        """Makes the records of one pair, unless they are there."""
        split, index = job
        path = FileSystems.join(self.staging, *staged_file(split, index).split("/"))
        if not FileSystems.exists(path):
            write(path, make_staged(self.maker, self.source.record(split, index), split, self.studio))
            Metrics.counter("data_gen", "aligned").inc()
        yield job


def run(args: argparse.Namespace, staging: str, beam_flags: list[str]) -> int:
    """Runs the pipeline; returns the number of pairs. Raises ValueError."""
    source = Dataset(args.data)
    counts = counts_of(args, source)
    rendering = rendering_of(args)
    maker = maker_of(args, source.metadata(), picture_size(source, counts), rendering)
    spec = maker.spec(args.data.name, counts)
    path = FileSystems.join(staging, SPEC)
    if not FileSystems.exists(path):
        write(path, json.dumps(spec, indent=2).encode())
    else:
        with FileSystems.open(path) as file:
            found = json.loads(file.read())
        if found != spec:
            raise ValueError(
                f"{path} is of other records ({differing_keys(found, spec)}); name another --out"
            )
    jobs = [(split, index) for split, count in counts.items() for index in range(count)]
    with beam.Pipeline(options=PipelineOptions(beam_flags)) as pipeline:
        _ = (
            pipeline
            | "Jobs" >> beam.Create(jobs)
            | "Spread" >> beam.Reshuffle()
            | "Make" >> beam.ParDo(MakeRecords(str(args.data), maker, staging, rendering))
        )
    return len(jobs)


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns 0, or 2 for bad arguments and no dataset."""
    parser = argument_parser("data_gen.align_beam")
    args, beam_flags = parser.parse_known_args(argv)
    try:
        if not args.data or not args.out:
            raise ValueError("expected --data and --out")
        # --out may be an address; Path would swallow one of its slashes.
        given = [flag.partition("=")[2] for flag in (argv or sys.argv) if flag.startswith("--out=")]
        out = home_expanded(given[-1]) if given else str(args.out)
        staging = f"{out.rstrip('/')}.staging"
        number = run(args, staging, beam_flags)
    except (ValueError, NoBlender) as error:  # NoDataset is a ValueError
        print(f"data_gen.align_beam: {error}", file=sys.stderr)
        return 2
    print(f"the records of {number} pairs are in {staging}")
    return 0


if __name__ == "__main__":
    # By its own name, so that Beam's workers find the classes of this file in the module and not in __main__.
    from data_gen.align_beam import main as main_of_the_module

    sys.exit(main_of_the_module())
