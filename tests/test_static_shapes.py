"""Few programs: what varies between prompts of a bucket lies in arrays, and a run traces once per bucket."""

import collections
import json
import logging
import pathlib
from typing import Any

import jax
import numpy as np
import pytest
from etils import epath
from flax import nnx
from ml_collections import ConfigDict

from bench.learning import make_learner
from configs import base
from dig_jax import experience, learner, loading, train
from dig_jax.data.buckets import Bucket
from dig_jax.microbatches import Cut
from dig_jax.models.qwen3_vl import hf
from dig_jax.models.qwen3_vl.inputs import Prompts, widen
from dig_jax.policy import Experience
from dig_jax.rollout import pool
from dig_jax.scratch import ScratchConfig, make_scratch_folder
from tests.data.drawn_pairs import draw_pair, write_pairs
from tests.models.conftest import NUM_PATCHES, PROMPT_LENGTH, PromptMaker

SIZES = [(64, 64), (64, 96), (128, 128), (96, 64), (128, 96)]
SMALL, LARGE = Bucket(prompt_length=32, num_patches=48), Bucket(prompt_length=48, num_patches=128)


def count_traces(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> collections.Counter:
    """Counts per bucket how often a function of a model and prompts runs: inside jit, once per trace."""
    traces: collections.Counter = collections.Counter()
    original = getattr(owner, name)

    def counted(model: Any, batch: Any, *args: Any, **options: Any) -> Any:
        prompts = getattr(batch, "prompts", batch)
        traces[Bucket(prompts.tokens.shape[1], prompts.patches.shape[1])] += 1
        return original(model, batch, *args, **options)

    monkeypatch.setattr(owner, name, counted)
    return traces


# One program per bucket


def test_an_update_is_traced_once_for_any_images_and_lengths(
    tiny_qwen3vl: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten batches of no image to four, of many sizes, and text of 3 to 20 tokens: one trace, one program."""
    traces = count_traces(monkeypatch, learner, "grpo_loss")
    model = hf.load_model(tiny_qwen3vl)
    make = PromptMaker(model.config)
    graphdef, params = nnx.split(model, nnx.Param)
    trainer = make_learner(graphdef, model.config.text.vocab_size, chunk=4, cut=Cut(1))
    update = jax.jit(trainer.update_grpo)
    state = trainer.init(params)
    rng = np.random.default_rng(0)
    norms = set()
    for seed, grids in enumerate(
        [
            [],
            [(2, 2)],
            [(4, 6)],
            [(6, 4)],
            [(8, 8)],
            [(2, 8), (4, 2)],
            [(4, 4), (4, 4)],
            [(2, 2), (8, 4), (2, 10)],
            [(2, 4)] * 4,
            [(6, 6), (2, 6)],
        ]
    ):
        prompts = make.pad(make.example(grids, text=3 + (7 * seed) % 18, seed=seed))
        tokens = rng.integers(0, 300, (1, 2, 4)).astype(np.int32)
        batch = Experience(
            prompts,
            tokens,
            np.ones(tokens.shape, np.float32),
            np.full(tokens.shape, -5.0, np.float32),
            np.array([[1.0, -1.0]], np.float32),
            np.full(tokens.shape, -5.0, np.float32),
        )
        _, metrics = update(state, batch)
        norms.add(float(metrics["grad_norm"]))
    assert len(norms) == 10 and np.isfinite(list(norms)).all()
    assert traces == {Bucket(PROMPT_LENGTH, NUM_PATCHES): 1}
    assert update._cache_size() == 1


# A run


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A folder with `model` (from scratch) and `pairs` of five sizes in two buckets."""
    folder = tmp_path_factory.mktemp("inputs")
    sizes = {"vision_depth": 1, "vision_inner": 64, "text_depth": 1, "text_inner": 64, "image_size": 128}
    make_scratch_folder(folder / "model", ScratchConfig(**sizes))
    pairs = [draw_pair(i, size=SIZES[i % 5], num_differences=i % 3) for i in range(20)]
    write_pairs(folder / "pairs", {"train": pairs})
    return folder


def small_config(inputs: pathlib.Path, num_steps: int) -> ConfigDict:
    config = base.get_config()
    config.model_path = str(inputs / "model")
    config.num_steps = num_steps
    config.model.dtype = "float32"
    config.data.train = (str(inputs / "pairs"),)
    config.data.question = "Find differences."
    config.data.min_pixels, config.data.max_pixels = 32 * 32, 128 * 128
    config.batch.prompts = config.batch.update_prompts = config.batch.rollout_prompts = 2
    config.batch.micro_prompts = 2
    config.rollout.group_size = 2
    config.rollout.max_new_tokens = 8
    config.log.tensorboard = False
    return config


def run(config: ConfigDict, workdir: pathlib.Path) -> list[dict[str, float]]:
    """The metrics of every step."""
    train.run(config, epath.Path(workdir))
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_a_run_traces_every_program_once_per_bucket_and_tells_what_padding_costs(
    inputs: pathlib.Path,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    rollouts = count_traces(monkeypatch, pool, "fill")
    losses = count_traces(monkeypatch, learner, "grpo_loss")
    scores = count_traces(monkeypatch, learner, "response_logprobs")
    with caplog.at_level(logging.INFO, logger="dig_jax"):
        metrics = run(small_config(inputs, num_steps=10), tmp_path / "run")
    assert rollouts == losses == {SMALL: 1, LARGE: 1}
    assert set(scores) == {SMALL, LARGE} and len(set(scores.values())) == 1
    assert {step["bucket/num_patches"] for step in metrics} == {48, 128}
    for step in metrics:
        assert 0 < step["padding/prompt"] < 0.6 and 0 <= step["padding/patches"] < 0.8
        assert step["time/compile"] >= 0
    for bucket in (SMALL, LARGE):
        (line,) = (line for line in caplog.messages if f"training data: bucket of {bucket}: " in line)
        assert "padding is" in line


def test_pixel_limits_that_contradict_the_models_name_the_settings(inputs: pathlib.Path) -> None:
    config = small_config(inputs, num_steps=1)
    config.data.min_pixels, config.data.max_pixels = 0, 100
    with pytest.raises(ValueError, match=r"config.data.min_pixels=0 and config.data.max_pixels=100 "):
        loading.image_config(config, epath.Path(inputs / "model"))


# Mixing batches of different buckets


def test_wider_prompts_only_have_more_padding(tiny_qwen3vl: pathlib.Path) -> None:
    make = PromptMaker(hf.load_config(tiny_qwen3vl))
    example = make.example([(4, 6), (2, 2)])
    narrow = make.pad(example)
    wide = widen(narrow, prompt_length=64, num_patches=128)
    assert wide.tokens.shape == (1, 64) and wide.positions.shape == (1, 3, 64)
    assert wide.patches.shape[:2] == wide.patch_image.shape == (1, 128)
    assert wide.patch_grid.shape == wide.patch_coords.shape == (1, 128, 2)
    assert (wide.length, wide.next_position) == (narrow.length, narrow.next_position)
    for name in ("tokens", "positions", "patches", "patch_image", "patch_coords", "patch_grid"):
        assert np.abs(getattr(wide, name)).sum() == np.abs(getattr(narrow, name)).sum(), name


def test_dynamic_sampling_takes_prompts_from_a_batch_in_another_bucket(tiny_qwen3vl: pathlib.Path) -> None:
    make = PromptMaker(hf.load_config(tiny_qwen3vl))

    def drawn(prompts: Prompts, advantages: list[list[float]]) -> Experience:
        tokens = np.zeros((2, 2, 3), np.int32)
        floats = tokens.astype(np.float32)
        return Experience(prompts, tokens, floats, floats, np.array(advantages, np.float32))

    one, two, three, four = (make.example([(2, 2)], text=n) for n in (3, 4, 5, 6))
    kept = drawn(make.pad(one, two), [[0, 0], [1, -1]])
    fresh = drawn(widen(make.pad(three, four), prompt_length=64, num_patches=128), [[0, 0], [2, -2]])
    ids = np.array(["first", "second"])
    for first, second in ((kept, fresh), (fresh, kept)):
        merged, _ = experience._replace_uninformative((first, ids), (second, ids))
        assert merged.prompts.tokens.shape == (2, 64) and merged.prompts.patches.shape[1] == 128
        taken, own = second.prompts.length[1], first.prompts.length[1]
        assert merged.prompts.length.tolist() == [taken, own]
        assert np.all(merged.advantages.any(axis=1))
