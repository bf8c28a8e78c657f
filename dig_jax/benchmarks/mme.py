"""MME: two questions about each picture, one to be answered yes, the other no.

A subtask scores 100 times the share of questions plus 100 times that of pictures with both right, 200 at
most; perception is the sum of ten subtasks, reasoning (the paper's cognition) of four, total of both.
"""

from collections.abc import Sequence

from dig_jax.benchmarks import asking, marking, quoted, scores, together
from dig_jax.benchmarks.benchmark import Benchmark
from dig_jax.benchmarks.releases import mme
from dig_jax.benchmarks.row import Mark, Row

_REASONING = ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning")


def picture(row: Row) -> str:
    """What the two questions about a picture have in common."""
    return row.fields.get("image_path") or "|".join(each.key for each in row.images)


def subtasks(rows: Sequence[Row], marks: Sequence[Mark]) -> scores.Scores:
    """ "total", "perception", "reasoning", and each subtask."""
    found = {}
    for name, (asked, own) in scores.parts(rows, marks, scores.category).items():
        both = scores.by(asked, own, picture).values()
        found[name] = 100 * scores.hits(own) + 100 * scores.mean(map(scores.all_right, both))
    reasoning = sum(score for name, score in found.items() if name in _REASONING)
    perception = sum(score for name, score in found.items() if name not in _REASONING)
    return {"total": perception + reasoning, "perception": perception, "reasoning": reasoning} | found


def _from_table(row: Row, table: str) -> Row:
    if row.category not in mme.SUBTASKS:
        known = ", ".join(mme.SUBTASKS)
        raise ValueError(f"{table}, index {row.index}: category is {row.category!r}; expected one of {known}")
    if not picture(row):
        raise ValueError(
            f"{table}, index {row.index}: without image_path nothing tells which questions are about one"
            " picture; give the question table with --questions"
        )
    return row


def _group(row: Row) -> str:
    return f"{row.category}/{picture(row)}"


BENCHMARK = Benchmark(
    name="mme",
    title="MME",
    task="yes_no",
    splits=("test",),
    sizes={"test": 2374},
    tables={"MME": ("test",)},
    ask=asking.yes_no,
    mark=marking.yes_no,
    aggregate=subtasks,
    headline="total",
    top=2800.0,
    from_table=_from_table,
    release=mme.rows,
    groups=_group,
    faults=together.one_yes_one_no,
    quoted=quoted.MME,
)
