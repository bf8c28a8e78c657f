"""Scores saved answers without a model: `python -m dig_jax.score --predictions=FILE.jsonl --data=DIR`.

A predictions file has one `{"id": ..., "text": ...}` per line: the id of a pair and the raw text of an answer
to it; a pair may have several answers. The result has one JSON line per answer (reward terms, parse reason,
boxes) and a last line `{"summary": {...}}` with the means and the share of every parse reason. With `--out`
it goes to that file, and the terminal gets the summary line alone.

A thought that was cut off before `</think>` is no answer and earns nothing. Whether the model thinks is told
by `--thinking` or by the chat template of `--model`; without either it is guessed from the texts, and where
the guess decides how answers are scored, a warning says so and how many they are.
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
from dig_jax.data.records import PairSource, open_pairs
from dig_jax.data.tokenizer import load_tokenizer
from dig_jax.machines import textfile
from dig_jax.machines.folder import to_path, writable_file, write_result
from dig_jax.run import cli, model_folder
from dig_jax.tasks.boxes.answer import THINK_END, TRUNCATED, VALID
from dig_jax.tasks.differences.reward import METRICS, RewardConfig, Scores, mean_metrics, score_texts

THINK_START = "<think>"  # in a text only where the chat template does not open the thought itself

Prediction = tuple[str, str]  # id of the pair, raw text of the answer


def read_predictions(path: epath.PathLike) -> list[Prediction]:
    """Reads the id and text of every line; blank lines are skipped.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: a line is not UTF-8, or no object with the strings `id` and `text`; or there are no lines.
    """
    path = to_path(path)
    if not path.exists():
        raise FileNotFoundError(f"no predictions at {path}: there is no such file")
    if path.is_dir():
        raise ValueError(f"--predictions={path} is a folder: name a file in it")
    predictions = []
    # Split at "\n" alone: `splitlines` would also cut at separators inside a string, such as U+2028.
    for number, line in enumerate(textfile.read_text(path).split("\n"), start=1):
        if line.strip():
            predictions.append(_read_line(line, f"{path}, line {number}"))
    if not predictions:
        raise ValueError(f"{path} holds no predictions")
    return predictions


def decide_thinking(flag: str, model: str | None, predictions: Sequence[Prediction]) -> bool:
    """Whether answers follow `</think>`, so that a text without it was cut off.

    Args:
      flag: "yes", "no" or "auto", of --thinking.
      model: the folder or workdir whose chat template decides for "auto"; None where none was named.
      predictions: with neither, a thought in any of the texts means yes: a guess, see `what_was_assumed`.

    Raises:
      ValueError, FileNotFoundError: the model has no tokenizer that can be read.
    """
    if flag != "auto":
        return flag == "yes"
    if model is not None:
        files = model_folder.hf_files(model_folder.find_model(model))
        return load_tokenizer(files).opens_thinking
    return any(_shows_thought(text) for _, text in predictions)


def what_was_assumed(predictions: Sequence[Prediction], scores: Scores, thinking: bool) -> str:
    """A warning about answers that would be scored otherwise had `--thinking=auto` guessed otherwise, or "".

    Without `</think>` a text that is one list of boxes and nothing else is an answer; any other may be a
    thought that was cut off.
    """
    count = len(predictions)
    if thinking:
        shown = sum(_shows_thought(text) for _, text in predictions)
        touched = scores.reasons.count(TRUNCATED)
        what = f"thinks, as {shown} of {count} answers do: the {touched} without {THINK_END} were"
        what += " taken for cut off and earn nothing"
    else:
        touched = count - scores.reasons.count(VALID)
        what = f"does not think, as no answer has {THINK_END}: {touched} of {count} are more or less than a"
        what += (
            " plain list of boxes, and were scored by the boxes in them; thoughts cut off must earn nothing"
        )
    advice = "to be sure, say --thinking=yes or no, or name the model with --model=DIR"
    return f"--thinking=auto assumed a model that {what}; {advice}" if touched else ""


def _shows_thought(text: str) -> bool:
    return THINK_END in text or text.lstrip().startswith(THINK_START)


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
        help="whether answers follow </think> (a text without it was cut off and earns nothing); auto: as"
        " --model says, else yes if any text has a thought, with a warning that counts what is assumed",
    )
    parser.add_argument(
        "--model", help="Hugging Face folder or workdir that answered: its chat template tells if it thinks"
    )
    args = parser.parse_args(argv)
    if args.model and args.thinking != "auto":
        parser.error("--model and --thinking both say whether the model thinks: leave one out")
    with cli.user_errors():
        out = writable_file(args.out, "--out") if args.out else None
        config = cli.config_of(epath.Path(args.config), args.config) if args.config else base.get_config()
        predictions = read_predictions(args.predictions)
        pairs = open_pairs(args.data, args.split)
        thinking = decide_thinking(args.thinking, args.model, predictions)
        scores = score_predictions(
            predictions, pairs, thinking=thinking, config=RewardConfig.from_config(config)
        )
        counts = {
            "num_answers": len(predictions),
            "num_pairs": len(pairs),
            "num_pairs_without_answer": len(pairs) - len({id for id, _ in predictions}),
        }
        summary = counts | {"thinking": thinking} | mean_metrics(scores)
        lines = [*records(predictions, scores), {"summary": summary}]
    for line in lines if out is None else lines[-1:]:
        print(json.dumps(line), flush=True)  # whatever becomes of the file
    _print_table(summary)
    guessed = args.thinking == "auto" and not args.model
    if guessed and (warning := what_was_assumed(predictions, scores, thinking)):
        print(f"warning: {warning}", file=sys.stderr)
    if out is not None:
        with cli.user_errors():
            write_result(out, "".join(json.dumps(line) + "\n" for line in lines))


def _read_line(line: str, place: str) -> Prediction:
    try:
        record = json.loads(line, parse_int=float)  # of any number of digits; none is used
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
