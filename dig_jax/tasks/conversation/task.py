"""Conversations: the answers of an assistant are learnt, all of a conversation in one sequence.

    reward = f1, of the words of an answer and of the true one, as SQuAD counts them

Supervised training is what this task is for. In evaluations, and as a reward, the last answer is asked for:
`exact` is 1 where it says the same words, case and punctuation left aside. Answers that are long and free
have no right wording, and benchmarks tell more of them; short ones (a color, a count, a box) are measured
well.

Data are files of conversations in LLaVA's form (`llava`), and aligned records (`aligned`).
"""

from __future__ import annotations

import collections
import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath
from ml_collections import ConfigDict
from PIL import Image

from dig_jax.data import images
from dig_jax.data.example import BadRecord, Demonstration, Example, Shape, Size, Source, Turn
from dig_jax.data.image_files import ImageSizes
from dig_jax.data.records import open_records
from dig_jax.machines import checks
from dig_jax.machines.folder import to_path
from dig_jax.tasks.aligned import AlignedSource, is_aligned, text_of, with_boxes
from dig_jax.tasks.answers import final_answer
from dig_jax.tasks.boxes.pictures import draw_boxes
from dig_jax.tasks.conversation import llava
from dig_jax.tasks.conversation.answer import Answer
from dig_jax.tasks.conversation.llava import Talk
from dig_jax.tasks.published import check_count, release_of
from dig_jax.tasks.registry import register
from dig_jax.tasks.splits import named_and_part
from dig_jax.tasks.supervision import box_format, check_words
from dig_jax.tasks.task import Metric, Scores, Task

_WORD = re.compile(r"\d+(?:\.\d+)?|[^\W_]+", re.UNICODE)
_SUFFIXES = (".json", ".jsonl")
_OF_TFDS = ("dataset_info.json", "features.json", "metadata.json")
_NO_BOXES = np.zeros((0, 4), np.float32)


@dataclasses.dataclass(frozen=True)
class ConversationConfig:
    """How much of a conversation is shown. Defaults live in `configs/base.py`.

    Attributes:
      kinds: of items of aligned records; () = all.
      joined: up to so many of a picture's items are one conversation; 0 = each is one.
      max_characters: rounds are shown as long as all of them have no more, the first in any case; 0 = all.
    """

    max_characters: int
    kinds: tuple[str, ...]
    joined: int

    @classmethod
    def from_config(cls, config: ConfigDict) -> ConversationConfig:
        """The checked settings of a run, stage or part."""
        values = config.conversation.to_dict()
        return cls(values["max_characters"], tuple(values["kinds"]), values["joined"])

    def __post_init__(self) -> None:
        checks.at_least("conversation.max_characters", self.max_characters, 0, "all rounds")
        checks.at_least("conversation.joined", self.joined, 0, "each item alone")


class TalkSource:
    """The conversations of a file as examples."""

    def __init__(self, name: str, talks: Sequence[Talk], wrong: Sequence[tuple[int, BadRecord]], task: str):
        self.name = name
        self.unusable = tuple(wrong)
        self._talks = talks
        self._task = task
        self._sizes = ImageSizes()

    def __len__(self) -> int:
        return len(self._talks)

    def __getitem__(self, index: int) -> Example:
        """Conversation number `index` with its images. Raises BadRecord."""
        talk = self._talks[index]
        try:
            shown = tuple(images.decode_image(images.read_file(path), str(path)) for path in talk.images)
        except Exception as error:  # a damaged picture can make its reader raise anything
            raise BadRecord(f"{self.name}, {talk.id}: {error}") from error
        *before, last = talk.turns
        (text,) = last.parts
        return Example(talk.id, tuple(before), shown, Answer(str(text)), self._task)

    def shapes(self) -> list[Shape | None]:
        """The shape of every conversation, from headers of its pictures; None where one cannot be read."""
        return [self._shape(talk) for talk in self._talks]

    def _shape(self, talk: Talk) -> Shape | None:
        sizes = tuple(self._sizes[path] for path in talk.images)
        known = tuple(size for size in sizes if size is not None)
        return Shape(talk.turns[:-1], known) if len(known) == len(sizes) else None


