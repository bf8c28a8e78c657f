"""The sampler: its filters against transformers' and numpy, its draws against their distribution."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dig_jax.rollout.sampling import (
    Sampling,
    SamplingOfEach,
    filter_top_k,
    filter_top_p,
    sample,
    sample_each,
    warp,
)

PLAIN = Sampling(temperature=1.0, top_p=1.0, top_k=0, eos_ids=(1,), suppressed=(2,), vocab_size=10, pad_id=0)


def sampling(**changes):
    return dataclasses.replace(PLAIN, **changes)


def softmax(x):
    x = np.exp(x - np.max(x, axis=-1, keepdims=True))
    return x / x.sum(axis=-1, keepdims=True)


def reference_distribution(logits, s):
    """The sampled distribution of one row, worked out token by token in float64."""
    allowed = [i for i in range(s.vocab_size) if i not in s.suppressed]
    order = sorted(allowed, key=lambda i: -logits[i])
    if s.top_k:
        order = order[: s.top_k]
    probabilities = softmax(np.array([logits[i] for i in order], np.float64) / s.temperature)
    kept = [0] + [rank for rank in range(1, len(order)) if probabilities[:rank].sum() < s.top_p]
    expected = np.zeros(len(logits))
    expected[[order[rank] for rank in kept]] = probabilities[kept] / probabilities[kept].sum()
    return expected


@pytest.mark.parametrize("temperature", [0.6, 1.0, 1.7])
@pytest.mark.parametrize("top_k", [0, 1, 4, 50])
@pytest.mark.parametrize("top_p", [0.1, 0.8, 0.95, 1.0])
def test_warped_distribution_matches_a_token_by_token_reference(temperature, top_k, top_p):
    s = sampling(temperature=temperature, top_k=top_k, top_p=top_p)
    logits = np.random.default_rng(3).normal(0, 2, (6, 12)).astype(np.float32)  # 12 rows, vocabulary 10
    expected = np.stack([reference_distribution(row, s) for row in logits])
    np.testing.assert_allclose(softmax(np.asarray(warp(logits, s))), expected, atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 5, 20, 40]), st.floats(0.01, 0.99))
def test_filters_match_transformers(seed, k, p):
    torch = pytest.importorskip("torch")
    warpers = pytest.importorskip("transformers.generation.logits_process")
    logits = np.random.default_rng(seed).normal(0, 3, (4, 37)).astype(np.float32)
    expected_k = warpers.TopKLogitsWarper(k)(None, torch.tensor(logits))
    np.testing.assert_array_equal(filter_top_k(logits, k), expected_k.numpy())
    top_p = warpers.TopPLogitsWarper(p)
    np.testing.assert_array_equal(
        filter_top_p(jnp.asarray(logits), p), top_p(None, torch.tensor(logits)).numpy()
    )
    both = filter_top_p(filter_top_k(logits, k), p, candidates=k)
    np.testing.assert_array_equal(both, top_p(None, expected_k).numpy())


def test_top_k_keeps_ties_with_the_last():
    kept = np.isfinite(filter_top_k(jnp.array([1.0, 3.0, 1.0, 0.0]), 2))
    assert kept.tolist() == [True, True, True, False]


def test_top_p_always_keeps_one_token():
    kept = np.isfinite(filter_top_p(jnp.array([0.0, 0.1, 0.0]), 1e-6))
    assert kept.tolist() == [False, True, False]


def test_no_sort_without_top_p_or_top_k():
    text = jax.jit(lambda x: warp(x, PLAIN)).lower(jnp.zeros((2, 12))).as_text()
    assert "sort" not in text and "top_k" not in text


@pytest.mark.parametrize("changes", [{}, {"temperature": 0.7}, {"top_k": 4, "top_p": 0.8}])
def test_draws_follow_the_distribution(changes):
    s = sampling(**changes)
    logits = np.random.default_rng(0).normal(0, 1, 12).astype(np.float32)
    draws = 20_000
    keys = jax.random.split(jax.random.key(0), draws)
    tokens, logprobs, _ = jax.jit(lambda keys: sample(jnp.asarray(logits)[None], keys, 5, s))(keys)
    expected = reference_distribution(logits, s)
    observed = np.bincount(tokens, minlength=12)
    assert np.all(observed[expected == 0] == 0)
    possible = expected > 0
    chi_square = np.sum((observed - draws * expected)[possible] ** 2 / (draws * expected[possible]))
    assert chi_square < 28  # 8 or fewer degrees of freedom: exceeded once in 2000
    np.testing.assert_allclose(logprobs, np.log(expected[np.asarray(tokens)]), atol=1e-5)


def test_suppressed_tokens_and_the_vocabulary_tail_are_never_drawn_even_when_most_probable():
    logits = jnp.zeros(12).at[jnp.array([2, 10, 11])].set(50.0)
    keys = jax.random.split(jax.random.key(1), 2000)
    for temperature in (0.0, 1.0):
        tokens, _, _ = sample(logits[None], keys, 0, sampling(temperature=temperature))
        assert set(np.unique(tokens)) <= set(range(10)) - {2}


def test_greedy_takes_the_first_most_probable_token():
    logits = jnp.array([[0.0, 1.0, 9.0, 3.0, 3.0] + [0.0] * 7])
    tokens, logprobs, _ = sample(logits, jax.random.split(jax.random.key(0), 1), 0, sampling(temperature=0))
    assert tokens.tolist() == [3]
    assert logprobs.tolist() == [0.0]


def test_model_logprob_ignores_temperature_filters_and_suppression():
    logits = np.random.default_rng(1).normal(size=(50, 12)).astype(np.float32)
    s = sampling(temperature=0.5, top_k=3)
    tokens, _, model_logprobs = sample(jnp.asarray(logits), jax.random.split(jax.random.key(0), 50), 0, s)
    expected = np.log(softmax(logits.astype(np.float64)))[np.arange(50), tokens]
    np.testing.assert_allclose(model_logprobs, expected, atol=1e-6)


def test_bfloat16_logits_are_scored_in_float32():
    logits = jnp.zeros((1, 12), jnp.bfloat16)
    _, logprobs, model_logprobs = sample(logits, jax.random.split(jax.random.key(0), 1), 0, PLAIN)
    np.testing.assert_allclose(logprobs, np.log([1 / 9]), rtol=1e-6)
    np.testing.assert_allclose(model_logprobs, np.log([1 / 12]), rtol=1e-6)


def test_noise_depends_on_the_sample_and_the_step_only():
    logits = jnp.asarray(np.random.default_rng(2).normal(size=(4, 12)).astype(np.float32))
    keys = jax.random.split(jax.random.key(0), 4)
    together, _, _ = sample(logits, keys, 7, PLAIN)
    reordered, _, _ = sample(logits[::-1], keys[::-1], 7, PLAIN)
    alone = [sample(logits[i : i + 1], keys[i : i + 1], 7, PLAIN)[0][0] for i in range(4)]
    mixed_steps, _, _ = sample(logits, keys, jnp.array([7, 8, 7, 9]), PLAIN)
    assert together.tolist() == reordered[::-1].tolist() == alone
    assert mixed_steps[0] == together[0] and mixed_steps[2] == together[2]
    other_steps = [sample(logits, keys, t, PLAIN)[0].tolist() for t in range(5)]
    assert len({tuple(tokens) for tokens in other_steps}) > 1


def test_one_row_of_logits_serves_a_group():
    logits = jnp.asarray(np.random.default_rng(4).normal(size=(2, 1, 12)).astype(np.float32))
    keys = jax.random.split(jax.random.key(0), (2, 3))
    shared = sample(logits, keys, 0, PLAIN)
    repeated = sample(jnp.repeat(logits, 3, axis=1), keys, 0, PLAIN)
    for one, other in zip(shared, repeated, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"temperature": -0.1}, "sampling.temperature is -0.1"),
        ({"temperature": float("nan")}, "sampling.temperature"),
        ({"top_p": 0.0}, "sampling.top_p is 0.0"),
        ({"top_p": 1.1}, "sampling.top_p"),
        ({"top_k": -1}, "sampling.top_k is -1"),
        ({"eos_ids": ()}, "sampling.eos_ids is empty"),
        ({"eos_ids": (10,)}, r"sampling.eos_ids has \[10\]"),
        ({"suppressed": (1, 3)}, r"sampling.suppressed contains the end tokens \[1\]"),
    ],
)
def test_a_wrong_setting_is_an_error_that_names_it(changes, named):
    with pytest.raises(ValueError, match=named):
        sampling(**changes)


def test_a_tokenizer_larger_than_the_head_is_an_error():
    with pytest.raises(ValueError, match="does not belong to this model"):
        PLAIN.allowed(9)


def test_rows_that_are_sampled_together_each_draw_as_they_would_alone():
    rng = np.random.default_rng(5)
    ways = [
        {"temperature": 0.0},
        {"temperature": 1.3},
        {"temperature": 0.8, "top_k": 3},
        {"temperature": 0.8, "top_p": 0.6},
        {"temperature": 1.0, "top_k": 4, "top_p": 0.7},
    ]
    logits = jnp.asarray(rng.normal(0, 2, (len(ways), 12)).astype(np.float32))
    each = jax.tree.map(lambda *x: np.stack(x), *[SamplingOfEach.of(sampling(**way)) for way in ways])
    together = jax.jit(sample_each, static_argnames="common")
    alone = jax.jit(sample, static_argnames="sampling")
    drawn = set()
    for step in range(60):
        keys, at = jax.random.split(jax.random.key(step), len(ways)), jnp.full(len(ways), step)
        tokens, logprobs = together(logits, keys, at, each, common=PLAIN)
        for row, way in enumerate(ways):
            token, _, logprob = alone(logits[row], keys[row], step, sampling=sampling(**way))
            assert (tokens[row], float(logprobs[row])) == (token, pytest.approx(float(logprob), abs=1e-6))
            drawn.add((row, int(token)))
    assert len(drawn) > 12  # it was no test of greedy rows
    forced = together(logits, keys, at, each, PLAIN, jnp.array([-1, 3, -1, -1, -1]))[0]
    assert forced[1] == 3 and (forced[2:] == tokens[2:]).all()
