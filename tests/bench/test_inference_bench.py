"""The inference benchmark: what it checks before it times, its tokens, and its bandwidth arithmetic."""

import dataclasses
import types
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx

from bench import bandwidth, inference
from bench.inference_sizes import SIZES, make_prompts, write_model
from dig_jax.models.qwen3_vl.model import Qwen3VL


def side(logits: np.ndarray, tokens: np.ndarray) -> types.SimpleNamespace:
    return types.SimpleNamespace(prefill=lambda: (0.1, logits), greedy=lambda: tokens)


LOGITS, TOKENS = np.zeros((2, 5)), np.arange(6).reshape(2, 3)


@pytest.mark.parametrize(
    ("peer", "message"),
    [
        (side(LOGITS + 0.01, TOKENS), "logits after the prompts differ by up to 0.01"),
        (side(LOGITS * np.nan, TOKENS), "logits after the prompts differ"),
        (side(LOGITS, np.maximum(TOKENS, 1)), "only 83% of the tokens are the same"),
    ],
)
def test_sides_that_compute_something_else_are_not_timed(peer, message):
    with pytest.raises(SystemExit, match=message):
        inference.check(side(LOGITS, TOKENS), peer)


def test_sides_that_compute_the_same_pass_the_check(capsys):
    inference.check(side(LOGITS, TOKENS), side(LOGITS, TOKENS))
    assert "6 greedy tokens are the same (6 different words)" in capsys.readouterr().out


@pytest.mark.parametrize("name", SIZES)
def test_prompts_have_the_length_that_tokens_per_second_are_counted_with(name):
    size = SIZES[name]
    prompts = make_prompts(size)
    assert len(prompts) == size.prompts
    for ids, images in prompts:
        assert len(ids) == size.prompt_length
        assert sum(len(patches) for patches, _ in images) == size.num_patches
        image_tokens = np.sum(ids == size.config.image_token_id)
        assert image_tokens == size.num_patches // size.config.vision.merge_unit


def test_the_mid_size_has_about_140_million_parameters_and_full_depth():
    size = SIZES["mid"]
    model = nnx.eval_shape(lambda: Qwen3VL(size.config, rngs=nnx.Rngs(0)))
    parameters = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))
    assert parameters == pytest.approx(140e6, rel=0.05)
    assert (size.config.text.num_hidden_layers, size.config.vision.depth) == (28, 24)


# Bandwidth


@pytest.fixture(scope="module")
def abstract_model() -> Qwen3VL:
    return nnx.eval_shape(lambda: Qwen3VL(SIZES["small"].config, rngs=nnx.Rngs(0)))


def test_a_step_reads_the_decoder_and_the_head_but_neither_the_tower_nor_the_embedding(abstract_model):
    # Per layer: q and o 128 * 128, k and v 128 * 64, three times 128 * 256 of MLP, norms 2 * 128 and 2 * 32.
    layer = 2 * 128 * 128 + 2 * 128 * 64 + 3 * 128 * 256 + 2 * 128 + 2 * 32
    assert bandwidth.weight_bytes(abstract_model) == 4 * (4 * layer + 128 + 512 * 128)


def test_a_step_reads_the_prompt_once_and_each_response_up_to_its_length(abstract_model):
    per_token = 2 * 4 * 2 * 32 * 4  # keys and values, 4 layers, 2 heads of 32, float32
    assert bandwidth.cache_bytes(abstract_model, prompt_length=100, group=8, step=5) == per_token * (100 + 40)
    # Steps that find 0, 1 and 2 response tokens in the cache draw the tokens 1 to 3: 8 rows of 1 on average.
    mean = bandwidth.mean_step_bytes(abstract_model, prompt_length=100, group=8, new_tokens=4)
    assert mean == bandwidth.weight_bytes(abstract_model) + per_token * 108


def test_the_share_of_bandwidth_is_bytes_over_time_over_peak():
    text = bandwidth.describe(67e6, 1e-4, "NVIDIA H100 80GB HBM3")  # 67 MB in 0.1 ms is 670 GB/s, of 3,352
    assert "67 MB per decoding step, 670 GB/s, 20% of the 3,352 GB/s" in text


def test_a_device_without_a_known_peak_is_named_instead_of_a_share():
    text = bandwidth.describe(67e6, 1e-4, "NVIDIA New")
    assert "670 GB/s" in text and "'NVIDIA New'" in text and "%" not in text


# Both real sides


@pytest.mark.slow
def test_both_sides_agree_on_the_small_size(tmp_path: Path, capsys):
    pytest.importorskip("torch")
    from bench.inference_sides import DigJax, Transformers

    size = dataclasses.replace(SIZES["small"], prompts=2, new_tokens=12)
    write_model(tmp_path, size)
    prompts = make_prompts(size)
    ours = DigJax(tmp_path, size, prompts, group=3)
    peer = Transformers(inference.load_peer(tmp_path), size, prompts, group=3, device="cpu")
    inference.check(ours, peer)
    assert "36 greedy tokens are the same" in capsys.readouterr().out
    seconds = peer.choose_cache(runs=1)
    assert peer.cache == min(seconds, key=lambda kind: seconds[kind])
    assert ours.decode().wall > 0 and peer.decode().wall > 0
