"""What we write for Hugging Face's `datasets`, loaded by that library itself."""

import hashlib
import importlib.util
import json
import os
import subprocess
import sys

import pytest

from data_gen import convert
from data_gen.records.dataset import Dataset
from tests.helpers.paths import ASSETS, HELPERS, ROOT

TOOLS_PYTHON = ROOT / ".venv-tools" / "bin" / "python"


@pytest.mark.slow
@pytest.mark.skipif(
    not TOOLS_PYTHON.exists() and not importlib.util.find_spec("datasets"), reason="needs `make setup-tools`"
)
def test_the_library_loads_every_split_with_pictures_to_the_pixel(tmp_path):
    folder, dataset = tmp_path / "exported", Dataset(ASSETS / "sample_pairs")
    convert.convert(dataset.folder, "datasets", folder)
    python = TOOLS_PYTHON if TOOLS_PYTHON.exists() else sys.executable
    done = subprocess.run(
        [python, HELPERS / "load_dataset.py", folder, tmp_path / "cache"],
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert {split: len(rows) for split, rows in found.items()} == dataset.splits
    for split, rows in found.items():
        for index, row in enumerate(rows):
            pair, record = dataset.pair(split, index), dataset.record(split, index)
            pictures = [hashlib.sha256(picture.tobytes()).hexdigest() for picture in pair.decoded()]
            assert row["id"] == pair.id and row["pictures"] == pictures
            assert row["boxes"] == pair.boxes_a.tolist()
            assert row["colors"] == record["objects_b"]["color"]
