"""The supervised loss on the tiny model."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from dig_jax.models.hf import checkpoint
from dig_jax.update import sft
from dig_jax.update.policy import response_logprobs
from tests.models.conftest import PROMPT_LENGTH, PromptMaker

pytestmark = pytest.mark.usefixtures("quick_compiling")

CONFIG = sft.SFTConfig(aux_weight=0.5, token_yes=7, token_no=9)
LENGTH = 5


@pytest.fixture(scope="module")
def model(tiny_qwen3vl):
    return checkpoint.load_model(tiny_qwen3vl)


@pytest.fixture(scope="module")
def batch(model):
    """Two examples with answers of 5 and 2 tokens; the cells are the image tokens."""
    make = PromptMaker(model.config)
    prompts = make.pad(make.example([(4, 6), (6, 2)], seed=1), make.example([(2, 8)], text=3, seed=2))
    rng = np.random.default_rng(0)
    return sft.Supervised(
        prompts=prompts,
        tokens=rng.integers(0, 300, (2, LENGTH)).astype(np.int32),
        mask=(np.arange(LENGTH) < np.array([[5], [2]])).astype(np.float32),
        cell_mask=(prompts.tokens == model.config.image_token_id).astype(np.float32),
        cell_targets=rng.integers(0, 2, prompts.tokens.shape).astype(np.float32),
    )


@pytest.fixture(scope="module")
def gradient(model):
    """(batch, totals) to ((loss, metrics), gradient)."""
    graphdef, params = nnx.split(model, nnx.Param)

    def loss(params, batch, totals):
        return sft.sft_loss(nnx.merge(graphdef, params), batch, totals, config=CONFIG, chunk=2)

    return functools.partial(jax.jit(jax.value_and_grad(loss, has_aux=True)), params)


def totals_of(batch):
    return sft.step_totals(batch.mask, batch.cell_mask)


def test_answer_loss_is_the_mean_cross_entropy_of_the_answer_tokens(model, batch, gradient):
    (_, metrics), _ = gradient(batch, totals_of(batch))
    scored = jax.jit(functools.partial(response_logprobs, temperature=1.0, allowed=None, chunk=LENGTH))
    logprobs, *_ = scored(model, batch.prompts, batch.tokens[:, None], batch.mask[:, None])
    np.testing.assert_allclose(metrics["answer_loss"], -logprobs.sum() / 7, rtol=1e-5)  # 5 + 2 tokens


def test_auxiliary_loss_is_the_binary_cross_entropy_of_yes_against_no(model, batch, gradient):
    (loss, metrics), _ = gradient(batch, totals_of(batch))
    logits = np.asarray(jax.jit(lambda prompts: model.logits(model(prompts)[0]))(batch.prompts), np.float64)
    probability = 1 / (1 + np.exp(logits[..., CONFIG.token_no] - logits[..., CONFIG.token_yes]))
    right = np.where(batch.cell_targets == 1, probability, 1 - probability)[batch.cell_mask == 1]
    np.testing.assert_allclose(metrics["aux_loss"], -np.log(right).mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics["aux_accuracy"], (right > 0.5).mean(), rtol=1e-6)
    np.testing.assert_allclose(loss, metrics["answer_loss"] + 0.5 * metrics["aux_loss"], rtol=1e-6)


def test_token_accuracy_counts_most_probable_answer_tokens(model, batch, gradient):
    """The model's own greedy choice as answer, teacher-forced one token at a time: accuracy 1."""
    tokens = np.array(batch.tokens)
    forward = jax.jit(lambda tokens: sft.policy.forward(model, batch.prompts, tokens[:, None])[1][:, 0])
    for position in range(LENGTH):
        best = sft.most_probable(model, forward(tokens), chunk=2)
        tokens[:, position] = best[:, position]
    (_, metrics), _ = gradient(batch.replace(tokens=tokens), totals_of(batch))
    assert metrics["token_accuracy"] == 1
    tokens[1, 1] = (tokens[1, 1] + 1) % 300  # the last answer token of the second example
    (_, metrics), _ = gradient(batch.replace(tokens=tokens), totals_of(batch))
    np.testing.assert_allclose(metrics["token_accuracy"], 6 / 7, rtol=1e-6)


