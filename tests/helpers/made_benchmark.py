"""A benchmark of drawn squares, for tests: two questions about each picture."""

import dataclasses
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from dig_jax.benchmarks.benchmark import Benchmark, Quoted, Scores
from dig_jax.benchmarks.row import Mark, Reader, Row
from dig_jax.data.example import Turn


@dataclasses.dataclass(frozen=True)
class Drawn:
    """A picture of one colour."""

    key: str
    size: tuple[int, int]
    color: tuple[int, int, int]

    @property
    def name(self) -> str:
        """The key."""
        return self.key

    def read(self) -> bytes:
        """A PNG."""
        file = io.BytesIO()
        Image.new("RGB", self.size[::-1], self.color).save(file, "PNG")
        return file.getvalue()


def rows_of(count: int, sizes: Sequence[tuple[int, int]] = ((64, 64), (64, 160))) -> list[Row]:
    """`count` rows, two of each picture, pictures of these sizes in turn."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(count):
        if number % 2 == 0:
            color = tuple(int(x) for x in rng.integers(256, size=3))
            picture = Drawn(f"picture {number // 2}", sizes[number // 2 % len(sizes)], color)
        answer = "Yes" if number % 2 else "No"
        rows.append(Row(f"row{number}", (picture,), f"Question {number}?", answer=answer, splits=("all",)))
    return rows


def mark(row: Row, text: str, reader: Reader) -> Mark:
    """Takes the first of Yes and No that the text has."""
    places = {word: text.find(word) for word in ("Yes", "No") if word in text}
    answer = min(places, key=lambda word: places[word]) if places else ""
    return Mark(row.index, answer, float(answer == row.answer), "found" if answer else "nothing")


def aggregate(rows: Sequence[Row], marks: Sequence[Mark]) -> Scores:
    """Shares of right rows and of pictures with both rows right, in percent."""
    pairs: dict[str, list[float]] = {}
    for row, one in zip(rows, marks, strict=True):
        pairs.setdefault(row.images[0].key, []).append(one.hit)
    hits = [one.hit for one in marks]
    return {"acc": 100 * float(np.mean(hits)), "both": 100 * float(np.mean([min(x) for x in pairs.values()]))}


BENCHMARK = Benchmark(
    name="squares",
    title="Squares",
    task="yes_no",
    splits=("all",),
    sizes={"all": 12},
    tables={"Squares": ("all",)},
    ask=lambda row, sizes, boxes: Turn("user", (0, row.question)),
    mark=mark,
    aggregate=aggregate,
    headline="acc",
    top=100.0,
    quoted=(Quoted("a paper", "a model", "acc", 50.0),),
)
