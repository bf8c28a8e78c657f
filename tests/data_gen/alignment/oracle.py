"""A second opinion on every label: reads the words of an item alone and judges them by a record's scene.

It shares no code with what makes items but their prompts: phrases are read word by word, without a "maybe". A
relation holds from the middle of the band that items leave out, "leftmost" is the least one by any distance.
So whatever items say with certainty must hold here too.
"""

import json
import math
import re

import numpy as np

from data_gen.alignment.prompts import PROMPTS
from data_gen.scenes.scene import TEXTURE_WORDS
from data_gen.scenes.shapes import SHAPES

BOX = r"\[\d\.\d{3},\d\.\d{3},\d\.\d{3},\d\.\d{3}\]"
NUMBERS = {"None": 0, "One": 1, "Two": 2, "Three": 3}
MOST = {
    "leftmost ": lambda one: one["x"],
    "rightmost ": lambda one: -one["x"],
    "largest ": lambda one: -one["extent"],
    "smallest ": lambda one: one["extent"],
    " closest to the camera": lambda one: one["depth"],
    " farthest from the camera": lambda one: -one["depth"],
}
SIDE, DEEP = 0.04, 0.35  # of the picture; of the mean radius of two objects


def _deeper(one, other):
    return (one["depth"] - other["depth"]) / ((one["row"]["radius"] + other["row"]["radius"]) / 2)


RELATIONS = {
    "left of": lambda one, other: other["x"] - one["x"] > SIDE,
    "right of": lambda one, other: one["x"] - other["x"] > SIDE,
    "in front of": lambda one, other: _deeper(other, one) > DEEP,
    "behind": lambda one, other: _deeper(one, other) > DEEP,
}


def read_scene(record, which):
    """The visible objects of a picture of a record, as dicts."""
    scene, shown = json.loads(record[f"scene_{which}"]), record[f"objects_{which}"]
    assert scene["width"] == scene["height"]  # so that shares of the picture are shares of the square
    eye, target = (np.array(scene["camera"][key]) for key in ("location", "target"))
    axis = (target - eye) / np.linalg.norm(target - eye)
    things = []
    for row, item in enumerate(scene["objects"]):
        if not shown["visible_pixels"][row]:
            continue
        assert item["id"] == shown["id"][row]
        x0, _, x1, _ = box = [float(side) for side in shown["bbox"][row]]
        turned = np.ptp(np.array(SHAPES[item["shape"]].outline), axis=0)
        place = np.array(item["position"])
        words = {item["size"], item["color"], item["material"], *SHAPES[item["shape"]].noun.split(), "object"}
        things.append(
            {
                "id": item["id"],
                "row": item,
                "words": words | set(TEXTURE_WORDS.get(item["texture"], "plain").split()),
                "noun": SHAPES[item["shape"]].noun,
                "box": "["
                + ",".join(f"{round(side * scene['width']) / scene['width']:.3f}" for side in box)
                + "]",
                "x": (x0 + x1) / 2,
                "depth": float(axis @ (np.array([*place[:2], 0.0]) - eye)),
                "extent": item["radius"] * float(np.prod(turned)),
                "place": place,
            }
        )
    return things


def meant(text, things, crops):
    """The objects that a phrase fits, most of the time one; `crops` are ids, taken as `<object>` comes up."""
    text = re.sub(r"^(the|an?) ", "", text)
    if link := re.search(r" that is (left of|right of|in front of|behind) | nearest to ", text):
        (landmark,) = meant(text[link.end() :], things, crops)
        found = meant(text[: link.start()], things, crops)
        if link[1]:
            return [one for one in found if RELATIONS[link[1]](one, landmark)]
        found = [one for one in found if one is not landmark]
        return [min(found, key=lambda one: math.dist(one["place"], landmark["place"]))]
    if text == "<object>":
        return [one for one in things if one["id"] == crops[0]]
    if at := re.fullmatch(f"object at ({BOX})", text):
        return [one for one in things if one["box"] == at[1]]
    for words, key in MOST.items():
        if words in text:
            return [min(meant(text.replace(words, ""), things, crops), key=key)]
    return [one for one in things if _fits(text, one)]


