"""Conversations in LLaVA's form: a JSON list, or JSON lines, of

    {"id": ..., "image": "coco/train2017/000000033471.jpg", "conversations": [
      {"from": "human", "value": "<image>\\nWhat are the colors of the bus?"},
      {"from": "gpt", "value": "White and red."}, ...]}

as LLaVA's 595K and 558K captions, `llava_v1_5_mix665k.json`, ShareGPT4V's mixes and GroundingGPT's sets are
published. `image` may be missing (text alone) or a list; `objects` may list pictures that the marks
`<object>` stand for, in their order. A conversation that begins with the assistant loses that turn, and one
that ends with a question loses that, as in LLaVA's trainer.

Where `<image>` stands inside a turn is an accident of how the files were made, so the marks of a turn go
before its text, each with a line end, as LLaVA and GroundingGPT have them. Where `<object>` stands says which
noun or which option it is: it stays.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from etils import epath

from dig_jax.data.example import Turn, marked_parts
from dig_jax.machines import textfile

_ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
FORM = '{"image": ..., "conversations": [{"from": "human", "value": ...}, {"from": "gpt", "value": ...}]}'


@dataclasses.dataclass(frozen=True, slots=True)
class Talk:
    """One conversation.

    Attributes:
      id: unique within its file.
      images: files of the pictures, whole images first, then objects.
      turns: from the first question to the last answer.
    """

    id: str
    images: tuple[epath.Path, ...]
    turns: tuple[Turn, ...]


def read(file: epath.Path, root: epath.Path, max_characters: int = 0) -> Iterator[Talk | ValueError]:
    """The conversations of a file, in its order; in place of one that is of another form, what is wrong.

    Args:
      file: `.json` or `.jsonl`.
      root: folder of the pictures.
      max_characters: rounds are kept as long as all of them together have no more, and the first in any case;
        0 keeps all. A conversation whose first question alone has more is wrong.

    Raises:
      ValueError: the file is no JSON list, or no JSON lines.
    """
    for place, entry in _entries(file):
        try:
            yield _talk(entry, f"{file.stem}-{place}", root, max_characters)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            text = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
            yield ValueError(f"{file}, {place}: {text}; expected {FORM}")


def _entries(file: epath.Path) -> Iterator[tuple[str, Any]]:
    """The entries with where they are: "line 3" of JSON lines, "entry 3" of a list, both from 1."""
    text = textfile.read_text(file)
    if file.suffix == ".jsonl":
        for number, line in enumerate(text.split("\n"), start=1):
            if line.strip():
                yield f"line {number}", textfile.parse_json(line, f"{file}, line {number}")
        return
    entries = textfile.parse_json(text, str(file))
    if not isinstance(entries, list):
        raise ValueError(f"{file}: expected a JSON list of {FORM}, got {json.dumps(entries)[:60]}")
    for number, entry in enumerate(entries, start=1):
        yield f"entry {number}", entry


def _talk(entry: Mapping[str, Any], place: str, root: epath.Path, max_characters: int) -> Talk:
    if not isinstance(entry, dict):
        raise TypeError(f"it is {json.dumps(entry)[:40]}")
    images, objects = _paths(entry, "image"), _paths(entry, "objects")
    said = [(_ROLES.get(turn["from"], ""), _text(turn["value"])) for turn in entry["conversations"]]
    if not all(role for role, _ in said):
        raise ValueError(f"a turn is from {[turn['from'] for turn in entry['conversations']]!r}")
    said = _within(_rounds(said), max_characters)
    marked = bool(images or objects)
    counts = {mark: sum(text.count(mark) for _, text in said) for mark in ("<image>", "<object>")}
    if marked and max_characters and counts["<image>"] <= len(images) and counts["<object>"] <= len(objects):
        objects = objects[: counts["<object>"]]  # of rounds that were left out
    if marked and [*counts.values()] != [len(images), len(objects)]:
        raise ValueError(
            f"it has {len(images)} images and {len(objects)} objects, and marks for {counts['<image>']} and"
            f" {counts['<object>']}"
        )
    turns, shown, seen = [], 0, len(images)
    for role, text in said:
        if not marked:  # text alone: what looks like a mark is a word
            turns.append(Turn(role, (text,)))
            continue
        turns.append(Turn(role, marked_parts(_images_first(text), shown, seen)))
        shown, seen = shown + text.count("<image>"), seen + text.count("<object>")
    id = entry.get("id", "")
    name = f"{place}:{id}" if isinstance(id, str | int) and id != "" else place
    return Talk(name, tuple(root / path for path in (*images, *objects)), tuple(turns))


def _paths(entry: Mapping[str, Any], key: str) -> list[str]:
    value = entry.get(key)
    paths = [] if value is None else [value] if isinstance(value, str) else value
    if not isinstance(paths, list) or not all(isinstance(path, str) and path for path in paths):
        raise ValueError(f"{key} is {json.dumps(value)[:40]}, and neither a path nor a list of paths")
    return paths


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"a turn says {json.dumps(value)[:40]}, which is no text")
    return value.strip()


def _rounds(said: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """The turns from the first question to the last answer, in turn. Raises ValueError."""
    system = [*said[:1]] if said and said[0][0] == "system" else []
    rest = list(said[len(system) :])
    if rest and rest[0][0] == "assistant":
        rest = rest[1:]
    if rest and rest[-1][0] == "user":
        rest = rest[:-1]
    if not rest or any(role != ("user", "assistant")[n % 2] for n, (role, _) in enumerate(rest)):
        raise ValueError(f"its turns are of {', '.join(role for role, _ in said) or 'nobody'}, not in turn")
    if not all(text for role, text in rest if role == "assistant"):
        raise ValueError("an answer is empty")
    return system + rest


def _within(said: list[tuple[str, str]], most: int) -> list[tuple[str, str]]:
    """The rounds that have no more than `most` characters together, the first in any case; 0 is all.

    Raises:
      ValueError: the first question alone has more.
    """
    if not most:
        return said
    first = len(said) % 2  # a system turn comes before all rounds
    lengths = [len(text) for _, text in said]
    if (question := sum(lengths[: first + 1])) > most:
        raise ValueError(f"its first question has {question} characters, more than {most}")
    kept = first + 2
    while kept < len(said) and sum(lengths[: kept + 2]) <= most:
        kept += 2
    return said[:kept]


def _images_first(text: str) -> str:
    """The marks of images before the text, a line each."""
    marks = text.count("<image>")
    if not marks:
        return text
    return "<image>\n" * marks + text.replace("<image>", "").strip()
