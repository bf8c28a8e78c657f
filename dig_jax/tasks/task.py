"""What a task is: what is asked, what is right, and which figures say how well a model does it.

A task opens data sets as examples, changes examples without making their targets wrong, gives answers to
learn from, scores answers, and draws them. `registry` finds it by name; docs/add_a_task.md shows how to write
one.
"""

from __future__ import annotations

import abc
import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from etils import epath
from ml_collections import ConfigDict
from PIL import Image

from dig_jax.data.example import Demonstration, Example, Size, Source

Terms = Mapping[str, np.ndarray]  # name -> a number for each of n answers


@dataclasses.dataclass(frozen=True)
class Answerer:
    """What a task has to know of the model that answers.

    Attributes:
      thinking: prompts open `<think>`, so that an answer is what follows the last `</think>`.
      box_convention: how it writes boxes, one of `boxes.text.CONVENTIONS`.
      resized: (height, width) of an image as stored -> as the model sees it.
    """

    thinking: bool
    box_convention: str
    resized: Callable[[Size], Size]


@dataclasses.dataclass(frozen=True)
class Metric:
    """A term of the score that a reader is shown.

    Attributes:
      name: of the term.
      words: for the reader.
    """

    name: str
    words: str


@dataclasses.dataclass(frozen=True, eq=False)
class Scores:
    """What n answers earn, in the order given.

    Attributes:
      reward: float32 [n], what training raises.
      terms: name -> [n], what the reward is made of and what else there is to know, the same names for all
        answers of a task.
      notes: of each, why its form was or was not right, from the task's `notes`.
      read: of each, what was read from its text, as values that JSON takes, such as {"boxes": [...]}.
    """

    reward: np.ndarray
    terms: Terms
    notes: tuple[str, ...]
    read: tuple[Mapping[str, Any], ...]

    @property
    def all_terms(self) -> dict[str, np.ndarray]:
        """The terms with the reward, by its name, before them."""
        return {"reward": self.reward, **self.terms}


def join(parts: Sequence[Scores]) -> Scores:
    """The scores of one part of the answers after those of another; there is at least one part."""
    return Scores(
        np.concatenate([part.reward for part in parts]),
        {name: np.concatenate([part.terms[name] for part in parts]) for name in parts[0].terms},
        tuple(itertools.chain(*(part.notes for part in parts))),
        tuple(itertools.chain(*(part.read for part in parts))),
    )


def taken(scores: Scores, rows: np.ndarray, terms: Sequence[str]) -> Scores:
    """The scores of some of the answers, with some of their terms.

    Args:
      scores: of n answers.
      rows: int, which of them.
      terms: names.
    """
    return Scores(
        scores.reward[rows],
        {name: scores.terms[name][rows] for name in terms},
        tuple(scores.notes[row] for row in rows),
        tuple(scores.read[row] for row in rows),
    )


class Asked(Protocol):
    """What a model is asked while it trains: one task, or several (`mixture.Mixture`)."""

    @property
    def parts(self) -> Mapping[str, Task]:
        """The tasks by the names of their parts (`Example.part`); one that is alone has the name ""."""

    def augment(self, example: Example, rng: np.random.Generator) -> Example:
        """As of the example's task; so are the members below."""

    def demonstrate(self, example: Example, rng: np.random.Generator) -> Demonstration:
        """The answer to learn."""

    def score(self, texts: Sequence[str], examples: Sequence[Example]) -> Scores:
        """Scores answers, all at once."""


