"""Measures a model on benchmarks:

    python -m dig_jax.evaluate --model=DIR --benchmarks=NAME,NAME --data_root=DIR --out=DIR

The model is a Hugging Face folder of any family, or a training workdir. Benchmarks are read from files below
--data_root, as docs/benchmarks.md says: nothing is fetched. Answers are drawn as the model's makers publish,
greedily with --greedy, and saved one by one: the same command goes on where it was stopped, on any number of
devices. Answers of other settings or another model are never mixed in.

In --out: results.md and results.json (scores with intervals, and what stands beside them), for each
benchmark NAME.jsonl (answers as they came), NAME.json (rows, answers, hits, reasons) and VLMEvalKit's tables.

--compare=DIR, another such folder, writes differences.md and differences.json: what this model gained over
that one, with intervals and McNemar's test; without --model, of two folders that are there already.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import logging
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from etils import epath
from flax import nnx
from ml_collections import ConfigDict

from dig_jax.benchmarks import opening, registry
from dig_jax.benchmarks.pixels import shrinking
from dig_jax.benchmarks.row import Row
from dig_jax.data.buckets import Bucket
from dig_jax.machines import gathering
from dig_jax.machines.folder import to_path, writable_folder
from dig_jax.measure import folder, model, results, saved
from dig_jax.measure.drawing import Part, RowSource
from dig_jax.measure.model import Model
from dig_jax.measure.results import result_of
from dig_jax.measure.summary import summary_of, versions
from dig_jax.run import cli, loading, model_folder
from dig_jax.run.loading import Opened

logger = logging.getLogger("dig_jax")

QUIET_SECONDS = 5.0  # between two lines of progress, at least


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    args = _arguments(argv)
    cli.log_to_terminal()
    with cli.user_errors():
        out = to_path(args.out)
        names = _names(args.benchmarks)
    if args.model:
        with cli.user_errors():
            opened = loading.open_model(model_folder.find_model(args.model))
            config = _config(args, opened)
        with cli.processes(args, config.distributed.silence_seconds), cli.user_errors():
            _measure(args, config, opened, names, out)
            writes = jax.process_index() == 0
    else:
        writes = True
    if args.compare and writes:
        with cli.user_errors():
            differences = folder.write_differences(out, to_path(args.compare), list(names))
            print((out / "differences.md").read_text(), file=sys.stderr)
            print(json.dumps({one.name: one.record() for one in differences}), flush=True)


def _measure(
    args: argparse.Namespace,
    config: ConfigDict,
    opened: Opened,
    names: dict[str, tuple[str, ...]],
    out: epath.Path,
) -> None:
    """Asks a model all benchmarks, one after another, and writes what comes of it."""
    given = {name: getattr(args, name) for name in _SAMPLING if getattr(args, name) is not None}
    settings = model.sampling_settings(config, opened, given)
    how = model.how_of(settings, opened.tokenizer, args.batch_rows, args.batch_patches)
    asked = {name: _rows(name, splits, args) for name, splits in names.items()}  # before the weights are read
    writes = jax.process_index() == 0
    if writes:
        writable_folder(out / "results.json", "--out")
    one, weights, fingerprint = model.load(config, opened, how)
    facts = {**one.facts, "weights": fingerprint}
    if writes:
        folder.check_model(out, facts)
    device = {"kind": jax.devices()[0].device_kind, "count": jax.device_count()}
    for name, (rows, complete, warnings) in asked.items():
        benchmark = registry.benchmark(name)
        source = one.source(benchmark, rows)
        told = {"benchmark": name, "model": facts, "sampling": settings, "rows": len(rows)}
        told |= {"prompts": source.digest, "versions": versions(), "device": device}
        answers = _draw(one, weights, source, folder.answers_file(out, name), told)
        if not writes:
            continue
        result = result_of(benchmark, rows, answers, one.reader)
        summary = summary_of(result, source, one, told, complete, warnings)
        folder.write(out, opened.folder.name, facts, result, summary)
        for warning in (*(text for text in complete if "partial" in text), *warnings):
            print(f"warning: {benchmark.title}: {warning}", file=sys.stderr)
        print(json.dumps({name: {"scores": result.scores, **result.figures()}}), flush=True)
    if writes:
        print(f"results: {out / 'results.md'}", file=sys.stderr)


def _draw(
    one: Model, weights: nnx.State, source: RowSource, path: epath.Path, told: dict[str, Any]
) -> dict[str, saved.Answer]:
    """Answers to all rows, those that were saved before and the rest; on process 0 alone all of them."""
    indices = [source.index(number) for number in range(len(source))]
    parts = one.desk.parts(source)
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(saved.opened(path, told)) if jax.process_index() == 0 else None
        known = file.answers if file else {}
        done = np.array([index in known for index in indices])
        done = gathering.from_owners(done.astype(np.int32), np.zeros(len(done), int)).astype(bool)
        progress = Progress(source.name, len(indices), int(done.sum()))
        if file:
            logger.info("%s: %s", source.name, shrinking(source.sizes.values(), one.images))
            progress.begin(parts, one.row_bytes)
        for answers in one.desk.answers(weights, source, parts, done):
            if file:
                file.add(answers)
                progress.add(len(answers))
        return file.answers if file else {}


class Progress:
    """Lines that say how far a benchmark is, how fast it goes and how long it will take.

    Args:
      name: of the benchmark.
      total: rows.
      done: of them, before this command.
    """

    def __init__(self, name: str, total: int, done: int):
        self._name, self._total, self._done = name, total, done
        self._began = self._said = time.monotonic()
        self._added = 0

    def begin(self, parts: Sequence[Part], row_bytes: Callable[[Bucket], int]) -> None:
        """Says what is to be done, what rows are padded to, and what memory one of them takes at least."""
        if self._done:
            logger.info("%s: goes on after %d of %d rows", self._name, self._done, self._total)
        for part in parts:
            logger.info(
                "%s: %d rows in the bucket of %s, %d at a time, %.3g GiB a row at least",
                *(self._name, len(part.rows), part.bucket, part.size, row_bytes(part.bucket) / 2**30),
            )

    def add(self, count: int) -> None:
        """Notes rows that were answered."""
        self._done += count
        self._added += count
        now = time.monotonic()
        if now - self._said < QUIET_SECONDS and self._done < self._total:
            return
        self._said = now
        pace = (now - self._began) / self._added
        left = datetime.timedelta(seconds=round(pace * (self._total - self._done)))
        logger.info(
            "%s: %d/%d rows  %.3g rows/s  %s left",
            self._name,
            self._done,
            self._total,
            1 / max(pace, 1e-9),
            left,
        )


_SAMPLING = ("temperature", "top_p", "top_k", "thinking_budget", "seed", "max_new_tokens", "greedy")


def _names(text: str) -> dict[str, tuple[str, ...]]:
    """The benchmarks of --benchmarks and the splits named of each, none for all.

    Raises:
      ValueError: there is no such benchmark, or it is named twice.
    """
    found: dict[str, tuple[str, ...]] = {}
    for given in filter(None, (part.strip() for part in text.split(","))):
        name, _, splits = given.partition(":")
        name = registry.benchmark(name.strip()).name
        if name in found:
            raise ValueError(
                f"--benchmarks={text}: {name} is there twice; its splits go together, {name}:A+B"
            )
        found[name] = tuple(split.strip() for split in splits.split("+") if split.strip())
    return found


def _config(args: argparse.Namespace, opened: Opened) -> ConfigDict:
    """The settings of --config or of the model's run, with the pixel limits that flags set."""
    config = cli.config_of(opened.folder, args.config) if args.config else opened.config
    for name in ("min_pixels", "max_pixels"):
        if (pixels := getattr(args, name)) is not None:
            config.data[name] = pixels
    return config


