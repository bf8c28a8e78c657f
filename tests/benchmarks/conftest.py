"""The golden releases: made data in the layout of each release, and what the official programs say of it."""

import json
import pathlib
import shutil

import numpy as np
import pytest

from tests.helpers.drawn_pairs import png
from tests.helpers.paths import ROOT

GOLDEN = ROOT / "tests" / "benchmarks" / "golden" / "release"


@pytest.fixture(scope="session")
def release(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The golden releases, with a picture wherever they have one."""
    folder = tmp_path_factory.mktemp("golden") / "release"
    shutil.copytree(GOLDEN, folder)
    picture = png(np.full((12, 12, 3), 200, np.uint8))
    for name in (folder / "pictures.txt").read_text().split("\n"):
        if name:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(picture)
    return folder


@pytest.fixture(scope="session")
def expected() -> dict:
    """What is right of the golden releases."""
    return json.loads((GOLDEN / "expected.json").read_text())
