"""What a set of pairs holds: counts and histograms, for the dataset card, the check and the gallery."""

from __future__ import annotations

import collections
import dataclasses
from typing import Any

import numpy as np

from data_gen.records.dataset import Pair

SIDE_BINS = 20  # of box sides, 0 to 1
GRID = 12  # cells of the map of positions, each way
QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclasses.dataclass
class Statistics:
    """Counted over pairs by `add`.

    Attributes:
      differences: differences of a pair -> pairs.
      objects: objects of a pair, in either scene -> pairs.
      kinds: kind -> differences.
      sides: share of the picture's side that a box takes (square root of its area), per difference.
      kind_sides: the same by kind.
      positions: float [GRID, GRID], rows from the top: differences by the centre of their box.
      measures: what the records say of each difference, such as its mean colour distance.
    """

    pairs: int = 0
    differences: collections.Counter[int] = dataclasses.field(default_factory=collections.Counter)
    objects: collections.Counter[int] = dataclasses.field(default_factory=collections.Counter)
    kinds: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    sides: list[float] = dataclasses.field(default_factory=list)
    kind_sides: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    positions: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((GRID, GRID), int))
    measures: dict[str, list[float]] = dataclasses.field(default_factory=dict)

    def add(self, pair: Pair) -> None:
        """Counts one pair."""
        self.pairs += 1
        self.differences[len(pair.kinds)] += 1
        self.objects[pair.num_objects] += 1
        self.kinds.update(pair.kinds)
        for kind, (x0, y0, x1, y1) in zip(pair.kinds, pair.boxes.tolist(), strict=True):
            side = max(0.0, (x1 - x0) * (y1 - y0)) ** 0.5
            self.sides.append(side)
            self.kind_sides.setdefault(kind, []).append(side)
            column, row = (min(GRID - 1, max(0, int(GRID * (a + b) / 2))) for a, b in ((x0, x1), (y0, y1)))
            self.positions[row, column] += 1
        for name, values in pair.measures.items():
            self.measures.setdefault(name, []).extend(values)

    def side_histogram(self) -> list[int]:
        """Differences by box side, in SIDE_BINS bins from 0 to 1."""
        return np.histogram(self.sides, SIDE_BINS, (0.0, 1.0))[0].tolist()

    def to_json_values(self) -> dict[str, Any]:
        """A summary for metadata."""
        quantiles = {
            name: [round(float(value), 3) for value in np.quantile(values, QUANTILES)]
            for name, values in {"box_side": self.sides, **self.measures}.items()
            if values
        }
        return {
            "pairs": self.pairs,
            "differences": {str(number): self.differences[number] for number in sorted(self.differences)},
            "objects": {str(number): self.objects[number] for number in sorted(self.objects)},
            "kinds": dict(sorted(self.kinds.items())),
            "quantiles_0_25_50_75_100": quantiles,
        }
