"""Scores saved answers without a model: `python -m dig_jax.score --predictions=FILE.jsonl --data=DIR`.

A predictions file has one `{"id": ..., "text": ...}` per line: the id of an example and the raw text of an
answer to it; an example may have several answers. The result has one JSON line per answer (reward terms,
parse reason, boxes or what else the task reads) and a last line `{"summary": {...}}` with the means and the
share of every parse reason. With `--out` it goes to that file, and the terminal gets the summary line alone.

A thought that was cut off before `</think>` is no answer and earns nothing. Whether the model thinks is told
by `--thinking` or by the chat template of `--model`; without either it is guessed from the texts, and where
the guess decides how answers are scored, a warning says so and how many they are.

With `--benchmark=TABLE --out=FILE.json` a result table of VLMEvalKit is scored, such as model_MMStar.tsv: its
scores, the answer read from every row and why, and how many could not be read or were cut off.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from etils import epath
from ml_collections import ConfigDict
from rich.console import Console
from rich.table import Table

from configs import base
from dig_jax import settings
from dig_jax.benchmarks.rescoring import rescore
from dig_jax.benchmarks.row import Reader
from dig_jax.data.example import Example, Source
from dig_jax.data.tokenizer import THINK_END, load_tokenizer
from dig_jax.machines import textfile
from dig_jax.machines.folder import to_path, writable_file, write_result
from dig_jax.run import cli, loading, model_folder
from dig_jax.run.evaluations import Entry
from dig_jax.tasks import rewards
from dig_jax.tasks.answers import THINK_START
from dig_jax.tasks.boxes.text import CONVENTIONS, TRUNCATED, VALID
from dig_jax.tasks.task import Answerer, Scores, Task, join

_AT_A_TIME = 256  # examples whose images are in memory

Prediction = tuple[str, str]  # id of the example, raw text of the answer


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
        touched = scores.notes.count(TRUNCATED)
        what = f"thinks, as {shown} of {count} answers do: the {touched} without {THINK_END} were"
        what += " taken for cut off and earn nothing"
    else:
        touched = count - scores.notes.count(VALID)
        what = f"does not think, as no answer has {THINK_END}: {touched} of {count} are more or less than a"
        what += (
            " plain list of boxes, and were scored by the boxes in them; thoughts cut off must earn nothing"
        )
    advice = "to be sure, say --thinking=yes or no, or name the model with --model=DIR"
    return f"--thinking=auto assumed a model that {what}; {advice}" if touched else ""


def _shows_thought(text: str) -> bool:
    return THINK_END in text or text.lstrip().startswith(THINK_START)


def score_predictions(predictions: Sequence[Prediction], source: Source, task: Task) -> Scores:
    """Scores answers to examples, in the order of the answers.

    Raises:
      ValueError: an answer is for an example that the split does not have.
    """
    rows_of: dict[str, list[int]] = {}
    for row, (id, _) in enumerate(predictions):
        rows_of.setdefault(id, []).append(row)
    parts: list[Scores] = []
    order: list[int] = []
    for first in range(0, len(source), _AT_A_TIME):
        examples = [source[index] for index in range(first, min(first + _AT_A_TIME, len(source)))]
        asked: list[tuple[int, Example]] = [
            (row, example) for example in examples for row in rows_of.pop(example.id, ())
        ]
        if asked:
            order += [row for row, _ in asked]
            texts = [predictions[row][1] for row in order[-len(asked) :]]
            parts.append(task.score(texts, [example for _, example in asked]))
    if rows_of:
        unknown = sum(len(rows) for rows in rows_of.values())
        raise ValueError(
            f"{source.name} does not have the examples of {unknown} of {len(predictions)} predictions; "
            f"the first is {next(iter(rows_of))!r}"
        )
    return _taken(join(parts), np.argsort(order))


def _taken(scores: Scores, rows: np.ndarray) -> Scores:
    """The scores of these answers, in this order."""
    return Scores(
        scores.reward[rows],
        {name: values[rows] for name, values in scores.terms.items()},
        tuple(scores.notes[row] for row in rows),
        tuple(scores.read[row] for row in rows),
    )


def records(predictions: Sequence[Prediction], scores: Scores) -> list[dict[str, Any]]:
    """One JSON object per answer: id, reward terms, parse reason, and what was read, boxes as 0..1."""
    terms = {name: values.tolist() for name, values in scores.all_terms.items()}
    return [
        {"id": id}
        | {name: values[row] for name, values in terms.items()}
        | {"reason": scores.notes[row], **scores.read[row]}
        for row, (id, _) in enumerate(predictions)
    ]


def make_task(config: ConfigDict, model: str | None, thinking: bool) -> Task:
    """The task whose answers are scored; without a model, boxes are in thousandths unless the config differs.

    Raises:
      ValueError: boxes are in pixels of the image as a model sees it, and no model is named.
    """
    if model is not None:
        folder = model_folder.find_model(model)
        tokenizer = load_tokenizer(model_folder.hf_files(folder))
        return loading.make_task(config, folder, tokenizer)
    convention = config.data.box_convention or CONVENTIONS[0]
    if convention == "pixels":
        raise ValueError(
            "--box_convention=pixels, or config.data.box_convention, counts pixels of the image as the model"
            " sees it: name the model with --model=DIR"
        )
    answerer = Answerer(thinking, convention, resized=lambda size: size)
    return rewards.make_task(config, answerer)


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="dig_jax.score", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--predictions", required=True, help='one {"id": ..., "text": ...} per line; or a result table'
    )
    parser.add_argument("--data", help="dig_pairs dataset, or what else the task can open")
    parser.add_argument("--split", help="of --data (default: test)")
    parser.add_argument("--task", help="what was asked (default: config.task)")
    parser.add_argument("--task_file", help=cli.TASK_FILE_HELP)
    parser.add_argument("--reward_file", help=cli.REWARD_FILE_HELP)
    parser.add_argument("--out", help="file for the result; without it, all lines go to the terminal")
    parser.add_argument(
        "--config",
        help="config file with the reward's settings (default: those of --model's run, else configs/base.py)",
    )
    parser.add_argument(
        "--box_convention",
        choices=CONVENTIONS,
        help="how the answers write boxes; pixels need --model (default: as --model does, else thousandths)",
    )
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
    parser.add_argument(
        "--benchmark",
        metavar="TABLE",
        help="score a result table of VLMEvalKit instead (.tsv, .csv, .jsonl, .json, .xlsx): the name of its"
        " question table, such as MMStar, MMBench_DEV_EN, POPE, RefCOCO, CV-Bench-2D: docs/benchmarks.md",
    )
    parser.add_argument(
        "--questions", help="the question table, where --predictions of a --benchmark lacks its columns"
    )
    parser.add_argument(
        "--compat",
        choices=("vlmevalkit",),
        help="read answers to a --benchmark as that toolkit does, with its faults, for comparison",
    )
    parser.add_argument(
        "--repair_labels",
        action="store_true",
        help="put labels of a --benchmark right that are known to be wrong, and say which",
    )
    args = parser.parse_args(argv)
    if args.model and args.thinking != "auto":
        parser.error("--model and --thinking both say whether the model thinks: leave one out")
    if args.benchmark:
        for name in ("data", "split", "task", "task_file", "reward_file", "config", "box_convention"):
            if getattr(args, name):
                parser.error(f"--{name} is for predictions of a data set: leave it out, or --benchmark")
        if args.compat and (args.model or args.thinking != "auto"):
            parser.error(
                "--compat reads answers as the toolkit does, whatever the model: leave out --model"
                " and --thinking"
            )
        _score_benchmark(args)
        return
    for name in ("questions", "compat", "repair_labels"):
        if getattr(args, name):
            parser.error(f"--{name} is for predictions of a --benchmark")
    if not args.data:
        parser.error("name the data set with --data, or a table of VLMEvalKit with --benchmark")
    _score_data(args)


def _score_data(args: argparse.Namespace) -> None:
    """Scores answers to the examples of a data set."""
    with cli.user_errors():
        out = writable_file(args.out, "--out") if args.out else None
        config = _config_of(args.model, args.config)
        config.data.box_convention = args.box_convention or config.data.box_convention
        asked = Entry("", args.task or config.task, args.data, args.split or "test", 1, 0)
        config = asked.config(config)
        cli.take_user_files(config, args.task_file, args.reward_file)
        settings.check_task(config)
        predictions = read_predictions(args.predictions)
        thinking = decide_thinking(args.thinking, args.model, predictions)
        task = make_task(config, args.model, thinking)
        source = task.open(args.data, args.split or "test")
        scores = score_predictions(predictions, source, task)
        counts = {
            "num_answers": len(predictions),
            "num_pairs": len(source),
            "num_pairs_without_answer": len(source) - len({id for id, _ in predictions}),
        }
        summary = counts | {"thinking": thinking} | task.summary(scores)
        lines = [*records(predictions, scores), {"summary": summary}]
    for line in lines if out is None else lines[-1:]:
        print(json.dumps(line), flush=True)  # whatever becomes of the file
    _print_table(summary, task.unit)
    guessed = args.thinking == "auto" and not args.model
    if guessed and (warning := what_was_assumed(predictions, scores, thinking)):
        print(f"warning: {warning}", file=sys.stderr)
    if out is not None:
        with cli.user_errors():
            write_result(out, "".join(json.dumps(line) + "\n" for line in lines))


def _config_of(model: str | None, file: str | None) -> ConfigDict:
    """The settings that --config names, else those of the model's run, else those of configs/base.py."""
    if file:
        return cli.config_of(epath.Path(file), file)
    return cli.config_of(model_folder.find_model(model)) if model else base.get_config()


