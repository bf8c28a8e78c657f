"""The tiny model with experts."""

from pathlib import Path

import pytest

from dig_jax.models.hf import checkpoint
from dig_jax.models.qwen3_vl_moe.model import Qwen3VLMoe


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its folder, with its tokenizer. Not to be written to."""
    from tests.helpers.make_tiny_model import make_tiny

    folder = tmp_path_factory.mktemp("qwen3_vl_moe") / "instruct"
    make_tiny(folder, family="qwen3_vl_moe")
    return folder


@pytest.fixture(scope="session")
def model(tiny: Path) -> Qwen3VLMoe:
    return checkpoint.load_model(tiny)
