"""Answers on the disk as they come: a file that a killed command goes on with, and no other may.

The first line of the file says how its answers are drawn; each further line is one answer, written whole. A
line that a kill cut off is dropped when the file is opened again. Answers of other settings or of another
model are never mixed in: the file is refused, and the error names the settings that differ.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO

from etils import epath

from dig_jax.machines import textfile
from dig_jax.machines.folder import is_local

HOW = "how"  # key of the first line
_FREE = ("versions", "device")  # of the first line: written down, and may differ when a command goes on


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a model said to one row of a benchmark.

    Attributes:
      index: of the row.
      prediction: the answer, without special tokens; of a Thinking model with its thought.
      tokens: its length.
      finished: whether it ended; False means cut at the most tokens allowed.
    """

    index: str
    prediction: str
    tokens: int
    finished: bool


class AnswerFile:
    """An open file of answers, to which this process alone adds.

    Attributes:
      answers: those there are, by index of their row.
    """

    def __init__(self, file: BinaryIO, answers: dict[str, Answer]):
        self._file = file
        self.answers = answers

    def add(self, answers: Sequence[Answer]) -> None:
        """Writes answers, and returns when they are on the disk."""
        lines = (json.dumps(dataclasses.asdict(answer), ensure_ascii=False) + "\n" for answer in answers)
        self._file.write("".join(lines).encode())
        self._file.flush()
        os.fsync(self._file.fileno())
        self.answers |= {answer.index: answer for answer in answers}


@contextlib.contextmanager
def opened(path: epath.Path, how: Mapping[str, Any]) -> Iterator[AnswerFile]:
    """The file of answers at `path`, begun or gone on with.

    Args:
      path: on a local disk.
      how: what decides the answers, as values that JSON takes, and under `versions` and `device` what is
        written down beside it.

    Raises:
      ValueError: it holds answers drawn in another way, is no such file, another process writes it, or it
        would be in a bucket.
    """
    if not is_local(path):
        raise ValueError(
            f"{path}: answers are saved one by one, which a bucket cannot do; name a folder on a disk, and"
            " copy it when all is done"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"{path}: another process is writing it; wait, or name another --out") from None
        _drop_torn_line(file)
        if file.tell():
            _check_alike(path, read(path)[0], how)
        else:
            file.write((json.dumps({HOW: dict(how)}, ensure_ascii=False) + "\n").encode())
            file.flush()
        yield AnswerFile(file, {answer.index: answer for answer in read(path)[1]})


def read(path: epath.Path) -> tuple[dict[str, Any], list[Answer]]:
    """How the answers of a file were drawn, and the answers in the order they came.

    Raises:
      FileNotFoundError: there is none.
      ValueError: it is no such file; names the line.
    """
    lines = textfile.read_text(path).split("\n")[:-1]  # what follows the last end is torn, or nothing
    how, answers = None, []
    for number, line in enumerate(lines, start=1):
        place = f"{path}, line {number}"
        record = textfile.parse_json(line, place)
        try:
            if number == 1:
                how = dict(record[HOW])
            else:
                answers.append(Answer(**record))
        except (TypeError, KeyError, ValueError):
            raise ValueError(f"{place}: expected saved answers of a benchmark, got {line[:80]!r}") from None
    if how is None:
        raise ValueError(f"{path} holds no saved answers of a benchmark")
    return how, answers


def differing(one: Mapping[str, Any], other: Mapping[str, Any], prefix: str = "") -> list[str]:
    """In words, each setting that is not the same in both, those in groups by their path: `model.weights`."""
    found = []
    for key in dict.fromkeys((*one, *other)):
        here, there = one.get(key), other.get(key)
        if isinstance(here, Mapping) and isinstance(there, Mapping):
            found += differing(here, there, f"{prefix}{key}.")
        elif here != there:
            found.append(f"{prefix}{key} {_short(here)} and now {_short(there)}")
    return found


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 100 else f"{text[:97]}..."


def _check_alike(path: epath.Path, how: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    def bound(settings: Mapping[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in settings.items() if key not in _FREE}

    # As JSON has them: a tuple is a list there.
    if changed := differing(bound(how), bound(json.loads(json.dumps(dict(now))))):
        raise ValueError(
            f"{path} holds answers drawn in another way: {'; '.join(changed)}. Name another --out, or remove"
            " the file to begin again"
        )


def _drop_torn_line(file: BinaryIO) -> None:
    """Cuts what follows the last end of a line, and leaves the file at its end."""
    file.seek(0)
    data = file.read()
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        file.truncate(whole)
    file.seek(whole)
