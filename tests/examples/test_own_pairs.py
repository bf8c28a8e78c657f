"""The example that imports pairs of one's own, run as its first lines say."""

import os
import subprocess
import sys

from dig_jax.data.records import open_pairs
from tests.helpers.paths import ROOT


def test_the_example_makes_a_dataset_that_can_be_trained_on(tmp_path):
    command = [sys.executable, ROOT / "examples" / "own_pairs.py", tmp_path / "out"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    pair, other = (
        open_pairs(tmp_path / "out" / "dataset", "train")[0],
        open_pairs(tmp_path / "out" / "dataset", "test")[0],
    )
    assert (pair.id, pair.kinds, pair.descriptions) == ("kite", ("add",), ("a kite rose",))
    assert pair.size == (200, 320) and len(other.boxes) == 0
    assert "a kite rose" in (tmp_path / "out" / "pairs.html").read_text()
