"""Micro-batches by response length: nothing but the work they cost may depend on how an update is cut."""

import dataclasses
import functools

import jax
import numpy as np
import optax
import pytest
from flax import nnx

from bench.learning import make_learner
from configs import base
from dig_jax.models.hf import checkpoint
from dig_jax.update import grpo, microbatches
from dig_jax.update.grpo import GRPOConfig
from dig_jax.update.microbatches import Cut, Pieces
from dig_jax.update.policy import Experience
from tests.models.conftest import PromptMaker
from tests.update.test_policy import relative_error

pytestmark = pytest.mark.usefixtures("quick_compiling")

PROMPTS, GROUP, LENGTH = 4, 4, 16


def mask_of(lengths: list[list[int]], longest: int = LENGTH) -> np.ndarray:
    return (np.arange(longest) < np.array(lengths)[..., None]).astype(np.float32)


def cut_up(lengths: list[list[int]], cut: Cut) -> Pieces:
    return jax.device_get(microbatches.cut_up(mask_of(lengths), cut))


def test_whole_groups_go_from_the_longest_to_the_shortest():
    pieces = cut_up([[1, 2], [9, 3], [5, 4]], Cut(1, buckets=(4, 8)))
    # One lane, its completions numbered 0 to 5; the longest of the prompts are 2, 9 and 5.
    assert pieces.completions.tolist() == [[[2, 3]], [[4, 5]], [[1, 0]]]
    assert pieces.bucket.tolist() == [2, 1, 0]  # of the lengths 4, 8, 16


def test_parts_of_a_group_are_cut_by_length():
    pieces = cut_up([[1, 9, 2, 16], [3, 8, 3, 4]], Cut(1, completions=2, buckets=(4, 8)))
    assert pieces.completions.tolist() == [[[3, 1]], [[5, 7]], [[4, 6]], [[2, 0]]]
    assert pieces.bucket.tolist() == [2, 1, 0, 0]


def test_a_micro_batch_has_a_piece_of_every_lane_and_the_bucket_of_the_longest():
    pieces = cut_up([[1, 2], [9, 3], [5, 4], [1, 1]], Cut(2, buckets=(4, 8)))
    assert pieces.completions.tolist() == [[[2, 3], [0, 1]], [[1, 0], [2, 3]]]
    assert pieces.bucket.tolist() == [2, 0]


def test_a_response_as_long_as_a_bucket_fits_in_it():
    assert cut_up([[4, 4], [5, 1]], Cut(1, buckets=(4, 8))).bucket.tolist() == [1, 0]


def test_without_buckets_of_their_own_responses_have_a_half_and_a_quarter_of_the_longest():
    config = base.get_config()
    assert Cut.from_config(config).lengths(config.rollout.max_new_tokens) == (512, 1024, 2048)
    config.rollout.max_new_tokens = 300
    assert Cut.from_config(config).lengths(300) == (150, 300)
    config.batch.response_buckets = (300,)
    assert Cut.from_config(config).lengths(300) == (300,)


@pytest.fixture(scope="module")
def model(tiny_qwen3vl):
    return checkpoint.load_model(tiny_qwen3vl)


@pytest.fixture(scope="module")
def experience(model) -> Experience:
    """Four prompts with images and four responses of 1 to 16 tokens each, with rubbish after their ends."""
    make = PromptMaker(model.config)
    images = [[(4, 6), (6, 2)], [(2, 8)], [(2, 2)], [(4, 4), (2, 4)]]
    prompts = make.pad(*(make.example(grids, text=3 + i, seed=i) for i, grids in enumerate(images)))
    rng = np.random.default_rng(0)
    shape = (PROMPTS, GROUP, LENGTH)
    mask = mask_of([[16, 1, 2, 3], [3, 1, 4, 4], [7, 8, 6, 5], [2, 2, 9, 1]])
    rubbish = lambda: rng.normal(-6, 0.3, shape).astype(np.float32)  # noqa: E731
    return Experience(
        prompts=prompts,
        tokens=rng.integers(0, 300, shape).astype(np.int32),
        mask=mask,
        behaviour_logprobs=rubbish(),
        advantages=rng.normal(size=shape[:2]).astype(np.float32),
        ref_logprobs=rubbish(),
        old_logprobs=rubbish(),
    )


WHOLE = Cut(PROMPTS)
HALVES = Cut(2, completions=2, buckets=(4, 8))
CUTS = [
    pytest.param(HALVES, id="halves of groups"),
    pytest.param(Cut(2, buckets=(4, 8)), id="groups", marks=pytest.mark.slow),
    pytest.param(Cut(1, completions=1, buckets=(4,)), id="single completions", marks=pytest.mark.slow),
]


