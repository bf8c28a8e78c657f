"""What benchmarks have in common on the outside: the options they share, and figures for one table."""

import argparse
import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from data_gen.files.userfiles import check_writable, home_expanded, user_path


@dataclasses.dataclass(frozen=True)
class Result:
    """One line of the table.

    Attributes:
      what: is measured, with the setting.
      ours, peer: its figure, with the unit; "" where there is none.
      ratio: times better than the peer; 0 where there is no peer.
      aim: the ratio aimed for; 0 where there is none.
    """

    what: str
    ours: str
    peer: str = ""
    ratio: float = 0.0
    aim: float = 0.0


def make_parser(name: str, description: str) -> argparse.ArgumentParser:
    """The parser of `python -m bench.NAME`, with the options that every benchmark has."""
    parser = argparse.ArgumentParser(
        prog=f"python -m bench.{name}",
        description=description.replace("%", "%%"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--threads", type=at_least(1), default=2, help="CPUs and threads of each side (default 2)"
    )
    parser.add_argument(
        "--json", type=output_file, default="", metavar="FILE", help="write the figures of the table there"
    )
    parser.add_argument(
        "--profile",
        type=home_expanded,
        default="",
        metavar="DIR",
        help="after the timing, run dig_jax's side once more and leave a trace of it there, for TensorBoard",
    )
    return parser


def at_least(least: int) -> Callable[[str], int]:
    """The type of an option that is a whole number from `least` on."""

    def parse(text: str) -> int:
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"{value}: expected at least {least}")
        return value

    parse.__name__ = "whole number"  # in argparse's message about a word
    return parse


def output_file(text: str) -> str:
    """The type of an option that names a file to write: refused before the work if it cannot be written.

    No name, the default, is no file.
    """
    if not text:
        return text
    path = user_path(text)
    try:
        check_writable(path, "it")
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return str(path)


def save(results: Sequence[Result], path: str) -> None:
    """Writes results as JSON, unless the path is empty."""
    if path:
        Path(path).write_text(json.dumps([dataclasses.asdict(result) for result in results], indent=1))


def load(path: Path) -> list[Result]:
    """Reads what `save` wrote; nothing when there is no such file."""
    return [Result(**line) for line in json.loads(path.read_text())] if path.exists() else []


def table(results: Sequence[Result]) -> str:
    """Results as a table in Markdown."""
    lines = ["| | dig_jax | peer | ratio | aim |", "|---|---|---|---|---|"]
    for result in results:
        ratio, aim = (f"{value:.3g}" if value else "" for value in (result.ratio, result.aim))
        lines.append(f"| {result.what} | {result.ours} | {result.peer} | {ratio} | {aim} |")
    return "\n".join(lines)
