"""Fixtures for the generator's tests: a Blender interpreter, and a small dataset rendered once."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_gen.__main__ import main
from data_gen.interpreter import NoBlender, find_blender_python

# Small and coarse, so that the real renders of the default tests take seconds.
SMALL = ["--preset=tiny", "--num_pairs=3", "--test_pairs=2", "--seed=11", "--resolution=64", "--samples=2"]


@pytest.fixture(scope="session")
def blender_python() -> str:
    """A Python that imports bpy. Skips only where there is none."""
    try:
        return find_blender_python()[0]
    except NoBlender as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def small_dataset(blender_python: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dataset of SMALL, rendered by one worker."""
    out = tmp_path_factory.mktemp("datasets") / "one_worker"
    assert main([*SMALL, f"--out={out}", "--workers=1"]) == 0
    return out
