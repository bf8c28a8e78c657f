"""Programs as English phrases, and back: whatever a phrase of ours says can be read again and executed.

the large red striped metal cube                        attributes; "object" where no shape is named
the leftmost red cube, the red cube closest to the camera
the cube nearest to the blue cone
the cube that is left of the ball that is behind the cone
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Iterable, Mapping
from typing import Any

from data_gen.alignment.logic import RELATIONS, SUPERLATIVES, Program
from data_gen.alignment.things import ATTRIBUTES
from data_gen.changes.attributes import with_article
from data_gen.scenes.presets import PRESETS
from data_gen.scenes.scene import TEXTURE_WORDS, asset_word, texture_word
from data_gen.scenes.shapes import SHAPES

OBJECT = "object"  # the noun of a phrase that names no shape
ADJECTIVES = ("size", "color", "texture", "material")  # in the order they stand before the noun
BEHIND_NOUN = {"closest": "closest to the camera", "farthest": "farthest from the camera"}
_LINK = re.compile(rf" that is ({'|'.join(RELATIONS)}) | (nearest) to ")


@dataclasses.dataclass(frozen=True, eq=False)
class Vocabulary:
    """The words that the objects of a dataset can have.

    Attributes:
      words: attribute -> its words, sorted.
    """

    words: Mapping[str, tuple[str, ...]]

    @functools.cached_property
    def attribute_of(self) -> dict[str, str]:
        """Word -> its attribute; no word has two."""
        return {word: attribute for attribute in ATTRIBUTES for word in self.words[attribute]}


def vocabulary_of(metadata: Mapping[str, Any]) -> Vocabulary:
    """The words of a `dig_pairs` dataset, from its preset; of one without a preset, all words there are."""
    preset = metadata.get("preset") or {}
    known: dict[str, Iterable[str]] = {
        "shape": preset.get("shapes") or SHAPES,
        "color": preset.get("colors") or {word for each in PRESETS.values() for word in each.colors},
        "size": preset.get("sizes") or {word for each in PRESETS.values() for word in each.sizes},
        "material": preset.get("materials") or ("rubber", "metal", "glass"),
        "texture": preset.get("textures", TEXTURE_WORDS),
    }
    shapes = {SHAPES[name].noun if name in SHAPES else asset_word(name) for name in known["shape"]}
    textures = {texture_word(name) for name in known["texture"]} | {"plain"}
    words = {**known, "shape": shapes, "texture": textures}
    return Vocabulary({attribute: tuple(sorted(words[attribute])) for attribute in ATTRIBUTES})


def phrase(program: Program) -> str:
    """The words of a program as they name one object; a crop is `<object>`. Raises ValueError for another."""
    match program:
        case ["crop", _]:
            return "<object>"
        case ["box", text]:
            return f"the object at {text}"
        case ["most", superlative, among]:
            head = _head(among)
            late = BEHIND_NOUN.get(superlative)
            return f"the {head} {late}" if late else f"the {superlative} {head}"
        case ["nearest", landmark, among]:
            return f"the {_head(among)} nearest to {phrase(landmark)}"
        case ["and", [*parts, ["rel", relation, landmark]]]:
            return f"the {_head(['and', parts])} that is {relation} {phrase(landmark)}"
        case ["rel", relation, landmark]:
            return f"the {OBJECT} that is {relation} {phrase(landmark)}"
    return f"the {_head(program)}"


def indefinite(program: Program) -> str:
    """The phrase of attributes alone, as "a red cube"."""
    return with_article(_head(program))


def plural(program: Program) -> str:
    """The phrase of attributes alone, as "red cubes"."""
    head = _head(program)
    return f"{head}es" if head.endswith(("s", "x", "ch", "sh")) else f"{head}s"


def attributes(program: Program) -> dict[str, str]:
    """Attribute -> word of a program of attributes alone. Raises ValueError for another."""
    parts = program[1] if program[0] == "and" else [program]
    if any(part[0] != "is" for part in parts):
        raise ValueError(f"more than attributes: {program}")
    return {attribute: word for _, attribute, word in parts}


def all_of(words: Mapping[str, str]) -> Program:
    """The program of attributes, in their usual order, whatever the order given."""
    return ["and", [["is", name, words[name]] for name in ATTRIBUTES if name in words]]


def _head(program: Program) -> str:
    words = attributes(program)
    return " ".join([*(words[name] for name in ADJECTIVES if name in words), words.get("shape", OBJECT)])


def parse(text: str, vocabulary: Vocabulary) -> Program:
    """The program of a phrase, "the", "a" or "an" before it or not.

    Raises:
      ValueError: it says something that no program says; names the words.
    """
    link = _LINK.search(text)
    if link is None:
        return _parse_head(text, vocabulary)
    landmark = parse(text[link.end() :], vocabulary)
    head = _parse_head(text[: link.start()], vocabulary)
    if link[2]:
        return ["nearest", landmark, head]
    if head[0] != "and":
        raise ValueError(f"{text!r}: a superlative and a relation")
    return ["and", [*head[1], ["rel", link[1], landmark]]]


def _parse_head(text: str, vocabulary: Vocabulary) -> Program:
    rest = re.sub(r"^(the|an?) ", "", text.strip())
    superlative = ""
    for name in SUPERLATIVES:
        late = BEHIND_NOUN.get(name)
        if late and rest.endswith(f" {late}"):
            superlative, rest = name, rest.removesuffix(f" {late}")
        elif not late and rest.startswith(f"{name} "):
            superlative, rest = name, rest.removeprefix(f"{name} ")
    found: dict[str, str] = {}
    tokens = rest.split()
    while tokens:
        if tokens == [OBJECT]:
            break
        for count in range(len(tokens), 0, -1):  # the longest first: "monkey head"
            word = " ".join(tokens[:count])
            attribute = vocabulary.attribute_of.get(word)
            if attribute and attribute not in found:
                found[attribute] = word
                tokens = tokens[count:]
                break
        else:
            raise ValueError(f"{text!r}: no attribute is {tokens[0]!r}")
    among = all_of(found)
    return ["most", superlative, among] if superlative else among
