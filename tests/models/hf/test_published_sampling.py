"""How a model is sampled that its makers have published."""

import json
import pathlib

import pytest

from dig_jax.models.hf.published_sampling import model_sampling
from dig_jax.models.qwen3_vl.family import FAMILY


def write_model_type(folder: pathlib.Path) -> None:
    (folder / "config.json").write_text(json.dumps({"model_type": "qwen3_vl"}))


def test_model_sampling_is_that_of_the_folder_else_the_published_one(tmp_path: pathlib.Path) -> None:
    write_model_type(tmp_path)
    assert model_sampling(tmp_path, opens_thinking=True) == FAMILY.thinking_sampling
    file = tmp_path / "generation_config.json"
    file.write_text(json.dumps({"eos_token_id": 3}))
    assert model_sampling(tmp_path, opens_thinking=False) == FAMILY.sampling
    file.write_text(
        json.dumps({"do_sample": True, "temperature": 0.5, "top_k": 7, "repetition_penalty": 1.0})
    )
    chosen = model_sampling(tmp_path, opens_thinking=False)
    assert chosen == {"temperature": 0.5, "top_p": 1.0, "top_k": 7}


def test_sampling_that_is_not_implemented_is_refused(tmp_path: pathlib.Path) -> None:
    write_model_type(tmp_path)
    file = tmp_path / "generation_config.json"
    file.write_text(json.dumps({"do_sample": True, "repetition_penalty": 1.05}))
    with pytest.raises(ValueError, match=r"repetition_penalty is 1.05, which is not implemented"):
        model_sampling(tmp_path, opens_thinking=False)
