"""Which metrics of a run its reader is shown, as its tasks declare them: kept in the workdir for the report.

The report needs neither the tasks nor the file of a user that has them: it reads `tasks.json`. A workdir from
before there was that file is one of the task "differences".
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from dig_jax.machines.folder import write_json
from dig_jax.run.evaluations import UNNAMED
from dig_jax.tasks.registry import task_class
from dig_jax.tasks.task import Asked, Task

TASKS_FILE = "tasks.json"

Lines = tuple[tuple[str, str], ...]  # (label, key of a metric) of each line of a chart


@dataclasses.dataclass(frozen=True)
class Declared:
    """What one task declares.

    Attributes:
      metrics: term -> words for a reader, in the order shown.
      main: the term that tells which of two models is better.
      charts: title and lines, of training steps.
      unit: what its examples are called.
      part: of a mixture, that the task is of: metrics of training steps begin with its name. "": of none.
    """

    metrics: Mapping[str, str]
    main: str
    charts: tuple[tuple[str, Lines], ...]
    unit: str
    part: str = ""

    @classmethod
    def of(cls, task: Task, part: str = "") -> Declared:
        """What a task says of itself."""
        return dataclasses.replace(cls._of(task, task.unit), part=part)

    @classmethod
    def before_tasks(cls) -> Declared:
        """What was asked before there were several tasks."""
        return cls._of(task_class("differences"), "pairs")

    @classmethod
    def _of(cls, task: type[Task] | Task, unit: str) -> Declared:
        return cls({metric.name: metric.words for metric in task.metrics}, task.main, task.charts, unit)

    @property
    def held_out(self) -> dict[str, str]:
        """Figures of an evaluation that say whether training worked, with words for a reader."""
        greedy = {
            "reward_greedy" if name == "reward" else name: f"{words}, greedy answers"
            for name, words in self.metrics.items()
        }
        sampled = {f"{name}_sampled": f"{words}, sampled answers" for name, words in self.metrics.items()}
        return greedy | sampled

    def held_out_charts(self) -> list[tuple[str, Lines]]:
        """Charts of an evaluation: titles, and the lines of each."""
        terms = [(words, name) for name, words in self.metrics.items() if name != "reward"]
        return [
            ("sampled answers", tuple((words, f"{name}_sampled") for words, name in terms)),
            ("greedy answers", tuple(terms)),
            ("reward", (("sampled", "reward_sampled"), ("greedy", "reward_greedy"))),
            ("tokens of sampled answers", (("median", "length_p50_sampled"), ("99%", "length_p99_sampled"))),
        ]

    def training_charts(self) -> list[tuple[str, Lines]]:
        """Charts of training steps that are the task's own."""
        lines = tuple(
            ("reward" if name == "reward" else words, f"reward/{name}")
            for name, words in self.metrics.items()
        )
        charts = [("Training reward", lines), *self.charts]
        if not self.part:
            return charts
        return [
            (f"{self.part}: {title}", tuple((label, f"{self.part}/{key}") for label, key in of_chart))
            for title, of_chart in charts
        ]

    def headline(self) -> tuple[str, str]:
        """The main term of training steps: what it is called on the terminal, and its key."""
        key = f"reward/{self.main}"
        return (f"{self.part} {self.main}", f"{self.part}/{key}") if self.part else (self.main, key)


@dataclasses.dataclass(frozen=True)
class Shown:
    """What a run's tasks declare.

    Attributes:
      training: of the tasks that the run trains on, by name, PART/NAME where it is of a part of a mixture.
      held_out: of its evaluations, by their names.
      main: the name of the main one.
    """

    training: Mapping[str, Declared]
    held_out: Mapping[str, Declared]
    main: str

    @classmethod
    def of(cls, training: Sequence[Asked], held_out: Mapping[str, Task], main: str) -> Shown:
        """What these tasks declare."""
        by_name = {name: Declared.of(task) for name, task in held_out.items()}
        trained = {
            f"{part}/{task.name}".removeprefix("/"): Declared.of(task, part)
            for asked in training
            for part, task in asked.parts.items()
        }
        return cls(trained, by_name, main)

    def charts_of_parts(self) -> list[tuple[str, Lines]]:
        """Charts that compare the parts of mixtures; none where there are no parts."""
        parts = dict.fromkeys(declared.part for declared in self.training.values() if declared.part)
        return [
            (f"{title} by part", (("all", key), *((part, f"{part}/{key}") for part in parts)))
            for title, key in (("Training reward", "reward/reward"), ("Supervised loss", "sft/answer_loss"))
            if parts
        ]

    def of_set(self, name: str) -> Declared:
        """What the task of an evaluation declares; one that is not known is as the main one.

        A run that evaluates nothing, or did not note what, has the task "differences" there.
        """
        main = self.held_out.get(self.main) or Declared.before_tasks()
        return self.held_out.get(name, main)

    def renamed(self, now: Shown) -> str:
        """The name of the main evaluation, where it has another one now and is not a second one; else ""."""
        kept = self.main in now.held_out or now.main in self.held_out
        return "" if kept else self.main

    def label(self, name: str) -> str:
        """An evaluation's name for a reader; "" where it says nothing: that of a main one called "main"."""
        return "" if name == self.main == UNNAMED else name

    @property
    def examples(self) -> str:
        """What the main evaluation is of, with its name where that says something: "pairs (mixed)"."""
        return f"{self.of_set(self.main).unit} ({self.label(self.main)})".removesuffix(" ()")

    def sets(self, lines: Sequence[Mapping[str, Any]]) -> list[str]:
        """Names of the evaluations in lines of evals.jsonl; the main one comes first."""
        names = {key.rpartition("/")[0] for line in lines for key in line} - {""}
        return sorted(names, key=lambda name: (name != self.main, name))

    @classmethod
    def read(cls, workdir: epath.Path) -> Shown:
        """What the tasks of a workdir declared when it ran."""
        path = workdir / TASKS_FILE
        if not path.exists():
            return cls({"differences": Declared.before_tasks()}, {}, UNNAMED)
        saved = json.loads(path.read_text())
        training = {name: _declared(entry) for name, entry in saved["training"].items()}
        held_out = {name or UNNAMED: _declared(entry) for name, entry in saved["held_out"].items()}
        return cls(training, held_out, saved.get("main", UNNAMED))

    def write(self, workdir: epath.Path) -> None:
        """Keeps it in a workdir."""
        workdir.mkdir(parents=True, exist_ok=True)
        write_json(workdir / TASKS_FILE, dataclasses.asdict(self))


def _declared(saved: Mapping[str, Any]) -> Declared:
    charts = tuple((title, tuple((label, key) for label, key in lines)) for title, lines in saved["charts"])
    unit, part = saved.get("unit", "examples"), saved.get("part", "")
    return Declared(saved["metrics"], saved["main"], charts, unit, part)