def _rows(
    name: str, splits: Sequence[str], args: argparse.Namespace
) -> tuple[list[Row], list[str], list[str]]:
    """The rows to ask, of each split how many of how many are there, and what else a reader must know."""
    benchmark = registry.benchmark(name)
    opened = opening.open_rows(benchmark, args.data_root, splits, repair=args.repair_labels)
    known = [str(found) for found in benchmark.completeness(opened.rows, opened.splits)]
    complete = [f"{split} {found}" for split, found in zip(opened.splits, known, strict=True)]
    rows = results.chosen(benchmark, opened.rows, args.num_examples, args.seed or 0)
    warnings = [*benchmark.faults(opened.rows), *opened.repaired]
    if len(rows) < len(opened.rows):
        warnings.append(f"a random part: {len(rows)} of {len(opened.rows)} rows, seed {args.seed or 0}")
    return rows, complete, warnings


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The flags; ends the program with code 2 where one is wrong or missing."""
    parser = argparse.ArgumentParser(
        prog="dig_jax.evaluate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--model", help="Hugging Face folder or workdir")
    add(
        "--benchmarks",
        default="",
        help=f"some of {', '.join(registry.names())}, with commas between; NAME:SPLIT+SPLIT for some splits",
    )
    add("--data_root", help="folder of the benchmarks' files")
    add("--out", required=True, help="folder for the results")
    add("--compare", metavar="DIR", help="folder of another model's results: what --out gained over it")
    add("--num_examples", type=int, default=0, help="a random part of each, by --seed; 0 is all")
    add(
        "--repair_labels", action="store_true", help="put labels right that are known to be wrong, and say so"
    )
    add("--greedy", action="store_true", help="the most probable token each time")
    cli.add_sampling_flags(parser, temperature="of the answers (default: as published)")
    add("--max_new_tokens", type=int, help="of one answer (default: rollout.max_new_tokens)")
    add("--min_pixels", type=int, help="of a picture (default: the model's own)")
    add(
        "--max_pixels", type=int, help="of a picture; larger ones are scaled down, and counted in the results"
    )
    add("--batch_rows", type=int, default=64, help="rows read at a time by the devices that share a model")
    add(
        "--batch_patches",
        type=int,
        default=2**16,
        help="and patches, at most: larger pictures are read fewer at a time",
    )
    add("--config", help="config file, or FILE:ARGUMENT (default: the workdir's, else configs/base.py)")
    cli.add_process_flags(parser)
    args = parser.parse_args(argv)
    if bool(args.model) != bool(args.benchmarks):
        parser.error("--model and --benchmarks go together")
    if args.model and not args.data_root:
        parser.error("--data_root is missing: the folder of the benchmarks' files")
    if not args.model and not args.compare:
        parser.error("nothing to do: name --model and --benchmarks, or --compare")
    for name in ("batch_rows", "batch_patches"):
        if getattr(args, name) < 1:
            parser.error(f"--{name}={getattr(args, name)}: must be at least 1")
    if args.num_examples < 0:
        parser.error(f"--num_examples={args.num_examples}: must be at least 0 (all)")
    return args
