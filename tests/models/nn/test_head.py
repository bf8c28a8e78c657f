"""Log-probabilities of tokens, chunk by chunk."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dig_jax.models.nn.head import token_divergences, token_logprobs


def plain_logprobs(logits, targets, temperature, allowed):
    logits = np.where(allowed, np.asarray(logits, np.float64) / temperature, -np.inf)
    logprobs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    chosen = np.take_along_axis(logprobs, targets[..., None], axis=-1)[..., 0]
    return chosen, -(np.exp(logprobs) * np.where(allowed, logprobs, 0)).sum(-1)


@pytest.mark.parametrize("chunk", [64, 4, 1])
def test_token_logprobs_equal_the_plain_formula(chunk):
    """Ten tokens in chunks that divide them and that do not."""
    rng = np.random.default_rng(0)
    hidden = rng.standard_normal((2, 3, 10, 8)).astype(np.float32)
    table = rng.standard_normal((8, 20)).astype(np.float32)
    allowed = np.arange(20) != 7
    targets = rng.choice(np.flatnonzero(allowed), (2, 3, 10))
    ours = token_logprobs(
        table.T, hidden, targets, temperature=0.7, allowed=jnp.asarray(allowed), chunk=chunk
    )
    expected = plain_logprobs(hidden @ table, targets, 0.7, allowed)
    np.testing.assert_allclose(ours[0], expected[0], atol=1e-5)
    np.testing.assert_allclose(ours[1], expected[1], atol=1e-5)


def test_token_logprobs_have_the_same_gradient_in_chunks():
    rng = np.random.default_rng(1)
    hidden = rng.standard_normal((2, 10, 8)).astype(np.float32)
    table = rng.standard_normal((8, 20)).astype(np.float32)
    targets = rng.integers(0, 20, (2, 10))

    def total(table, chunk):
        logprobs, entropy = token_logprobs(table.T, hidden, targets, chunk=chunk)
        return jnp.sum(logprobs * np.arange(10)) + jnp.sum(entropy**2)

    gradient = jax.jit(jax.grad(total), static_argnums=1)
    np.testing.assert_allclose(gradient(table, 3), gradient(table, 64), rtol=1e-4, atol=1e-5)


def divergence_of(ours, theirs, beta):
    """As GKD has it; the ends are the two KL divergences."""
    kl = lambda p, q: jnp.sum(p * jnp.log(p / q), axis=-1)  # noqa: E731
    if beta in (0.0, 1.0):
        return kl(theirs, ours) if beta == 0 else kl(ours, theirs)
    middle = beta * theirs + (1 - beta) * ours
    return beta * kl(theirs, middle) + (1 - beta) * kl(ours, middle)


@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0])
def test_divergences_from_a_teacher_and_their_gradients_equal_the_plain_formula(beta):
    """Five tokens in chunks of two; the teacher's states and table are constants."""
    rng = np.random.default_rng(2)
    hidden, states = rng.standard_normal((2, 2, 5, 4)).astype(np.float32)
    table, others = rng.standard_normal((2, 7, 4)).astype(np.float32)
    targets = rng.integers(0, 6, (2, 5))
    allowed = np.arange(7) != 6
    weights = rng.standard_normal((2, 5))

    def ours(table, hidden, others, states):
        given = (table, hidden, targets, others, states)
        return token_divergences(*given, beta=beta, temperature=0.7, allowed=allowed, chunk=2)

    def plain(table, hidden, others, states):
        p, q = (jax.nn.softmax((x @ y.T)[..., allowed] / 0.7) for x, y in ((hidden, table), (states, others)))
        return divergence_of(p, q, beta), divergence_of(p, q, 1.0), p.argmax(-1) == q.argmax(-1)

    given = (table, hidden, others, states)
    logprobs, entropies, divergence, kl, agreement = ours(*given)
    for found, right in zip((divergence, kl, agreement), plain(*given), strict=True):
        np.testing.assert_allclose(found, right, atol=1e-5)
    alone = token_logprobs(table, hidden, targets, temperature=0.7, allowed=allowed, chunk=2)
    np.testing.assert_array_equal((logprobs, entropies), alone)

    gradients = jax.grad(lambda *x: jnp.sum(ours(*x)[2] * weights), argnums=(0, 1, 2, 3))(*given)
    expected = jax.grad(lambda *x: jnp.sum(plain(*x)[0] * weights), argnums=(0, 1))(*given)
    for found, right in zip(gradients, (*expected, 0 * others, 0 * states), strict=True):
        np.testing.assert_allclose(found, right, atol=1e-5)


def test_a_teacher_with_the_same_states_is_no_signal():
    hidden, table = np.ones((1, 3, 2), np.float32), np.eye(2, dtype=np.float32)
    given = (table, hidden, np.zeros((1, 3), int), table, hidden)
    *_, divergence, kl, agreement = token_divergences(*given, beta=0.5)
    assert not divergence.any() and not kl.any() and agreement.all()


def products(jaxpr):
    """All matrix products of a program, those of its loops and branches included."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            yield equation
        for value in jax.tree.leaves(equation.params, is_leaf=lambda x: hasattr(x, "jaxpr")):
            if hasattr(value, "jaxpr"):
                yield from products(value.jaxpr if hasattr(value.jaxpr, "eqns") else value.jaxpr.jaxpr)


def test_in_bfloat16_all_products_of_the_head_are_bfloat16_with_float32_sums():
    """Gradients of logits are float32; next to them the table would be converted for every slice, and a GPU
    would multiply in TF32. The gradients stay those of float32 to a bfloat16's precision."""
    rng = np.random.default_rng(2)
    hidden = rng.standard_normal((2, 12, 64)).astype(np.float32)
    table = 0.2 * rng.standard_normal((300, 64)).astype(np.float32)
    targets = rng.integers(0, 300, (2, 12))
    weights = rng.standard_normal((2, 12)).astype(np.float32)

    def total(table, hidden):
        logprobs, entropy = token_logprobs(table, hidden, targets, chunk=5)
        return jnp.sum(logprobs * weights) + jnp.sum(entropy)

    gradient = jax.grad(total, argnums=(0, 1))
    low = [jnp.asarray(x, jnp.bfloat16) for x in (table, hidden)]
    found = list(products(jax.make_jaxpr(gradient)(*low).jaxpr))
    assert len(found) == 4  # logits, logits once more, and the gradients of both operands
    for product in found:
        assert {x.aval.dtype.name for x in product.invars} == {"bfloat16"}
        assert product.outvars[0].aval.dtype == jnp.float32
    exact = gradient(*(x.astype(jnp.float32) for x in low))
    for ours, right in zip(gradient(*low), exact, strict=True):
        assert np.linalg.norm(ours.astype(jnp.float32) - right) < 5e-3 * np.linalg.norm(right)


@pytest.mark.parametrize(("option", "value"), [("temperature", 0.0), ("chunk", 0)])
def test_token_logprobs_refuse_settings_that_make_no_sense(option, value):
    with pytest.raises(ValueError, match=f"{option} is {value}, expected"):
        token_logprobs(np.zeros((3, 2)), np.zeros((1, 2)), np.zeros(1, int), **{option: value})
