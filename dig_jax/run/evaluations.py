"""What is measured while a run trains: the main evaluation, and further ones, each of a task, data and split.

The main one is that of `config.data.eval`: its metrics have no prefix, its answers are shown, and it chooses
the best checkpoint. Those of `config.evals.NAME`, and of "NAME=folder" in `config.data.eval_extra`, which is
short for an entry with nothing but its data, are named NAME/metric.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any

from ml_collections import ConfigDict

KEYS = ("task", "data", "split", "every", "num_examples")


@dataclasses.dataclass(frozen=True)
class Entry:
    """One evaluation.

    Attributes:
        name: "" of the main one.
        task: what is asked.
        data: folder or file.
        split: of it.
        every: steps; a multiple of `config.eval.every`. The first and the last step are evaluated, too.
        num_examples: the first so many; 0 for the whole split.
    """

    name: str
    task: str
    data: str
    split: str
    every: int
    num_examples: int

    def config(self, config: ConfigDict) -> ConfigDict:
        """The run's settings as this evaluation has them.

        Nothing is augmented or left out. Another task than the run's is scored by its own reward.
        """
        own = config.copy_and_resolve_references()
        own.data.num_differences, own.sft.count_noise = (), 0.0
        for name in own.data.augment:
            own.data.augment[name] = False
        if self.task != config.task:
            own.task, own.data.question = self.task, ""
            own.rewards.weights, own.rewards.file, own.rewards.normalize_apart = (), "", False
        return own


def entries(config: ConfigDict) -> tuple[Entry, ...]:
    """The evaluations of a run, the main one first; none where nothing is evaluated.

    Raises:
        ValueError: names the entry that is wrong.
    """
    every, count, split = config.eval.every, config.eval.num_pairs, config.data.eval_split
    main = Entry("", config.task, config.data.eval, split, every, count)
    further: list[tuple[str, dict[str, Any]]] = []
    for text in config.data.eval_extra:
        match = re.fullmatch(r"(\w+)=(.+)", str(text))
        if match is None:
            raise ValueError(_wrong_extra(config))
        further.append((match[1], {"data": match[2]}))
    if len({name for name, _ in further}) < len(further):
        raise ValueError(_wrong_extra(config))
    further += [(name, dict(changes)) for name, changes in config.evals.items()]
    if further and not main.data:
        which = "data.eval_extra" if config.data.eval_extra else "evals"
        raise ValueError(f"config.{which} is set, but config.data.eval, the main set, is not")
    if len({name for name, _ in further}) < len(further):
        raise ValueError("config.evals has a name that config.data.eval_extra has, too: rename one of them")
    for name, changes in further:
        _check(name, changes, every)
    found = [dataclasses.replace(main, name=name, **changes) for name, changes in further]
    return (main, *found) if main.data else ()


def _wrong_extra(config: ConfigDict) -> str:
    return (
        f"config.data.eval_extra={config.data.eval_extra}: expected held-out sets of different names, such as"
        ' ("single=data/single", "double=data/double")'
    )


def _check(name: str, changes: dict[str, Any], every: int) -> None:
    where = f"config.evals.{name}"
    if not re.fullmatch(r"\w+", name):
        raise ValueError(f"{where}: a name is letters, digits and _")
    if unknown := sorted(set(changes) - set(KEYS)):
        raise ValueError(f"{where}.{unknown[0]}: an evaluation can set {', '.join(KEYS)}")
    for key, kind in (("task", str), ("data", str), ("split", str), ("every", int), ("num_examples", int)):
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
