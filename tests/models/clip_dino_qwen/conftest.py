"""A whole folder of a tiny model of the family."""

from pathlib import Path

import pytest

from tests.helpers.make_tiny_model import make_tiny


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny random model with its tokenizer. Not to be written to."""
    folder = tmp_path_factory.mktemp("clip_dino_qwen") / "model"
    make_tiny(folder, family="clip_dino_qwen")
    return folder