def test_gradient_accumulation_equals_the_full_batch(batch, gradient):
    totals = totals_of(batch)
    (loss, metrics), full = gradient(batch, totals)
    # A micro-batch here is the batch with its other row emptied: of the same shape, so compiled once.
    parts = [
        gradient(batch.replace(mask=batch.mask * row, cell_mask=batch.cell_mask * row), totals)
        for row in np.eye(2, dtype=np.float32)[:, :, None]
    ]
    np.testing.assert_allclose(sum(part[0][0] for part in parts), loss, rtol=1e-5)
    for name in metrics:
        np.testing.assert_allclose(sum(part[0][1][name] for part in parts), metrics[name], rtol=1e-5)
    for one, other, whole in zip(*map(jax.tree.leaves, (parts[0][1], parts[1][1], full)), strict=True):
        assert jnp.linalg.norm(one + other - whole) <= 1e-5 * jnp.linalg.norm(whole)


def test_padding_does_not_matter(batch, gradient):
    (loss, _), _ = gradient(batch, totals_of(batch))
    rubbish = batch.replace(
        tokens=np.where(batch.mask > 0, batch.tokens, 250),
        cell_targets=np.where(batch.cell_mask > 0, batch.cell_targets, np.nan),
    )
    (other, _), gradients = gradient(rubbish, totals_of(batch))
    np.testing.assert_allclose(other, loss, rtol=1e-6)
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(gradients))


def test_the_auxiliary_loss_computes_two_rows_of_the_head_only(model, batch):
    hidden = jnp.zeros((2, PROMPT_LENGTH, model.config.text.hidden_size))
    losses = functools.partial(sft.cell_losses, model, targets=batch.cell_targets, config=CONFIG)
    text = str(jax.make_jaxpr(losses)(hidden))
    assert f"f32[2,{PROMPT_LENGTH},2]" in text
    assert f"f32[2,{PROMPT_LENGTH},{model.config.text.vocab_size}]" not in text


def test_without_weight_there_is_no_auxiliary_loss(model, batch):
    config = sft.SFTConfig(aux_weight=0.0, token_yes=0, token_no=0)
    run = functools.partial(sft.sft_loss, config=config, chunk=LENGTH)
    _, metrics = jax.eval_shape(run, model, batch, totals_of(batch))
    assert metrics.keys() == {"loss", "answer_loss", "token_accuracy"}


@pytest.mark.parametrize(
    ("weight", "yes", "no", "named"),
    [(-0.1, 1, 2, "sft.aux_weight is -0.1"), (1.0, 4, 4, "both 4; they must differ")],
)
def test_a_wrong_setting_is_an_error_that_names_it(weight, yes, no, named):
    with pytest.raises(ValueError, match=named):
        sft.SFTConfig(aux_weight=weight, token_yes=yes, token_no=no)


@pytest.mark.slow
def test_earlier_answers_count_as_the_tokens_that_the_prompt_predicts_there(model, batch, gradient):
    """Of two prompts, three tokens of the first and none of the second are earlier answers."""
    slots = np.array([[2, 3, 5], [0, 0, 0]], np.int32)
    with_earlier = batch.replace(earlier=slots, earlier_mask=np.array([[1, 1, 1], [0, 0, 0]], np.float32))
    totals = sft.step_totals(with_earlier.learnt, batch.cell_mask)
    assert float(totals.tokens) == 3 + 7
    (_, metrics), gradients = gradient(with_earlier, totals)
    (_, alone), _ = gradient(batch, totals_of(batch))
    logits = jax.jit(lambda prompts: model.logits(model(prompts)[0]))(batch.prompts)
    logprobs = jax.nn.log_softmax(logits[0, slots[0] - 1])
    earlier = -sum(
        float(row[token]) for row, token in zip(logprobs, batch.prompts.tokens[0, slots[0]], strict=True)
    )
    np.testing.assert_allclose(metrics["answer_loss"], (earlier + 7 * alone["answer_loss"]) / 10, rtol=1e-5)
    rubbish = with_earlier.replace(
        earlier=slots + np.array([[0], [4]], np.int32)
    )  # masked: it does not matter
    (_, same), other = gradient(rubbish, totals)
    np.testing.assert_allclose(same["answer_loss"], metrics["answer_loss"], rtol=1e-6)
    for one, two in zip(jax.tree.leaves(gradients), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(one, two, atol=1e-6)
