"""Executes every label of a record again from its scene, and looks whether items keep the rules."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator

import numpy as np

from data_gen.alignment.answers import answer
from data_gen.alignment.closeups import Studio
from data_gen.alignment.crops import IMAGE, cut, overlap
from data_gen.alignment.items import Item
from data_gen.alignment.logic import Program, Undecided
from data_gen.alignment.records import Aligned
from data_gen.alignment.things import View, view_of
from data_gen.alignment.words import Vocabulary, indefinite, parse, phrase
from data_gen.files import png
from data_gen.records.dataset import decode_png
from data_gen.records.record import normalize

# Of 255: the denoiser gives the same up to 1, which resampling and the contrast of a crop make larger.
SAME = 4


def problems_of(
    record: Aligned, vocabulary: Vocabulary, pixels: bool = True, studio: Studio | None = None
) -> list[str]:
    """What is wrong with a record, each with the id of its item; [] when all is right.

    Args:
      record: as read back.
      vocabulary: the words of its dataset.
      pixels: cut the crops again too, and compare them pixel by pixel.
      studio: renders those again that were rendered; without one they are not looked at.

    Raises:
      WorkerError: the renderer failed.
    """
    found = [] if rebuilt(record) == record.view else [f"{record.view.id}: its objects are not the scene's"]
    picture = decode_png(record.picture, record.view.id) if pixels else None
    shots = studio.of_picture(record.view, record.scene) if studio else None
    for (id, item), crops in zip(record.items, record.crops, strict=True):
        found += [f"{id}: {text}" for text in _problems(record.view, item, vocabulary)]
        if len(crops) != len(item.cuts):
            found.append(f"{id}: {len(crops)} crops are stored for {len(item.cuts)}")
        elif picture is not None:
            for number, (stored, plan) in enumerate(zip(crops, item.cuts, strict=True)):
                shown = png.decode(stored)
                if plan.view == IMAGE and not np.array_equal(shown, cut(picture, plan, shown.shape[0])):
                    found.append(f"{id}: crop {number} is not what its plan cuts")
                if plan.view != IMAGE and shots and not alike(shown, shots.crop(plan, shown.shape[0])):
                    found.append(f"{id}: crop {number} is not what its plan renders")
    return found


def alike(first: np.ndarray, second: np.ndarray) -> bool:
    """Whether two renderings of a crop, uint8, are the same but for the denoiser's rounding (see SAME)."""
    return int(np.abs(first.astype(np.int16) - second).max()) <= SAME


def rebuilt(record: Aligned) -> View:
    """The view, from the scene's JSON and what alone the renderer knows: visible boxes and pixels."""
    view = record.view
    rows = {thing.id: thing for thing in view.things}
    ids = [item["id"] for item in json.loads(record.scene)["objects"]]
    objects = {
        "id": ids,
        "bbox": [normalize(rows[id].box, view.width, view.height) if id in rows else [0.0] * 4 for id in ids],
        "visible_pixels": [rows[id].pixels if id in rows else 0 for id in ids],
        "occlusion": [1 - rows[id].seen if id in rows else 1.0 for id in ids],
    }
    pair, _, which = view.id.rpartition("/")
    return view_of(
        {"id": pair, f"scene_{which}": record.scene, f"objects_{which}": objects}, which, view.rules
    )


def _problems(view: View, item: Item, vocabulary: Vocabulary) -> Iterator[str]:
    boxes = [one.box for one in item.cuts]
    for number, one in enumerate(item.rounds):
        try:
            right = answer(one.ask, view, boxes)
            if right != one.assistant:
                yield f"round {number} answers {one.assistant!r}, the scene says {right!r}"
        except (Undecided, ValueError, IndexError) as error:
            yield f"round {number} has no certain answer ({error!r})"
        for program in phrases_of(one.ask):
            said = [phrase(program), *_as_indefinite(program)]
            text = next((each for each in said if each in one.user or each in one.assistant), None)
            if text is None:
                yield f"round {number} does not say {said[0]!r}"
            elif not _names_crops(program) and parse(text, vocabulary) != program:
                yield f"round {number}: {text!r} reads as another program"
    marks = sum(one.user.count("<object>") for one in item.rounds)
    first, images = item.rounds[0].user, sum(one.user.count("<image>") for one in item.rounds)
    if marks != len(item.cuts) or images != 1 or not re.search(r"\A<image>\n|\n<image>\Z", first):
        yield f"{marks} marks for {len(item.cuts)} crops, or not one image, before or behind the first words"
    for shown in item.cuts:
        thing = view.by_id.get(shown.thing)
        if thing is None or thing.box != shown.box or thing not in view.eligible or not view.decided(thing):
            yield f"a crop of object {shown.thing}, which may not be shown"
    yield from _options(view, item)


def _options(view: View, item: Item) -> Iterator[str]:
    if item.kind not in ("C-I", "T-I"):
        return
    rules = view.rules
    for a, b in itertools.combinations([one.box for one in item.cuts], 2):
        union, smaller = overlap(a, b)
        if union > rules.option_iou or smaller > rules.option_inside:
            yield "options overlap"
    areas = [view.by_id[one.thing].area for one in item.cuts]
    if item.facts["even"] and max(areas) > rules.even_factor * min(areas):
        yield "options of uneven areas are called even"


def phrases_of(ask: Program) -> list[Program]:
    """The programs that a round says in words; crops and boxes that stand alone are none."""
    match ask:
        case ["coordinate" | "exist", program] | ["choose", program, _] | ["describe", _, program]:
            programs = [program]
        case ["narrate", told]:
            programs = [program for program, _ in told]
        case _:
            programs = []
    return [program for program in programs if program[0] not in ("crop", "box")]


def _as_indefinite(program: Program) -> list[str]:
    try:
        return [indefinite(program)]
    except ValueError:
        return []


def _names_crops(program: Program) -> bool:
    """Whether a landmark is a crop or a box, which have no words to read."""
    text = json.dumps(program)
    return '["crop"' in text or '["box"' in text