def _fits(text, one):
    adjectives = text.removesuffix("object").removesuffix(one["noun"]).split()
    ends = text.endswith(one["noun"]) or text.endswith("object")
    return ends and set(adjectives) <= one["words"]


def prompted(user):
    """(name of the prompt, its blanks) of what a user says, the marks of options left out."""
    text = re.sub(r"( [A-D]: <object>)+$", "", user.removeprefix("<image>\n"))
    for name, templates in PROMPTS.items():
        for template in templates:
            pattern = (
                re.escape(template).replace(r"\{exp\}", "(?P<exp>.+)").replace(r"\{box\}", f"(?P<box>{BOX})")
            )
            pattern = pattern.replace("<object>", f"(?:<object>|the object at {BOX})")
            if (match := re.fullmatch(pattern, text)) and _likely(name, match.groupdict().get("exp", "")):
                return name, match.groupdict()
    raise AssertionError(f"no prompt says {user!r}")


def _likely(name, phrase):
    """Whether "Where is {exp}?" and the like are meant: they fit questions about two objects too."""
    if name in ("T-C", "T-I", "exist"):
        return re.match(r"(the|an?) ", phrase) and " relative to " not in phrase
    return True


def right(item, things):
    """What must be answered in every round, or what the answer must fit."""
    crops = [cut.thing for cut in item.cuts]
    for one in item.rounds:
        name, blanks = prompted(one.user)
        marks = one.user.count("<object>")
        here, crops = crops[:marks], crops[marks:]
        yield name, one.assistant, _judged(name, blanks, one, here, things)


def _judged(name, blanks, one, crops, things):
    said = one.assistant
    if name in ("T-C", "I-C"):
        (target,) = meant(blanks.get("exp") or "<object>", things, crops)
        return said == target["box"]
    if name == "C-T":
        (target,) = meant(said, things, crops)
        return target["box"] == blanks["box"]
    if name in ("C-I", "T-I"):
        phrase = blanks.get("exp") or f"the object at {blanks['box']}"
        (target,) = meant(phrase, things, crops)
        return crops[ord(said) - ord("A")] == target["id"] and crops.count(target["id"]) == 1
    if name == "I-T":
        pair = [meant(text, things, crops[place:])[0] for place, text in _two(one.user)]
        holds = said.removeprefix("It is ").removesuffix(" it.").split(" it and ")
        return all(RELATIONS[relation](*pair) for relation in holds)
    if name == "exist":
        return said == ("Yes" if meant(blanks["exp"], things, crops) else "No")
    if name == "count":
        boxes, words = re.findall(BOX, said), blanks["exp"]
        singular = next(text for text in (words[:-2], words[:-1]) if text and _known(text, things))
        fitting = [other["box"] for other in things if _fits(singular, other)]
        return sorted(boxes) == sorted(fitting) and NUMBERS[re.match(r"\w+", said)[0]] == len(boxes)
    if name == "description":
        return _described(said, things)
    place, text = next(_two(one.user))
    (target,) = meant(text, things, crops[place:])
    return set(said.split()) <= target["words"]


def _known(text, things):
    return text.endswith("object") or any(text.endswith(one["noun"]) for one in things)


def _two(user):
    marks = 0
    for match in re.finditer(f"<object>|the object at {BOX}", user):
        yield marks, match[0]
        marks += match[0] == "<object>"


def _described(said, things):
    """Every sentence names one object by a phrase that fits it alone, with its box; relations hold."""
    before, depths = None, []
    for sentence in re.findall(rf"[^\[]+{BOX}\.", said):
        head, box = re.fullmatch(rf" ?(.+) ({BOX})\.", sentence).groups()
        relation, _, phrase = (
            head.partition(" it is ") if " it is " in head else ("", "", head[len("There is ") :])
        )
        (target,) = meant(phrase, things, [])
        if target["box"] != box or (relation and not RELATIONS[relation.lower()](target, before)):
            return False
        before = target
        depths.append(target["depth"])
    return depths == sorted(depths) and len(depths) >= 4