class Task(abc.ABC):
    """One kind of question; subclasses have a name, say what they measure, and are made from a config.

    Attributes:
      name: what configs call it.
      terms: names of the terms of its scores, the reward left out.
      metrics: which of them (and "reward") a reader is shown, in this order.
      main: the term that tells which of two models is better where no answers are sampled.
      notes: all that `Scores.notes` can say.
      charts: of the report, beside those every run has: title, and (label, metric of a step) of each line.
      privileges: kinds of `privileged` that it has, of `boxes.privilege.KINDS`.
    """

    name: str
    terms: tuple[str, ...]
    metrics: tuple[Metric, ...]
    main: str
    notes: tuple[str, ...] = ()
    charts: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = ()
    privileges: tuple[str, ...] = ()

    def __init__(self, config: ConfigDict, answerer: Answerer):
        self.config = config
        self.answerer = answerer

    @classmethod
    def check(cls, config: ConfigDict) -> None:
        """Refuses settings that contradict the task.

        Raises:
          ValueError: names the setting.
        """
        del config  # a task without settings of its own takes any

    @property
    def parts(self) -> Mapping[str, Task]:
        """Itself, with no other: see `Asked`."""
        return {"": self}

    @property
    def unit(self) -> str:
        """What its examples are called, with what narrows them down."""
        return "examples"

    def question(self, sizes: Sequence[Size]) -> str:
        """What to ask about images of these sizes where a user asks nothing.

        Raises:
          ValueError: the task has no question that needs no data.
        """
        raise ValueError(f"no text: the task {self.name} has no question that needs no data")

    @abc.abstractmethod
    def open(self, folder: epath.PathLike, split: str) -> Source:
        """The examples of one split of a data set.

        Raises:
          FileNotFoundError, ValueError: there is none, or it is of another kind; names the folder.
        """

    def augment(self, example: Example, rng: np.random.Generator) -> Example:
        """The example, changed as `config.data.augment` says, with a target that is still right."""
        return example

    def demonstrate(self, example: Example, rng: np.random.Generator) -> Demonstration:
        """The answer to learn. Raises ValueError where the task has none."""
        raise ValueError(f"the task {self.name} has no answers to learn: config.algorithm can not be sft")

    def privileged(self, example: Example, kind: str) -> Example:
        """The same question with what is right given away, for a teacher; images keep their sizes.

        Args:
          example: as it was augmented.
          kind: of `privileges`.
        """
        raise ValueError(f"the task {self.name} has nothing to show a teacher: set config.distill.weight=0")

    @abc.abstractmethod
    def score(self, texts: Sequence[str], examples: Sequence[Example]) -> Scores:
        """Scores answers, all at once. It never raises because of what a text says.

        Args:
          texts: n answers without special tokens; of a Thinking model from the last `</think>` on, with that
            tag, or the whole thought where it was cut off.
          examples: what each of them answers.
        """

    def summary(self, scores: Scores) -> dict[str, float]:
        """What a step's log says of its answers: the mean of each term, the share of each note.

        Raises:
          ValueError: there are no answers.
        """
        count = len(scores.reward)
        if not count:
            raise ValueError("a summary needs at least one scored answer; got none")
        means = {name: float(np.mean(values, dtype=np.float64)) for name, values in scores.all_terms.items()}
        return means | {f"answer/{note}": scores.notes.count(note) / count for note in self.notes}

    def figures(self, terms: Terms) -> dict[str, float]:
        """What an evaluation says of its answers: means of `metrics`, unless a task knows better.

        Args:
          terms: those of `Scores.all_terms`.
        """
        return {metric.name: float(terms[metric.name].mean()) for metric in self.metrics}

    def truth(self, example: Example) -> dict[str, Any]:
        """What is right, as values that JSON takes, beside the texts of sample answers.

        "boxes" are those to find, "kinds" a word for each.
        """
        return {}

    def found(self, read: Mapping[str, Any], truth: Mapping[str, Any]) -> list[bool]:
        """Which of the boxes of `truth` an answer found; none where the task has no boxes.

        Args:
          read: from the answer, as `Scores.read` has it.
          truth: of its example.
        """
        return []

    @abc.abstractmethod
    def draw(self, example: Example, read: Mapping[str, Any], caption: Sequence[str]) -> Image.Image:
        """A picture of an example and of what was read from an answer, above paragraphs of text."""
