"""The example that asks about two pictures, with the model of the repository."""

import runpy
import sys

import numpy as np
from PIL import Image

from tests.helpers.drawn_pairs import draw_pair
from tests.helpers.paths import ROOT


def test_the_example_prints_the_answer_and_draws_its_boxes(tmp_path, monkeypatch, capsys):
    pair = draw_pair(0, size=(128, 128), num_differences=1)
    for name, pixels in (("a.png", pair.image_a), ("b.png", pair.image_b)):
        Image.fromarray(pixels).save(tmp_path / name)
    files = [str(tmp_path / name) for name in ("a.png", "b.png", "boxes.png")]
    model = str(ROOT / "assets" / "quickstart_warmup")
    monkeypatch.setattr(sys, "argv", ["example", model, *files, "Find differences."])
    runpy.run_path(str(ROOT / "examples" / "answer_two_pictures.py"), run_name="__main__")
    answer, counted = capsys.readouterr().out.splitlines()
    assert answer.startswith("[[") and answer.endswith("]]")
    assert counted.startswith(f"{answer.count('[') - 1} boxes; the tokens had a probability of 0.")
    drawn = np.asarray(Image.open(files[2]))
    assert drawn.shape == pair.image_b.shape and np.any(drawn != pair.image_b)