def _score_benchmark(args: argparse.Namespace) -> None:
    """Scores a result table of a benchmark; nothing of an earlier scoring is read."""
    with cli.user_errors():
        out = writable_file(args.out, "--out") if args.out else None
        reader = Reader(opens_thought=args.thinking == "yes", compat=bool(args.compat))
        if args.model:
            folder = model_folder.find_model(args.model)
            tokenizer = load_tokenizer(model_folder.hf_files(folder))
            answerer = loading.make_task(base.get_config(), folder, tokenizer).answerer
            reader = Reader(answerer.thinking, answerer.box_convention, answerer.resized)
        questions = to_path(args.questions) if args.questions else None
        result = rescore(
            args.benchmark, to_path(args.predictions), questions, reader, repair=args.repair_labels
        )
    short = {name: value for name, value in result.items() if name != "rows"}
    print(json.dumps(result if out is None else short, ensure_ascii=False), flush=True)
    table = Table(title=f"{result['table']}, {result['answers']} answers", show_header=False)
    for name in ("unparsed", "cut_off"):
        table.add_row(name, f"{result[name]} of {result['answers']}")
    for name, value in result["scores"].items():
        table.add_row(name, f"{value:.4f}")
    for name, value in result["baselines"].items():
        table.add_row(f"{result['headline']['name']}, {name}", f"{value:.4f}")
    Console(stderr=True).print(table)
    for split, rows in result["completeness"].items():
        print(f"{split}: {rows}", file=sys.stderr)
    for warning in result["warnings"]:
        print(f"warning: {warning}", file=sys.stderr)
    if out is not None:
        with cli.user_errors():
            write_result(out, json.dumps(result, ensure_ascii=False, indent=1) + "\n")


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


def _print_table(summary: dict[str, float], unit: str) -> None:
    """Shows the summary to a reader, on stderr: stdout is for programs."""
    table = Table(show_header=False)
    for name, value in summary.items():
        if value or not name.startswith("answer/"):  # parse reasons that never occurred say nothing
            table.add_row(name, str(value) if isinstance(value, int) else f"{value:.4f}")
    Console(stderr=True).print(table)
    if summary["num_pairs_without_answer"]:
        print(
            f"warning: {summary['num_pairs_without_answer']} of {summary['num_pairs']} {unit} have no answer;"
            " the means are over the answers given",
            file=sys.stderr,
        )


if __name__ == "__main__":
    main()
