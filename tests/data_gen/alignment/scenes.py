"""Small scenes to check by hand: things on a 100x100 picture, and views of the sample pairs."""

from pathlib import Path

from data_gen.alignment.rules import Rules, rules_for
from data_gen.alignment.things import Thing, View, view_of
from data_gen.alignment.words import Vocabulary
from data_gen.records.dataset import Dataset
from tests.helpers.paths import ROOT

SAMPLE = ROOT / "assets" / "sample_pairs"
WORDS = Vocabulary(
    {
        "shape": ("cone", "cube", "monkey head", "sphere"),
        "color": ("blue", "green", "red"),
        "size": ("large", "small"),
        "material": ("metal", "rubber"),
        "texture": ("plain", "striped"),
    }
)


def thing(id, name, box, depth=10.0, seen=1.0, radius=0.5, texture="plain"):
    """A thing named like "small red rubber cube", whose box is [x0, y0, x1, y1] in pixels."""
    size, color, material, shape = name.split(" ", 3)
    x0, y0, x1, y1 = box
    pixels = round(0.8 * (x1 - x0) * (y1 - y0) * seen)
    place = ((x0 + x1) / 20, depth, radius)
    return Thing(
        id, shape, color, size, material, texture, tuple(box), pixels, seen, depth, radius, radius, place
    )


def view(*things, width=100, height=100, rules=None):
    return View("made/a", width, height, things, rules or Rules(model_side=100, crop_side=8.0))


def sample_views(folder: Path = SAMPLE, model_side: int = 336):
    """(split, view) of every picture of a dataset of pairs."""
    dataset = Dataset(folder)
    for split, count in dataset.splits.items():
        for index in range(count):
            record = dataset.record(split, index)
            for which in "ab":
                yield split, view_of(record, which, rules_for(model_side))