@register
class Conversation(Task):
    """Turns as they were written; the target is an `Answer`."""

    name = "conversation"
    terms = ("f1", "exact", "words")
    metrics = (Metric("exact", "same words"), Metric("f1", "F1 of words"), Metric("reward", "mean reward"))
    main = "f1"

    @classmethod
    def check(cls, config: ConfigDict) -> None:
        """Refuses a question of the run's, and changes that would make answers wrong."""
        settings = ConversationConfig.from_config(config)
        if settings.joined > 1 and config.algorithm == "sft" and not config.sft.max_earlier_tokens:
            raise ValueError(
                f"config.conversation.joined={settings.joined} with config.sft.max_earlier_tokens=0 would"
                " learn the last of so many answers alone; give it the tokens of the others, such as 80"
            )
        if config.data.question:
            raise ValueError(
                f"config.data.question={config.data.question!r}: conversations have questions of their own;"
                " set it to ''"
            )
        check_words(config, cls.name, "answers name places, colors and boxes")

    @property
    def unit(self) -> str:
        """What its examples are called."""
        return "conversations"

    def open(self, folder: epath.PathLike, split: str) -> Source:
        """Aligned records; or the conversations of a file in LLaVA's form, or of the only one in a folder.

        Such a file is one split, whatever its name is; a slice ("train[:1000]") takes a part of it.
        """
        path, settings = to_path(folder), ConversationConfig.from_config(self.config)
        if path.is_dir() and not any(file.suffix in _SUFFIXES for file in _own_files(path)):
            records = open_records(path, split)
            if not is_aligned(records):
                raise ValueError(f"{path} has no conversations: its records are not of data_gen.align")
            boxes = box_format(self.config, self.answerer)

            def target(turns: tuple[Turn, ...], size: Size) -> Answer:
                return Answer(text_of(with_boxes(turns, size, boxes)[-1]))

            taken = (records, settings.kinds, self.name, target, boxes)
            return AlignedSource(*taken, every=True, joined=settings.joined)
        file, root = _file(path), self.config.data.images
        for name, given, none in (("kinds", settings.kinds, "()"), ("joined", settings.joined, "0")):
            if given:
                raise ValueError(
                    f"config.conversation.{name}={given}: {file} has conversations, and no items of kinds;"
                    f" set it to {none} for this part"
                )
        found = list(llava.read(file, epath.Path(root) if root else file.parent, settings.max_characters))
        partial = check_count(release_of(file), len(found), file)
        wanted = list(enumerate(found))[named_and_part(split)[1]]
        talks = [talk for _, talk in wanted if isinstance(talk, Talk)]
        wrong = [(number, BadRecord(str(talk))) for number, talk in wanted if isinstance(talk, ValueError)]
        name = f"{file}, split {split!r}" + (f" ({partial})" if partial else "")
        return TalkSource(name, talks, wrong, self.name)

    def demonstrate(self, example: Example, rng: np.random.Generator) -> Demonstration:
        """The last answer, and those before it."""
        return Demonstration(example.target.text, earlier=answers_of(example.messages))

    def score(self, texts: Sequence[str], examples: Sequence[Example]) -> Scores:
        """Words that an answer shares with the true one."""
        said = [final_answer(text, self.answerer.thinking).text for text in texts]
        pairs = [
            (words(text), words(example.target.text)) for text, example in zip(said, examples, strict=True)
        ]
        f1 = np.array([word_f1(*pair) for pair in pairs], np.float32)
        exact = np.array([ours == true for ours, true in pairs], np.float32)
        lengths = np.array([len(ours) for ours, _ in pairs], np.int32)
        read = tuple({"answer": text} for text in said)
        return Scores(f1, {"f1": f1, "exact": exact, "words": lengths}, ("",) * len(said), read)

    def truth(self, example: Example) -> dict[str, Any]:
        """The true answer."""
        return {"answer": example.target.text}

    def draw(self, example: Example, read: Mapping[str, Any], caption: Sequence[str]) -> Image.Image:
        """The pictures above the last question, the true answer and the one read."""
        asked = [part for part in example.messages[-1].parts if isinstance(part, str)]
        said = [f"true: {example.target.text}", f"read: {read['answer'] or 'none'}"]
        shown = example.images or (np.full((32, 256, 3), 255, np.uint8),)
        return draw_boxes(shown, _NO_BOXES, _NO_BOXES, [*asked, *said, *caption])


def answers_of(messages: Sequence[Turn]) -> tuple[int, ...]:
    """Numbers of the assistant's turns."""
    return tuple(number for number, turn in enumerate(messages) if turn.role == "assistant")


def words(text: str) -> list[str]:
    """Words and numbers of a text, in lower case."""
    return [word.lower() for word in _WORD.findall(text)]


def word_f1(ours: Sequence[str], true: Sequence[str]) -> float:
    """F1 of two bags of words; of two empty ones 1."""
    if not ours or not true:
        return float(not ours and not true)
    common = sum((collections.Counter(ours) & collections.Counter(true)).values())
    return 2 * common / (len(ours) + len(true))


def _own_files(folder: epath.Path) -> list[epath.Path]:
    """The files of a folder that are none of TFDS's descriptions of a dataset."""
    return sorted(file for file in folder.iterdir() if file.name not in _OF_TFDS)


def _file(path: epath.Path) -> epath.Path:
    """The file of conversations: the path itself, or the only JSON file in it.

    Raises:
      FileNotFoundError, ValueError: there is none, or there are several.
    """
    if not path.exists():
        raise FileNotFoundError(f"no conversations at {path}: there is no such file or folder")
    files = [path] if not path.is_dir() else _own_files(path)
    files = [file for file in files if file.suffix in _SUFFIXES]
    if len(files) != 1:
        found = ", ".join(file.name for file in files) or "none"
        raise ValueError(f"{path}: expected one .json or .jsonl file of conversations, found {found}")
    return files[0]
