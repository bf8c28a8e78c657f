"""What is measured while a run trains: entries of a task, data and split, one of which is the main one.

`config.evals.NAME` is an entry; metrics of its answers are named NAME/metric, in evals.jsonl as everywhere.
The main one, `config.eval.main`, chooses the best checkpoint, and its answers are shown. Two short forms name
entries with nothing but their data: `config.data.eval`, the main one's, and `config.data.eval_extra`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from dig_jax.benchmarks import registry as benchmarks
from dig_jax.machines import checks
from dig_jax.run import mixture

KEYS = ("task", "benchmark", "data", "split", "every", "num_examples")
UNNAMED = "main"  # what the main evaluation was before entries had names: its metrics had no prefix
LINE_KEYS = ("step", "stage", "seconds")  # of a line of evals.jsonl, beside metrics


@dataclasses.dataclass(frozen=True)
class EvalConfig:
    """What all evaluations of a run have in common (`config.eval`). Defaults live in `configs/base.py`.

    Attributes:
        main: the name of the entry that is the main one.
        every: steps between evaluations; entries may have a multiple.
        num_pairs: examples of each, unless its entry says otherwise; 0 = the whole split.
        batch_prompts: examples answered together, over all devices.
        group_size: sampled completions per example; 0 = greedy answers alone.
        greedy: whether greedy answers are drawn beside them.
        thinking_budget: tokens of thought after which it is closed; 0 = off.
        blind: whether each is made again with the first images exchanged, see `measured`.
    """

    main: str
    every: int
    num_pairs: int
    batch_prompts: int
    group_size: int
    greedy: bool
    thinking_budget: int
    blind: bool

    @classmethod
    def from_config(cls, config: ConfigDict) -> EvalConfig:
        """The checked settings of a run."""
        return cls(**config.eval.to_dict())

    def __post_init__(self) -> None:
        if not re.fullmatch(r"\w+", self.main):
            raise ValueError(f"config.eval.main={self.main!r}: a name is letters, digits and _")
        checks.at_least("eval.every", self.every, 1)
        checks.at_least("eval.num_pairs", self.num_pairs, 0, "the whole split")
        checks.at_least("eval.batch_prompts", self.batch_prompts, 1)
        checks.at_least("eval.group_size", self.group_size, 0, "greedy alone")


@dataclasses.dataclass(frozen=True)
class Entry:
    """One evaluation.

    Attributes:
        name: of the entry; "" where there is but one, of the command `evaluate`.
        task: what is asked.
        data: folder or file.
        split: of it.
        every: steps; a multiple of `config.eval.every`. The first and the last step are evaluated, too.
        num_examples: the first so many; 0 for the whole split.
        benchmark: the public set that it measures, from files below `data`; "" for the task's own examples.
            Its split "" is all that the set has by default; its first examples are a sample by the seed.
        blind: the first image of each example is that of another one (`MismatchedDataset`).
    """

    name: str
    task: str
    data: str
    split: str
    every: int
    num_examples: int
    benchmark: str = ""
    blind: bool = False

    def config(self, config: ConfigDict) -> ConfigDict:
        """The run's settings as this evaluation has them.

        Nothing is augmented or left out. Another task than the run's is scored by its own reward.
        """
        own = mixture.without_changes(config)
        if self.task != config.task:
            own = mixture.of_another_task(own, self.task)
        own.mixture, own.curriculum.order = ConfigDict(), ()  # which say what is trained on, and how
        return own


def entries(config: ConfigDict) -> tuple[Entry, ...]:
    """The evaluations of a run, the main one first; none where nothing is evaluated.

    What an entry does not say is as the run has it: `config.task`, `data.eval_split`, `eval.every`,
    `eval.num_pairs`.

    Raises:
        ValueError: names the entry that is wrong.
    """
    settings = EvalConfig.from_config(config)
    main, every = settings.main, settings.every
    said = _said(config, main)
    if said and main not in said:
        which = "data.eval_extra" if config.data.eval_extra else "evals"
        raise ValueError(
            f"config.{which} is set, but config.data.eval is not, and there is no config.evals.{main}: set"
            f" config.eval.main to the entry that is the main one ({', '.join(said)})"
        )
    for name, changes in said.items():
        _check(name, changes, every)
    if said.get(main, {}).get("every", every) != every:
        raise ValueError(
            f"config.evals.{main}.every={said[main]['every']}: the main evaluation is that of every"
            f" config.eval.every={every} steps; set that, and `every` of the others"
        )
    default = Entry("", config.task, "", config.data.eval_split, every, settings.num_pairs)
    found = [
        dataclasses.replace(default, name=name, **(_of_benchmark(name, changes) | changes))
        for name, changes in said.items()
    ]
    return tuple(sorted(found, key=lambda entry: entry.name != main))


def measured(config: ConfigDict) -> tuple[Entry, ...]:
    """The entries, and with `config.eval.blind` each again as a blind one, NAME/blind, behind them.

    Benchmarks have none: their pictures are of all sizes, and few have another to exchange with.
    """
    found = entries(config)
    if not EvalConfig.from_config(config).blind:
        return found
    blind = [
        dataclasses.replace(entry, name=f"{entry.name}/blind", blind=True)
        for entry in found
        if not entry.benchmark
    ]
    return (*found, *blind)


def _of_benchmark(name: str, changes: Mapping[str, Any]) -> dict[str, Any]:
    """What an entry that measures a benchmark has instead of what the run has."""
    if not changes.get("benchmark"):
        return {}
    try:
        task = benchmarks.benchmark(changes["benchmark"]).task
    except ValueError as error:
        raise ValueError(f"config.evals.{name}.benchmark: {error}") from None
    if changes.get("task", task) != task:
        raise ValueError(
            f"config.evals.{name}.task={changes['task']!r}: the benchmark {changes['benchmark']} asks {task};"
            " leave the task out"
        )
    return {"task": task, "split": ""}


def _said(config: ConfigDict, main: str) -> dict[str, dict[str, Any]]:
    """What the config says of each entry, short forms written out."""
    extra: dict[str, dict[str, Any]] = {}
    for text in config.data.eval_extra:
        match = re.fullmatch(r"(\w+)=(.+)", str(text))
        if match is None or match[1] in extra:
            raise ValueError(
                f"config.data.eval_extra={config.data.eval_extra}: expected held-out sets of different names,"
                ' such as ("single=data/single", "double=data/double")'
            )
        extra[match[1]] = {"data": match[2]}
    own = {name: dict(changes) for name, changes in config.evals.items()}
    if extra.keys() & own.keys():
        raise ValueError("config.evals has a name that config.data.eval_extra has, too: rename one of them")
    said = extra | own
    if config.data.eval:
        if said.get(main, {}).get("data"):
            where = "data.eval_extra" if main in extra else f"evals.{main}.data"
            raise ValueError(
                f"config.data.eval={config.data.eval!r} is the data of the main evaluation, {main!r}, and"
                f" config.{where} is, too: leave one of them out, or set config.eval.main to another name"
            )
        said[main] = {**said.get(main, {}), "data": config.data.eval}
    return said


def _check(name: str, changes: dict[str, Any], every: int) -> None:
    where = f"config.evals.{name}"
    if not re.fullmatch(r"\w+", name):
        raise ValueError(f"{where}: a name is letters, digits and _")
    if unknown := sorted(set(changes) - set(KEYS)):
        raise ValueError(f"{where}.{unknown[0]}: an evaluation can set {', '.join(KEYS)}")
    for key, kind in (
        ("task", str),
        ("benchmark", str),
        ("data", str),
        ("split", str),
        ("every", int),
        ("num_examples", int),
    ):
        if key in changes and type(changes[key]) is not kind:
            raise ValueError(f"{where}.{key}={changes[key]!r}: expected a {kind.__name__}")
    if not changes.get("data"):
        raise ValueError(f"{where}.data is missing: name the folder or file to evaluate on")
    if changes.get("num_examples", 0) < 0:
        raise ValueError(
            f"{where}.num_examples={changes['num_examples']}: must be at least 0 (the whole split)"
        )
    often = changes.get("every", every)
    if often < 1 or often % every:
        raise ValueError(f"{where}.every={often}: expected a multiple of config.eval.every={every}")


def metric_name(name: str, main: str) -> str:
    """The whole name of a metric; one that names no evaluation is of the main one."""
    return name if "/" in name else f"{main}/{name}"


def named(line: Mapping[str, Any], main: str, formerly: str = "") -> dict[str, Any]:
    """A line of evals.jsonl, of this version or of one whose main evaluation had no name.

    Args:
        line: by the names in the file.
        main: the name of the main evaluation.
        formerly: what it was called when the line was written; "" for that or for no name.
    """
    before = f"{formerly}/" if formerly else "/"
    return {
        key if key in LINE_KEYS else metric_name(key.removeprefix(before), main): value
        for key, value in line.items()
    }


def as_entries(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings, or notes on them, by whole names such as "evals.single.data": short forms are written out.

    So the same evaluations have the same names however a config, of this version or of an older one, says
    them: `data.eval`, `data.eval_extra`, and a metric that names no evaluation.
    """
    found = dict(settings)
    main = found.setdefault("eval.main", UNNAMED)
    if data := found.pop("data.eval", ""):
        found[f"evals.{main}.data"] = data
    for text in found.pop("data.eval_extra", ()):
        name, _, data = str(text).partition("=")
        found[f"evals.{name}.data"] = data
    for key, value in found.items():
        if _is_metric(key):
            found[key] = metric_name(str(value), main)
    return found


def with_main_called(name: str, settings: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """The same settings where the main evaluation has another name, if that is all that changed.

    Args:
        name: of the main evaluation now.
        settings: from `as_entries`.
        other: those of now: where both names are there, the main evaluation is another one.
    """
    old = settings["eval.main"]
    before, after = f"evals.{old}.", f"evals.{name}."
    if any(key.startswith(after) for key in settings) or any(key.startswith(before) for key in other):
        return dict(settings)
    found = {}
    for key, value in settings.items():
        if _is_metric(key) and value.startswith(f"{old}/"):
            value = f"{name}/" + value.removeprefix(f"{old}/")
        found[after + key.removeprefix(before) if key.startswith(before) else key] = value
    return found | {"eval.main": name}


def _is_metric(key: str) -> bool:
    return key == "advance.metric" or key.endswith(".advance.metric")
