"""HallusionBench: questions about charts, maps and illusions, some of them about an edited picture.

aAcc is the share of questions, fAcc that of figures and qAcc that of questions over all their figures which
are all right, in percent. The release asks 178 questions without a picture too: the split "text", which
counts in "text/aAcc" and, asked together with the split "image", in the official figures; all other scores
are those of VLMEvalKit's table, which leaves them out.
"""

from collections.abc import Sequence

from etils import epath

from dig_jax.benchmarks import asking, marking, quoted, scores
from dig_jax.benchmarks.benchmark import Benchmark
from dig_jax.benchmarks.releases import hallusion
from dig_jax.benchmarks.row import Mark, Row

_PARTS = 6  # of an index: category, subcategory, visual input (0 none), set, figure, question


def figures(rows: Sequence[Row], marks: Sequence[Mark]) -> scores.Scores:
    """aAcc, fAcc and qAcc, "Overall/..." and of each category and l2-category."""
    whole = scores.parts(rows, marks, lambda row: "text" if _is_text(row) else "image")
    found: scores.Scores = {}
    if "image" in whole:
        shown = whole["image"]
        found |= _three("Overall", *shown)
        for key in (scores.category, scores.l2):
            for name, own in scores.parts(*shown, key).items():
                found |= _three(name, *own)
    if "text" in whole:
        found["text/aAcc"] = 100 * scores.hits(whole["text"][1])
    if len(whole) == 2:
        found |= hallusion.official_scores(rows, marks)
    return found


def _three(name: str, rows: Sequence[Row], marks: Sequence[Mark]) -> scores.Scores:
    shares = {"aAcc": scores.hits(marks)}
    for score, place in (("fAcc", -2), ("qAcc", -1)):

        def group(row: Row, place: int = place) -> str:
            parts = row.index.split("_")
            return "_".join((row.category, scores.l2(row), parts[-3], parts[place]))

        shares[score] = scores.mean(map(scores.all_right, scores.by(rows, marks, group).values()))
    return {f"{name}/{score}": 100 * share for score, share in shares.items()}


def _is_text(row: Row) -> bool:
    return row.index.split("_")[-4] == "0"


def _from_table(row: Row, table: str) -> Row:
    if len(row.index.split("_")) < _PARTS:
        raise ValueError(
            f"{table}, index {row.index!r}: expected CATEGORY_SUBCATEGORY_INPUT_SET_FIGURE_QUESTION, such as"
            " VD_illusion_1_0_0_0"
        )
    scores.column(row, table, "category")
    return row


def _release(root: epath.Path, split: str) -> Sequence[Row]:
    return [row for row in hallusion.rows(root, split) if _is_text(row) == (split == "text")]


def _set(row: Row) -> str:
    return f"{scores.l2(row) or row.category}_{row.index.split('_')[-3]}"


BENCHMARK = Benchmark(
    name="hallusionbench",
    title="HallusionBench",
    task="yes_no",
    splits=("image",),
    sizes={"image": 951, "text": 178},
    tables={"HallusionBench": ("image",)},
    ask=asking.yes_no,
    mark=marking.yes_no,
    aggregate=figures,
    headline="Overall/aAcc",
    top=100.0,
    from_table=_from_table,
    release=_release,
    groups=_set,
    quoted=quoted.HALLUSION,
)
