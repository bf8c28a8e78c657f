"""What a benchmark is: its rows, what is asked, how answers are marked, and what the marks add up to.

A benchmark is a value, not a class; `registry` finds it by name. Its scores carry the names and the scale of
VLMEvalKit's tables, so that numbers can be laid side by side.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence

from etils import epath

from dig_jax.benchmarks.row import Mark, Reader, Row
from dig_jax.data.example import Size, Turn
from dig_jax.tasks.boxes.text import BoxFormat

Scores = dict[str, float]
Aggregate = Callable[[Sequence[Row], Sequence[Mark]], Scores]
Marker = Callable[[Row, str, Reader], Mark]
Asker = Callable[[Row, Sequence[Size], BoxFormat], Turn]


@dataclasses.dataclass(frozen=True)
class Quoted:
    """A number that a paper gives, marked as quoted wherever it is shown.

    Attributes:
      paper: as readers know it.
      model: what was measured.
      metric: name of the score here, such as "Overall".
      value: on the scale of the score here.
    """

    paper: str
    model: str
    metric: str
    value: float


@dataclasses.dataclass(frozen=True)
class Completeness:
    """How many of the rows of a split are there.

    Attributes:
      split: which.
      rows: found.
      known: how many the whole split has; None where nobody knows.
    """

    split: str
    rows: int
    known: int | None

    @property
    def complete(self) -> bool:
        """All are there, as far as one can know."""
        return self.known is None or self.rows == self.known

    def __str__(self) -> str:
        """ "1500/1500", "partial 30/1500", or the number alone."""
        if self.known is None:
            return str(self.rows)
        if self.rows > self.known:
            return f"{self.rows} rows, and {self.known} are known"
        return f"{'' if self.complete else 'partial '}{self.rows}/{self.known}"


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """A public set of questions, and how it is scored.

    Attributes:
      name: as commands take it, lower case.
      title: as papers write it.
      task: what its rows ask: "choice", "yes_no", "referring" or "differences".
      splits: of the set, in the order shown.
      sizes: split -> rows of the whole split, None where nobody knows; also of splits that are scored only
        when they are named.
      tables: VLMEvalKit's name of a question table -> the splits it holds.
      ask: what the model is asked about a row: pictures and question, given the sizes of the pictures as
        stored and how the model writes boxes.
      mark: takes the answer out of the text of one completion, whatever that is, and compares it.
      aggregate: the scores of all marked rows together.
      headline: the score that stands for all, a key of what `aggregate` returns.
      top: the highest value of the headline.
      from_table: completes a row as the table reader makes it: box, splits, category. It gets the table's
        name, to tell tables of one set apart.
      release: rows of a split in the official layout below a folder; None where it has no such reader.
      groups: how rows belong together where several make one decision (rotations, pairs, figures); those are
        resampled together. Rows are otherwise grouped by picture.
      faults: what is missing of rows that must be together, one sentence each; an empty list if nothing is.
      alone: scores that count rows one by one, and so hold where rows that must be together are missing.
      repair: the rows with those labels put right that are known to be wrong, and what was changed, a line
        each; None where none is known to be.
      quoted: papers' numbers.
    """

    name: str
    title: str
    task: str
    splits: tuple[str, ...]
    sizes: Mapping[str, int | None]
    tables: Mapping[str, tuple[str, ...]]
    ask: Asker
    mark: Marker
    aggregate: Aggregate
    headline: str
    top: float = 1.0
    from_table: Callable[[Row, str], Row] = lambda row, table: row
    release: Callable[[epath.Path, str], Sequence[Row]] | None = None
    groups: Callable[[Row], str] | None = None
    faults: Callable[[Sequence[Row]], list[str]] = lambda rows: []
    alone: tuple[str, ...] = ()
    repair: Callable[[Sequence[Row]], tuple[list[Row], list[str]]] | None = None
    quoted: tuple[Quoted, ...] = ()

    def scores(self, rows: Sequence[Row], marks: Sequence[Mark]) -> Scores:
        """What all rows together score; with `faults`, only what needs none of the rows that are missing.

        A score over groups that are not whole is another, mostly higher one: no number is better than that.
        """
        found = self.aggregate(rows, marks)
        return {name: found[name] for name in self.alone if name in found} if self.faults(rows) else found

    def group(self, row: Row) -> str:
        """Rows of one group are no independent draws: intervals resample whole groups."""
        if self.groups is not None:
            return self.groups(row)
        return "|".join(picture.key for picture in row.images) or row.index

    def completeness(self, rows: Iterable[Row], splits: Sequence[str] = ()) -> list[Completeness]:
        """How many rows there are of each split that was asked for; of all unless some are named."""
        counts = collections.Counter(split for row in rows for split in row.splits)
        asked = splits or self.splits
        return [Completeness(split, counts[split], self.sizes.get(split)) for split in asked]
