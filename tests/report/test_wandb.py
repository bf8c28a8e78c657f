"""What a run tells Weights & Biases, taken by the package itself, offline."""

import importlib.util
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tests.helpers.paths import HELPERS, ROOT

TOOLS_PYTHON = ROOT / ".venv-tools" / "bin" / "python"


@pytest.mark.slow
@pytest.mark.skipif(
    not TOOLS_PYTHON.exists() and not importlib.util.find_spec("wandb"), reason="needs `make setup-tools`"
)
def test_an_offline_run_has_metrics_and_both_images_with_their_boxes_apart(tmp_path):
    python = TOOLS_PYTHON if TOOLS_PYTHON.exists() else sys.executable
    surroundings = os.environ | {
        "WANDB_MODE": "offline",
        "WANDB_DIR": str(tmp_path),
        "PYTHONPATH": str(ROOT),
    }
    command = [python, HELPERS / "wandb_run.py", tmp_path / "run"]
    done = subprocess.run(command, env=surroundings, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    [offline] = (tmp_path / "wandb").glob("offline-run-*")
    assert (tmp_path / "run" / "wandb_id").read_text() in offline.name  # what goes on, goes on under this id
    # Images are kept as they are, without boxes.
    shades = [np.unique(np.asarray(Image.open(path))).tolist() for path in offline.rglob("images/**/*.png")]
    assert sorted(shades) == [[50], [200]]
    # And the boxes, true and predicted ones apart; both images have the same, which are kept once.
    boxes = [json.loads(path.read_text()) for path in offline.rglob("boxes2D/**/*.json")]
    corners = [[one["position"] for one in file["box_data"]] for file in boxes]
    true = {"minX": 0.25, "minY": 0.5, "maxX": 0.5, "maxY": 1.0}
    predicted = {"minX": 0.0, "minY": 0.0, "maxX": 0.5, "maxY": 0.5}
    assert len(corners) == 2 and [true] in corners and [predicted] in corners
    # Its own file has the metrics and the names of all that.
    [binary] = offline.glob("*.wandb")
    written = binary.read_bytes()
    for name in (b"reward/reward", b"eval/main/f1", b"samples/00", b"ground_truth", b"predictions"):
        assert name in written, name
