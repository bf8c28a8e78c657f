"""Few programs: what varies between prompts of a bucket lies in arrays, and a run traces once per bucket."""

import collections
import dataclasses
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
from dig_jax import train
from dig_jax.data.buckets import Bucket
from dig_jax.data.tokenizer import load_tokenizer
from dig_jax.models import families
from dig_jax.models.hf import checkpoint
from dig_jax.models.inputs import Prompts, widen
from dig_jax.rollout import pool
from dig_jax.rollout.engine import Rollout
from dig_jax.rollout.sampler import Completions
from dig_jax.run import loading
from dig_jax.tasks.task import Scores
from dig_jax.update import experience, learner
from dig_jax.update.grpo import GRPOConfig
from dig_jax.update.microbatches import Cut
from dig_jax.update.policy import Experience
from tests.helpers.drawn_pairs import draw_pair, write_pairs
from tests.helpers.small_model import make_small_model
from tests.helpers.tasks import pairs_task
from tests.models.conftest import NUM_PATCHES, PROMPT_LENGTH, PromptMaker

pytestmark = pytest.mark.usefixtures("quick_compiling")

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
    model = checkpoint.load_model(tiny_qwen3vl)
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
    make_small_model(folder / "model", image_size=128)
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
    make = PromptMaker(families.load_config(tiny_qwen3vl))
    example = make.example([(4, 6), (2, 2)])
    narrow = make.pad(example)
    wide = widen(narrow, prompt_length=64, num_patches=128)
    assert wide.tokens.shape == (1, 64) and wide.positions.shape == (1, 3, 64)
    assert wide.patches.shape[:2] == wide.patch_image.shape == (1, 128)
    assert wide.patch_grid.shape == wide.patch_coords.shape == (1, 128, 2)
    assert (wide.length, wide.next_position) == (narrow.length, narrow.next_position)
    for name in ("tokens", "positions", "patches", "patch_image", "patch_coords", "patch_grid"):
        assert np.abs(getattr(wide, name)).sum() == np.abs(getattr(narrow, name)).sum(), name


class FixedSampler:
    """Each completion is the position of its prompt; only those of some rows of a batch earn anything."""

    moved_bytes = 0
    task = pairs_task()

    def __init__(self, informative: list[list[int]]):
        self._informative = iter(enumerate(informative))

    def weights(self, params: object) -> None:
        return None

    def sampling(self, *args: object) -> None:
        return None

    def complete(self, weights: object, batch: object, keys: jax.Array, *_: Any, **__: Any) -> Completions:
        number, rows = next(self._informative)
        count, group = keys.shape
        tokens = np.broadcast_to((number * count + np.arange(count))[:, None, None], (count, group, 1))
        ones = np.ones(tokens.shape, np.float32)
        rollout = Rollout(
            tokens, ones, -ones, -ones, np.ones((count, group), bool), np.int32(1), np.float32(0)
        )
        reward = np.zeros((count, group), np.float32)
        reward[rows, 0] = 1
        terms = {name: np.zeros(count * group) for name in self.task.terms}
        scores = Scores(reward.ravel(), terms, ("valid",) * (count * group), ({},) * (count * group))
        return Completions(rollout, scores, {"rollout": 1.0, "reward": 1.0})


@pytest.mark.parametrize("rows", [None, [1, 3], [2]])  # all, and those of a process of several
def test_dynamic_sampling_takes_prompts_from_batches_in_other_buckets(
    inputs: pathlib.Path, rows: list[int] | None
) -> None:
    config = small_config(inputs, num_steps=1)
    config.batch.prompts, config.grpo.dynamic_sampling = 4, 3
    model = epath.Path(inputs / "model")
    own = None if rows is None else np.array(rows)
    tokenizer = load_tokenizer(model)
    task = loading.make_task(config, model, tokenizer)
    loader = loading.train_loader(config, task, model, tokenizer, own)
    assert loader.bucket(0) != loader.bucket(1)
    sampler: Any = FixedSampler([[1], [0, 2], [], [2, 1, 0]])
    collector = experience.Collector(config, sampler, loader, GRPOConfig.from_config(config))
    collected = collector.collect(nnx.State({}), 0)

    # Rows 0 and 2 of batch 1, then row 0 of batch 3, where those of batch 0 had nothing to tell.
    now = np.array([4 + 0, 1, 4 + 2, 12 + 0])[slice(None) if own is None else own]
    assert collected.rows.tolist() == ([0, 1, 2, 3] if rows is None else rows)
    assert collected.experience.tokens[:, 0, 0].tolist() == now.tolist()
    assert collected.experience.advantages.any(axis=1).all()
    bucket = loader.bucket_for(np.array([0, 1, 2, 3, 4, 6, 12]))
    expected = loader.load(now, bucket)
    assert collected.ids.tolist() == expected.ids
    for name in (field.name for field in dataclasses.fields(Prompts)):
        np.testing.assert_array_equal(
            getattr(collected.experience.prompts, name), getattr(expected.prompts, name), err_msg=name
        )
