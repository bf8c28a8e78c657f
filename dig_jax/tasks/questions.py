"""Questions about pictures as examples of a task: their sizes known early, their pictures decoded late.

Own questions lie in a JSON-lines file, a line each:

    {"image": "a.jpg", "question": "...", ...}

or, of several pictures, with "images": ["a.jpg", "b.jpg"]. `id` may name a line; what is right, and what else
a question has, is the task's own.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from etils import epath

from dig_jax.data import images
from dig_jax.data.example import BadRecord, Example, Shape, Size, Turn
from dig_jax.machines import textfile
from dig_jax.machines.folder import to_path
from dig_jax.tasks.splits import lines_file, named_and_part

Ask = Callable[[Sequence[Size]], Turn]


class Picture(Protocol):
    """A picture that is read when it is needed."""

    @property
    def name(self) -> str:
        """Where it lies, for errors."""

    @property
    def key(self) -> str:
        """What is the same for the same picture, and for no other of the data set."""

    def read(self) -> bytes:
        """The encoded picture."""


@dataclasses.dataclass(frozen=True)
class PictureFile:
    """A picture that is a file of its own."""

    path: epath.Path

    @property
    def name(self) -> str:
        """The path."""
        return str(self.path)

    @property
    def key(self) -> str:
        """The path."""
        return str(self.path)

    def read(self) -> bytes:
        """The bytes of the file. Raises FileNotFoundError or ValueError."""
        return images.read_file(self.path)


def pixels(picture: Picture) -> np.ndarray:
    """The decoded picture, uint8 [H, W, 3]. Raises OSError or ValueError; names the place."""
    return images.decode_image(picture.read(), picture.name)


@dataclasses.dataclass(frozen=True, eq=False)
class Question:
    """One question, before its pictures are decoded.

    Attributes:
      id: of the example.
      pictures: in the order of their numbers.
      ask: what is said about pictures of these sizes.
      target: what is right, the task's own.
    """

    id: str
    pictures: tuple[Picture, ...]
    ask: Ask
    target: Any


class QuestionSource:
    """Questions as examples of a task.

    Args:
      name: of their files, for errors.
      questions: in the order of their numbers.
      task: name of the task.
      sizes: (height, width) of pictures, by their keys, as far as they are known already.
    """

    def __init__(
        self, name: str, questions: Sequence[Question], task: str, sizes: Mapping[str, Size] | None = None
    ):
        self.name = name
        self.unusable: tuple[tuple[int, BadRecord], ...] = ()
        self._questions = questions
        self._task = task
        self._sizes: dict[str, Size | None] = {**(sizes or {})}

    def __len__(self) -> int:
        return len(self._questions)

    def __getitem__(self, index: int) -> Example:
        """Question number `index` with its pictures. Raises BadRecord."""
        question = self._questions[index]
        try:
            shown = tuple(map(pixels, question.pictures))
        except Exception as error:  # a damaged picture can make its reader raise anything
            raise BadRecord(f"{self.name}, {question.id}: {error}") from error
        turn = question.ask([(image.shape[0], image.shape[1]) for image in shown])
        return Example(question.id, (turn,), shown, question.target, self._task)

    def shapes(self) -> Sequence[Shape | None]:
        """The shape of every example, from the headers of its pictures; None where one cannot be read."""
        return [self._shape(question) for question in self._questions]

    def _shape(self, question: Question) -> Shape | None:
        sizes = tuple(self._size(picture) for picture in question.pictures)
        known = tuple(size for size in sizes if size is not None)
        return Shape((question.ask(known),), known) if len(known) == len(sizes) else None

    def _size(self, picture: Picture) -> Size | None:
        if picture.key not in self._sizes:
            try:
                self._sizes[picture.key] = images.image_size(picture.read(), picture.name)
            except Exception:  # as in `__getitem__`, which says what it was
                self._sizes[picture.key] = None
        return self._sizes[picture.key]


Parse = Callable[[Mapping[str, Any], str], tuple[Ask, Any]]


def open_lines(
    folder: epath.PathLike, split: str, root: str, parse: Parse, task: str, form: str
) -> QuestionSource:
    """Opens own questions.

    Args:
      folder: a `.jsonl` file, which holds one split whatever `split` says, or a folder of SET_SPLIT.jsonl.
      split: its name, with a slice for a part: "val[:100]".
      root: folder of the pictures; "" for that of the file.
      parse: values of a line and its question -> what is asked, what is right. It may raise ValueError,
        TypeError or KeyError.
      task: name of the task.
      form: of a line, for errors.

    Raises:
      FileNotFoundError: there is no such file or folder.
      ValueError: it holds no such split, or lines of another form, which are counted; the first is named.
    """
    path = to_path(folder)
    if not path.exists():
        raise FileNotFoundError(f"no questions at {path}: there is no such file or folder")
    name, part = named_and_part(split)
    file = lines_file(path, name)
    if file is None:
        raise ValueError(f"{path} has no questions of the task {task}: expected files NAME_SPLIT.jsonl in it")
    pictures = epath.Path(root) if root else file.parent
    questions, wrong = [], []
    for number, line in enumerate(textfile.read_text(file).split("\n"), start=1):
        if line.strip():
            try:
                questions.append(_question(json.loads(line), f"{file.stem}-{number}", pictures, parse))
            except (ValueError, TypeError, KeyError, RecursionError) as error:
                wrong.append(f"line {number}: {error!r}")
    if wrong:
        raise ValueError(f"{file}: {len(wrong)} lines are not {form}; the first is {wrong[0]}")
    if len(ids := {question.id for question in questions}) < len(questions):
        raise ValueError(
            f"{file}: {len(questions)} questions have {len(ids)} different ids; each needs its own"
        )
    return QuestionSource(f"{file}, split {split!r}", questions[part], task)


def _question(line: Any, id: str, root: epath.Path, parse: Parse) -> Question:
    if not isinstance(line, dict):
        raise TypeError("expected an object {...}")
    shown, text = line.get("images", line.get("image")), line["question"]
    names = [shown] if isinstance(shown, str) else shown
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError("image must be a path, images a list of paths")
    if not isinstance(text, str) or not text.strip():
        raise ValueError("question must be a text")
    ask, target = parse(line, text.strip())
    return Question(str(line.get("id", id)), tuple(PictureFile(root / name) for name in names), ask, target)
