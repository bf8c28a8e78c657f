"""Flickr30K Entities, as published (github.com/BryanPlummer/flickr30k_entities).

A folder with `Sentences/ID.txt`, `Annotations/ID.xml`, and lists of ids `train.txt`, `val.txt`, `test.txt`;
images are in `flickr30k-images`, or wherever `config.data.images` says, as ID.jpg. A line of sentences marks
the phrases with the entity that each is of:

    [/EN#283585/people Two people] are photographing [/EN#0/notvisual each other] .

and the annotations have the boxes of entities, in pixels counted from 1, the last ones included, as those of
PASCAL VOC (the readers published with them take 1 off every corner); an object without a box is marked as the
whole scene or as not to be seen (`scene`, `nobndbox`). `read` gives the phrases whose entity has one box in
the image, and `sentences` gives whole captions with their boxes, those of several included.

An entity with a box that has no area inside its image (the last pixel before the first, or beside the image)
counts as one without boxes, whatever others it has: where all of it is nobody can tell. A warning counts such
boxes.
"""

from __future__ import annotations

import dataclasses
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator

from etils import epath

from dig_jax.data.example import Size
from dig_jax.machines import textfile
from dig_jax.tasks.published import check_count
from dig_jax.tasks.referring.target import Entry, box_in, say_left_out

_MARK = re.compile(r"\[/EN#(\d+)((?:/[\w-]+)+) ([^\]]+)\]")
_IMAGES = "flickr30k-images"

Corners = tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Phrase:
    """A part of a sentence.

    Attributes:
      first, end: its characters in `Sentence.text`.
      boxes: x0, y0, x1, y1 in pixels, half-open, of each place where its entity is; () where it has none.
    """

    first: int
    end: int
    boxes: tuple[Corners, ...]


@dataclasses.dataclass(frozen=True)
class Sentence:
    """One caption of an image.

    Attributes:
      id: of image and sentence.
      image: its file.
      size: of the image.
      text: without marks.
      phrases: in the order of the text.
    """

    id: str
    image: epath.Path
    size: Size
    text: str
    phrases: tuple[Phrase, ...]


def is_there(path: epath.Path) -> bool:
    """Whether a path is the folder of Flickr30K Entities."""
    return path.is_dir() and (path / "Sentences").exists() and (path / "Annotations").exists()


def read(path: epath.Path, split: str, root: epath.Path | None) -> list[Entry]:
    """The phrases of a split that have one box, each phrase once for an image.

    Args, Raises: see `sentences`.
    """
    entries: dict[tuple[epath.Path, str], Entry] = {}
    for sentence in sentences(path, split, root):
        for number, phrase in enumerate(sentence.phrases):
            text = sentence.text[phrase.first : phrase.end]
            key = sentence.image, text.lower()
            if len(phrase.boxes) == 1 and key not in entries:
                entries[key] = Entry(
                    f"{sentence.id}-{number}", sentence.image, sentence.size, text, phrase.boxes[0]
                )
    return list(entries.values())


def sentences(path: epath.Path, split: str, root: epath.Path | None) -> Iterator[Sentence]:
    """The captions of a split, five for most images.

    Args:
      path: the folder.
      split: "train", "val" or "test".
      root: folder of the images; None for `flickr30k-images` in the folder.

    Raises:
      ValueError: there is no such split, it has more images than were published, or a file is of another
        form; names the file and the line.
    """
    listed = path / f"{split}.txt"
    if not listed.exists():
        known = ", ".join(sorted(file.stem for file in path.glob("*.txt"))) or "none"
        raise ValueError(f"{path} has no list {split}.txt of images; it has {known}")
    ids = textfile.read_text(listed).split()
    check_count(f"flickr30k/{split}" if split in ("train", "val", "test") else "", len(ids), listed)
    wrong: list[str] = []
    total = 0
    for id in ids:
        size, boxes, bad, count = _annotations(path / "Annotations" / f"{id}.xml")
        wrong, total = wrong + bad, total + count
        image = (root or path / _IMAGES) / f"{id}.jpg"
        file = path / "Sentences" / f"{id}.txt"
        for number, line in enumerate(textfile.read_text(file).splitlines(), start=1):
            if line.strip():
                text, phrases = _parsed(line.strip(), boxes, f"{file}, line {number}")
                yield Sentence(f"{id}-{number}", image, size, text, phrases)
    say_left_out(wrong, total, f"{path}, split {split!r}", "all boxes of their entities are")


def _parsed(line: str, boxes: dict[str, list[Corners]], where: str) -> tuple[str, tuple[Phrase, ...]]:
    """A line without marks, and its phrases. Raises ValueError."""
    text, phrases, end = "", [], 0
    for mark in _MARK.finditer(line):
        text += line[end : mark.start()]
        phrases.append(Phrase(len(text), len(text) + len(mark[3]), tuple(boxes.get(mark[1], ()))))
        text += mark[3]
        end = mark.end()
    text += line[end:]
    if "[/EN#" in text:
        raise ValueError(f"{where}: a mark is not closed: {line[line.rindex('[/EN#') :][:60]!r}")
    return text, tuple(phrases)


def _annotations(file: epath.Path) -> tuple[Size, dict[str, list[Corners]], list[str], int]:
    """Size of an image, boxes of its entities, what is wrong with others, and how many there are in all.

    Raises ValueError.
    """
    try:
        top = ElementTree.fromstring(textfile.read_text(file))
        size = _number(top, "size/height"), _number(top, "size/width")
        boxes: dict[str, list[Corners]] = {}
        wrong, unknown, count = [], set(), 0
        for thing in top.iter("object"):
            if (box := thing.find("bndbox")) is None:  # of the whole scene, or not to be seen
                continue
            first, last = (("xmin", "ymin"), ("xmax", "ymax"))
            corners = (
                *(float(max(0, _number(box, side) - 1)) for side in first),
                *(float(_number(box, side)) for side in last),
            )
            names = [(name.text or "").strip() for name in thing.iter("name")]
            count += 1
            try:
                box_in(Entry("", file, size, "", corners), size)
            except ValueError as error:
                wrong.append(f"{file}: {error}")
                unknown.update(names)
            for name in names:
                boxes.setdefault(name, []).append(corners)
        known = {name: found for name, found in boxes.items() if name not in unknown}
        return size, known, wrong, count
    except (ElementTree.ParseError, ValueError) as error:
        raise ValueError(f"{file}: {error}") from error


def _number(element: ElementTree.Element, path: str) -> int:
    text = element.findtext(path)
    if text is None or not text.strip().isdigit():
        raise ValueError(f"{path} is {text!r}; expected a whole number")
    return int(text)
