"""A small model folder and a small dataset, made once."""

import pathlib

import pytest

from dig_jax.data.tokenizer import Tokenizer, load_tokenizer
from dig_jax.scratch import ScratchConfig, make_scratch_folder
from tests.helpers.drawn_pairs import draw_pair, write_pairs

NUM_TRAIN, NUM_TEST = 10, 3


@pytest.fixture(scope="session")
def scratch_folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("scratch") / "model"
    small = {"vision_depth": 1, "text_depth": 1, "vision_inner": 64, "text_inner": 64}
    make_scratch_folder(folder, ScratchConfig(**small))
    return folder


@pytest.fixture(scope="session")
def tokenizer(scratch_folder: pathlib.Path) -> Tokenizer:
    return load_tokenizer(scratch_folder)


@pytest.fixture(scope="session")
def pairs_folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Training pairs 0..9 with 0, 1, 2, 0, 1, ... differences, and three test pairs with one."""
    folder = tmp_path_factory.mktemp("data") / "pairs"
    train = [draw_pair(i, num_differences=i % 3) for i in range(NUM_TRAIN)]
    test = [draw_pair(i, seed=1) for i in range(NUM_TEST)]
    write_pairs(folder, {"train": train, "test": test})
    return folder
