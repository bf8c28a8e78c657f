"""Several tasks, or several data sets of a task, asked of a model while it trains: a part for each.

An example carries the name of its part, and all that is done with it is done by that part's own task: it is
augmented, demonstrated and scored as if there were no others.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from dig_jax.data.example import BadRecord, Demonstration, Example, Shape, Source
from dig_jax.tasks.task import Asked, Scores, Task, taken


class Mixture:
    """Tasks by the names of their parts.

    Attributes:
      parts: as of `Asked`.
    """

    def __init__(self, parts: Mapping[str, Task]):
        self.parts: Mapping[str, Task] = dict(parts)

    def augment(self, example: Example, rng: np.random.Generator) -> Example:
        """As the part's task does it."""
        return dataclasses.replace(self._task(example).augment(example, rng), part=example.part)

    def demonstrate(self, example: Example, rng: np.random.Generator) -> Demonstration:
        """As the part's task does it."""
        return self._task(example).demonstrate(example, rng)

    def score(self, texts: Sequence[str], examples: Sequence[Example]) -> Scores:
        """Scores answers, all of a part at once.

        Returns:
          The terms of all parts. One that a part's task does not have is NaN for its answers.
        """
        count = len(texts)
        names = dict.fromkeys(name for task in self.parts.values() for name in task.terms)
        reward = np.zeros(count, np.float32)
        terms = {name: np.full(count, np.nan, np.float32) for name in names}
        notes, read = np.full(count, "", object), np.full(count, None, object)
        part_of = np.array([example.part for example in examples], object)
        for part, task in self.parts.items():
            rows = np.flatnonzero(part_of == part).tolist()
            if not rows:
                continue
            scores = task.score([texts[row] for row in rows], [examples[row] for row in rows])
            reward[rows] = scores.reward
            for name in task.terms:
                terms[name][rows] = scores.terms[name]
            for row, note, said in zip(rows, scores.notes, scores.read, strict=True):
                notes[row], read[row] = note, said
        return Scores(reward, terms, tuple(notes), tuple(read))

    def _task(self, example: Example) -> Task:
        return self.parts[example.part]


def summary(asked: Asked, scores: Scores, parts: np.ndarray) -> dict[str, float]:
    """What a step's log says of its answers.

    Args:
      asked: what they answer.
      scores: of n answers, from `asked.score`.
      parts: int [n], the number of the part that each is an answer to, in the order of `asked.parts`.

    Returns:
      Of one task its summary, as `reward/NAME`. Of several the summary of each that has answers, as
      `PART/reward/NAME`; and as `reward/NAME` the means, over all answers, of the reward and of the terms
      that all tasks have.
    """
    tasks = asked.parts
    if len(tasks) == 1:
        (task,) = tasks.values()
        return {f"reward/{name}": value for name, value in task.summary(scores).items()}
    first, *others = (task.terms for task in tasks.values())
    common = [name for name in first if all(name in terms for terms in others)]
    means = {"reward": scores.reward, **{name: scores.terms[name] for name in common}}
    figures = {f"reward/{name}": float(np.mean(values, dtype=np.float64)) for name, values in means.items()}
    for number, (part, task) in enumerate(tasks.items()):
        rows = np.flatnonzero(parts == number)
        if len(rows):
            own = task.summary(taken(scores, rows, task.terms))
            figures |= {f"{part}/reward/{name}": value for name, value in own.items()}
    return figures


class PartSource:
    """A data set whose examples are those of a part.

    Args:
      source: the data set.
      part: name of the part.
    """

    def __init__(self, source: Source, part: str):
        self._source = source
        self._part = part

    @property
    def name(self) -> str:
        """Of the data set."""
        return self._source.name

    @property
    def unusable(self) -> Sequence[tuple[int, BadRecord]]:
        """Of the data set."""
        return self._source.unusable

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Example:
        """Example number `index`. Raises BadRecord."""
        return dataclasses.replace(self._source[index], part=self._part)

    def shapes(self) -> Sequence[Shape | None]:
        """Of the data set."""
        return self._source.shapes()
