"""Fixtures for the generator's tests: Blender, a stand-in for it, and a small dataset rendered once."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds

from data_gen.__main__ import main
from data_gen.render.interpreter import Blender, NoBlender, find_blender
from tests.helpers.paths import HELPERS

# Small and coarse, so that the real renders of the default tests take seconds.
SMALL = ["--preset=tiny", "--num_pairs=3", "--test_pairs=2", "--seed=11", "--resolution=64", "--samples=2"]

FAKE = HELPERS / "fake_worker.py"


@pytest.fixture(scope="session")
def blender() -> Blender:
    """A Python that imports bpy. Skips only where there is none."""
    try:
        return find_blender()
    except NoBlender as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def small_dataset(blender: Blender, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dataset of SMALL, rendered by one worker, in a folder of an awkward name."""
    out = tmp_path_factory.mktemp("datasets") / "a[1] {run} {blend_name}}" / "one_worker"
    assert main([*SMALL, f"--out={out}", "--workers=1"]) == 0
    return out


@pytest.fixture(scope="session")
def fake_blender(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program in Blender's place, as a Python with bpy and as an installation; see fake_worker.py."""
    path = tmp_path_factory.mktemp("bin") / "blender"
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{FAKE}" "$@"\n')
    path.chmod(0o755)
    return path


def read(folder: Path, split: str) -> list[dict[str, Any]]:
    """The decoded records of a split."""
    return list(tfds.builder_from_directory(folder).as_data_source(split=split))


def assert_same_datasets(first: Path, second: Path) -> None:
    """Every feature of every record is equal."""
    splits = list(tfds.builder_from_directory(first).info.splits)
    assert splits == list(tfds.builder_from_directory(second).info.splits)
    for split in splits:
        assert_same_records(read(first, split), read(second, split))


def assert_same_records(a: list[dict[str, Any]], b: list[dict[str, Any]]) -> None:
    assert len(a) == len(b)
    for first, second in zip(a, b, strict=True):
        assert first.keys() == second.keys()
        for key in first:
            for one, other in zip(*(flatten(record[key]) for record in (first, second)), strict=True):
                np.testing.assert_array_equal(one, other, err_msg=key)


def flatten(value: Any) -> list[Any]:
    return list(value.values()) if isinstance(value, dict) else [value]
