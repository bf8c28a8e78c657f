"""Log-probs of responses and the GRPO loss on the tiny model."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from dig_jax.models.hf import checkpoint
from dig_jax.update import grpo, policy
from tests.models.conftest import PromptMaker

pytestmark = pytest.mark.usefixtures("quick_compiling")

CONFIG = grpo.GRPOConfig(
    loss="grpo",
    kl="k3",
    kl_coef=0.1,
    clip_low=0.2,
    clip_high=0.3,
    dual_clip=3.0,
    loss_mean="token",
    normalize_std=True,
    advantage_eps=1e-6,
    importance_cap=None,
    visual_dependency=0.0,
)
GROUP, LENGTH = 3, 6

jitted_logprobs = jax.jit(policy.response_logprobs, static_argnames=("temperature", "chunk"))


@pytest.fixture(scope="module")
def model(tiny_qwen3vl):
    return checkpoint.load_model(tiny_qwen3vl)


@pytest.fixture(scope="module")
def make(model):
    return PromptMaker(model.config)


@pytest.fixture(scope="module")
def examples(make):
    return [make.example([(4, 6), (6, 2)], seed=1), make.example([(2, 8)], text=3, seed=2)]


@pytest.fixture(scope="module")
def responses():
    """Tokens and mask of responses of 6, 1, 4; 2, 3, 5 tokens, with rubbish after their ends."""
    tokens = np.random.default_rng(0).integers(0, 300, (2, GROUP, LENGTH)).astype(np.int32)
    lengths = np.array([[6, 1, 4], [2, 3, 5]])
    return tokens, (np.arange(LENGTH) < lengths[..., None]).astype(np.float32)


def test_logprobs_equal_those_of_each_sequence_run_alone(model, make, examples, responses):
    tokens, mask = responses
    temperature = 0.7
    allowed = np.ones(model.config.text.vocab_size, bool)
    allowed[[model.config.image_token_id, 301]] = False
    ours, entropy, _ = jitted_logprobs(
        model, make.pad(*examples), tokens, mask, temperature=temperature, allowed=allowed, chunk=4
    )
    all_logits = jax.jit(lambda prompts: model.logits(model(prompts)[0]))
    for row, example in enumerate(examples):
        for sample in range(GROUP):
            length = int(mask[row, sample].sum())
            answer = tokens[row, sample, :length]
            whole = type(example)(np.concatenate([example.ids, answer]), example.images)
            start = len(example.ids) - 1
            logits = np.array(all_logits(make.pad(whole)))[0, start : start + length] / temperature
            logits[:, ~allowed] = -np.inf
            expected = np.asarray(jax.nn.log_softmax(logits, axis=-1))
            chosen = expected[np.arange(length), answer]
            np.testing.assert_allclose(ours[row, sample, :length], chosen, atol=1e-5)
            surprise = np.where(allowed, expected, 0)
            np.testing.assert_allclose(
                entropy[row, sample, :length], -np.sum(np.exp(expected) * surprise, axis=-1), atol=1e-5
            )
    assert np.all(ours[mask == 0] == 0) and np.all(entropy[mask == 0] == 0)


def test_padding_tokens_do_not_matter(model, make, examples, responses):
    tokens, mask = responses
    settings = {"temperature": 1.0, "allowed": None, "chunk": 6}
    rubbish, *_ = jitted_logprobs(model, make.pad(*examples), tokens, mask, **settings)
    zeros, *_ = jitted_logprobs(model, make.pad(*examples), tokens * (mask > 0), mask, **settings)
    np.testing.assert_allclose(rubbish, zeros, atol=1e-6)


@pytest.fixture(scope="module")
def gradient(model):
    """(experience, totals) to ((loss, metrics), gradient over all parameters)."""
    graphdef, params = nnx.split(model, nnx.Param)

    def loss(params, experience, totals):
        return policy.grpo_loss(
            nnx.merge(graphdef, params),
            experience,
            totals,
            config=CONFIG,
            temperature=1.0,
            allowed=None,
            chunk=4,
        )

    return functools.partial(jax.jit(jax.value_and_grad(loss, has_aux=True)), params)


@pytest.fixture(scope="module")
def experience(model, make, examples, responses):
    tokens, mask = responses
    prompts = make.pad(*examples)
    logprobs, *_ = jitted_logprobs(model, prompts, tokens, mask, temperature=1.0, allowed=None, chunk=6)
    return policy.Experience(
        prompts=prompts,
        tokens=tokens,
        mask=mask,
        behaviour_logprobs=logprobs,
        advantages=np.array([[1.0, -0.5, -0.5], [0.3, 0.6, -0.9]], np.float32),
        ref_logprobs=logprobs,
    )


def test_on_the_sampling_policy_ratios_are_one_and_the_loss_is_minus_the_mean_advantage(gradient, experience):
    (loss, metrics), _ = gradient(experience, grpo.step_totals(experience.mask))
    weights = experience.mask.sum(axis=-1)
    np.testing.assert_allclose(loss, -np.sum(weights * experience.advantages) / weights.sum(), atol=1e-5)
    np.testing.assert_allclose(metrics["ratio_max"], 1, atol=1e-5)
    np.testing.assert_allclose(metrics["kl"], 0, atol=1e-6)
    assert metrics["sampler_trainer_gap_max"] < 1e-5
    assert metrics["entropy"] > 0


def test_its_gradient_is_the_policy_gradient(model, gradient, experience):
    """At ratio 1 the gradient is that of -sum(A * logprob) / tokens; the KL adds none at the reference."""
    graphdef, params = nnx.split(model, nnx.Param)

    @jax.jit
    @jax.grad
    def expected(params):
        logprobs, *_ = policy.response_logprobs(
            nnx.merge(graphdef, params),
            experience.prompts,
            experience.tokens,
            experience.mask,
            temperature=1.0,
            allowed=None,
            chunk=6,
        )
        return -jnp.sum(logprobs * experience.advantages[..., None]) / experience.mask.sum()

    _, ours = gradient(experience, grpo.step_totals(experience.mask))
    assert relative_error(ours, expected(params)) < 1e-4


def test_gradient_accumulation_equals_the_full_batch(gradient, experience):
    experience = experience.replace(behaviour_logprobs=experience.behaviour_logprobs - 0.1)
    totals = grpo.step_totals(experience.mask)
    (loss, metrics), full = gradient(experience, totals)
    # A micro-batch here is the batch with its other row emptied: of the same shape, so compiled once.
    empty = np.eye(2, dtype=np.float32)[:, :, None, None]
    parts = [gradient(experience.replace(mask=experience.mask * row), totals) for row in empty]
    np.testing.assert_allclose(sum(part[0][0] for part in parts), loss, rtol=1e-5)
    combined = grpo.combine_metrics(jax.tree.map(lambda *x: jnp.stack(x), *(part[0][1] for part in parts)))
    for name in metrics:
        np.testing.assert_allclose(combined[name], metrics[name], rtol=1e-4, atol=1e-6, err_msg=name)
    assert relative_error(jax.tree.map(jnp.add, parts[0][1], parts[1][1]), full) < 1e-5


def relative_error(ours, theirs):
    """Largest relative L2 difference over tensors."""
    errors = jax.tree.map(lambda a, b: jnp.linalg.norm(a - b) / (jnp.linalg.norm(b) + 1e-12), ours, theirs)
    return max(map(float, jax.tree.leaves(errors)))
