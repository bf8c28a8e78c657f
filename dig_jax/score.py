"""Scores saved answers without a model: `python -m dig_jax.score --predictions=FILE.jsonl --data=DIR`.

A predictions file has one `{"id": ..., "text": ...}` per line: the id of a pair and the raw text of an answer
to it; a pair may have several answers. The result has one JSON line per answer (reward terms, parse reason,
boxes) and a last line `{"summary": {...}}` with the means and the share of every parse reason. With `--out`
it goes to that file, and the terminal gets the summary line alone.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from etils import epath
from rich.console import Console
from rich.table import Table

from configs import base
from dig_jax import cli, settings
from dig_jax.data.records import PairSource, open_pairs
from dig_jax.rewards.answer import THINK_END
from dig_jax.rewards.reward import METRICS, RewardConfig, Scores, mean_metrics, score_texts

Prediction = tuple[str, str]  # id of the pair, raw text of the answer


def read_predictions(path: epath.PathLike) -> list[Prediction]:
    """Reads the id and text of every line; blank lines are skipped.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: a line is not an object with the strings `id` and `text`, or there are no lines.
    """
    path = epath.Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no predictions at {path}: there is no such file")
    predictions = []
    # Split at "\n" alone: `splitlines` would also cut at separators inside a string, such as U+2028.
    for number, line in enumerate(path.read_bytes().decode("utf-8").split("\n"), start=1):
        if line.strip():
            predictions.append(_read_line(line, f"{path}, line {number}"))
    if not predictions:
        raise ValueError(f"{path} holds no predictions")
    return predictions


def score_predictions(
    predictions: Sequence[Prediction], pairs: PairSource, *, thinking: bool, config: RewardConfig
) -> Scores:
    """Scores answers against the true boxes of their pairs.

    Raises:
      ValueError: an answer is for a pair that the split does not have.
    """
    truths = {pair.id: pair.boxes for pair in (pairs[index] for index in range(len(pairs)))}
    unknown = [id for id, _ in predictions if id not in truths]
    if unknown:
        raise ValueError(
            f"{pairs.name} does not have the pairs of {len(unknown)} of {len(predictions)} predictions; "
            f"the first is {unknown[0]!r}"
        )
    num_true = np.array([len(truths[id]) for id, _ in predictions], np.int32)
    true_boxes = np.zeros((len(predictions), num_true.max(), 4), np.float32)
    for row, (id, _) in enumerate(predictions):
        true_boxes[row, : num_true[row]] = truths[id]
    texts = [text for _, text in predictions]
    return score_texts(texts, true_boxes, num_true, thinking=thinking, config=config)


def records(predictions: Sequence[Prediction], scores: Scores) -> list[dict[str, Any]]:
    """One JSON object per answer: id, reward terms, counts, parse reason, and boxes normalised to 0..1."""
    terms = {name: getattr(scores, name).tolist() for name in METRICS}
    return [
        {"id": id}
        | {name: values[row] for name, values in terms.items()}
        | {"reason": scores.reasons[row], "boxes": scores.boxes[row].tolist()}
        for row, (id, _) in enumerate(predictions)
    ]


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="dig_jax.score", description=__doc__.splitlines()[0])
    parser.add_argument("--predictions", required=True, help='one {"id": ..., "text": ...} per line')
    parser.add_argument("--data", required=True, help="dig_pairs dataset")
    parser.add_argument("--split", default="test")
    parser.add_argument("--out", help="file for the result; without it, all lines go to the terminal")
    parser.add_argument("--config", help="config file with the reward's settings (default: configs/base.py)")
    parser.add_argument(
        "--thinking",
        choices=("auto", "yes", "no"),
        default="auto",
        help="whether answers follow </think> (a text without it was cut off); auto: yes if any text has it",
    )
    args = parser.parse_args(argv)
    with cli.user_errors():
        config = cli.config_of(epath.Path(args.config), args.config) if args.config else base.get_config()
        predictions = read_predictions(args.predictions)
        pairs = open_pairs(args.data, args.split)
        thinking = args.thinking == "yes"
        if args.thinking == "auto":
            thinking = any(THINK_END in text for _, text in predictions)
        scores = score_predictions(
            predictions, pairs, thinking=thinking, config=settings.reward_config(config)
        )
        counts = {
            "num_answers": len(predictions),
            "num_pairs": len(pairs),
            "num_pairs_without_answer": len(pairs) - len({id for id, _ in predictions}),
        }
        summary = counts | mean_metrics(scores)
        lines = [*records(predictions, scores), {"summary": summary}]
        if args.out:
            epath.Path(args.out).write_text("".join(json.dumps(line) + "\n" for line in lines))
    for line in lines[-1:] if args.out else lines:
        print(json.dumps(line))
    _print_table(summary)


def _read_line(line: str, place: str) -> Prediction:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        record = None
    if isinstance(record, dict):
        id, text = record.get("id"), record.get("text")
        if isinstance(id, str) and isinstance(text, str):
            return id, text
    raise ValueError(f'{place}: expected {{"id": "...", "text": "..."}}, got {line[:80]!r}')


def _print_table(summary: dict[str, float]) -> None:
    """Shows the summary to a reader, on stderr: stdout is for programs."""
    table = Table(show_header=False)
    for name, value in summary.items():
        if value or not name.startswith("answer/"):  # parse reasons that never occurred say nothing
            table.add_row(name, str(value) if isinstance(value, int) else f"{value:.4f}")
    Console(stderr=True).print(table)
    if summary["num_pairs_without_answer"]:
        print(
            f"warning: {summary['num_pairs_without_answer']} of {summary['num_pairs']} pairs have no answer; "
            "the means are over the answers given",
            file=sys.stderr,
        )


if __name__ == "__main__":
    main()