@pytest.fixture(scope="module")
def run(model, experience):
    """A cut to its program, and to the log-probs, the metrics and the gradient of an update."""
    graphdef, params = nnx.split(model, nnx.Param)

    @functools.cache
    def run(cut: Cut):
        config = base.get_config()
        config.optimizer.clip_norm = 1e9
        learner = make_learner(
            graphdef,
            model.config.text.vocab_size,
            config,
            chunk=8,
            cut=cut,
            frozen=frozenset({"vision", "projector"}),
        )

        @functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
        def both(params, experience):
            state, metrics = learner.update_grpo(learner.init(params), experience)
            # After one update the first moments are a multiple of the gradient.
            return learner.logprobs(params, experience), metrics, optax.tree_utils.tree_get(state, "mu")

        return both, both(params, experience)

    return run


@pytest.mark.parametrize("cut", CUTS)
def test_logprobs_are_in_their_place_whatever_the_cut(run, cut):
    _, (ours, _, _) = run(cut)
    _, (expected, _, _) = run(WHOLE)
    np.testing.assert_allclose(ours, expected, atol=1e-5)


@pytest.mark.parametrize("cut", CUTS)
def test_loss_metrics_and_gradient_are_those_of_the_whole_batch(run, cut):
    _, (_, metrics, gradient) = run(cut)
    _, (_, expected, expected_gradient) = run(WHOLE)
    for name in expected.keys() - {"response_padding"}:
        np.testing.assert_allclose(metrics[name], expected[name], rtol=1e-5, atol=1e-6, err_msg=name)
    assert relative_error(gradient, expected_gradient) < 1e-5


@pytest.mark.parametrize(
    "settings_of_loss",
    [
        {"loss": "dr_grpo", "normalize_std": False, "importance_cap": 2.0},
        {"loss": "gspo", "loss_mean": "sequence", "clip_low": 0.05, "clip_high": 0.05},
        {"loss_mean": "sequence"},
    ],
    ids=["dr_grpo", "gspo", "sequence mean"],
)
def test_no_loss_changes_when_a_group_is_cut_and_its_padding_trimmed(experience, settings_of_loss):
    config = base.get_config()
    config.grpo.update(settings_of_loss)
    loss_config, totals = GRPOConfig.from_config(config), grpo.step_totals(experience.mask)

    @jax.jit
    def loss(batch: Experience):
        arrays = (batch.behaviour_logprobs, batch.ref_logprobs, batch.advantages, batch.mask)
        logprobs, old = batch.behaviour_logprobs + 0.2, batch.old_logprobs
        return grpo.policy_loss(logprobs, *arrays, loss_config, totals, entropy=logprobs, old_logprobs=old)[1]

    lengths, pieces = HALVES.lengths(LENGTH), microbatches.cut_up(experience.mask, HALVES)
    parts = []
    for number, bucket in enumerate(pieces.bucket):
        piece = jax.tree.map(lambda x, number=number: x[number], pieces)
        micro = microbatches.trim(microbatches.take(experience, piece), lengths[bucket])
        assert micro.mask.shape == (2, 2, lengths[bucket])
        parts.append(loss(micro))
    assert len(parts) == 4 and len({lengths[bucket] for bucket in pieces.bucket}) == 3
    combined = grpo.combine_metrics(jax.tree.map(lambda *x: np.stack(x), *parts))
    for name, expected in loss(experience).items():
        np.testing.assert_allclose(combined[name], expected, rtol=1e-5, err_msg=name)


def test_the_share_of_padding_is_counted(run, experience):
    tokens = experience.mask.sum()
    _, (_, whole, _) = run(WHOLE)
    np.testing.assert_allclose(whole["response_padding"], 1 - tokens / (PROMPTS * GROUP * LENGTH), rtol=1e-5)
    # Halves of both lanes, from the longest: 16 and 9, 3 and 8, 4 and 6, 2 and 2. Four completions each.
    _, (_, cut, _) = run(HALVES)
    np.testing.assert_allclose(cut["response_padding"], 1 - tokens / (4 * (16 + 8 + 8 + 4)), rtol=1e-5)


def test_other_lengths_compile_nothing(run, model, experience):
    program, _ = run(HALVES)
    before = program._cache_size()
    short = dataclasses.replace(experience, mask=mask_of([[1, 2, 3, 1]] * PROMPTS))
    _, metrics, _ = program(nnx.state(model, nnx.Param), short)
    np.testing.assert_allclose(metrics["response_padding"], 1 - short.mask.sum() / (16 * 4), rtol=1e-5)
    assert program._cache_size() == before


def test_prompts_without_images_are_cut_too(experience):
    patches = np.zeros((PROMPTS, 0, 3), np.float32)
    prompts = dataclasses.replace(experience.prompts, patches=patches)
    batch = dataclasses.replace(experience, prompts=prompts)
    piece = Pieces(np.array([[0, 1, 2, 3], [7, 6, 5, 4]]), np.int32(0))
    micro = microbatches.take(batch, piece)
    assert micro.prompts.patches.shape == (2, 0, 3)
    np.testing.assert_array_equal(micro.tokens[1], experience.tokens[3, ::-1])
