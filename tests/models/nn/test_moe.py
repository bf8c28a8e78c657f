"""A layer of experts: routing, replay, what is kept for the backward pass, statistics and loss."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from dig_jax.models.nn import moe, routing
from dig_jax.models.nn.layers import remat
from dig_jax.models.nn.routing import RouterStatistics
from tests.models.qwen3_vl_moe.configs import small_config

WIDTH, INNER, EXPERTS, PER_TOKEN, TOKENS = 16, 6, 8, 2, 12


@pytest.fixture(scope="module")
def block():
    config = small_config(experts=EXPERTS, per_token=PER_TOKEN, inner=INNER)
    text = config.resized(text={"hidden_size": WIDTH}, vision={}).text
    return moe.MoE(text, rngs=nnx.Rngs(0), dtype=jnp.float32)


@pytest.fixture(scope="module")
def x():
    return np.random.default_rng(1).standard_normal((3, TOKENS // 3, WIDTH)).astype(np.float32)


def by_hand(block, x):
    """Token by token, in double precision: the result, and the experts from the most probable on."""
    kernel, gate_up, down = (
        np.asarray(p[...], np.float64) for p in (block.router.kernel, block.gate_up, block.down)
    )
    results, chosen = [], []
    for token in x.reshape(-1, WIDTH).astype(np.float64):
        logits = token @ kernel
        probabilities = np.exp(logits) / np.exp(logits).sum()
        ids = np.argsort(-probabilities, kind="stable")[:PER_TOKEN]
        total = 0
        for id in ids:
            gate, up = np.split(token @ gate_up[id], 2)
            total = (
                total
                + probabilities[id] / probabilities[ids].sum() * (gate / (1 + np.exp(-gate)) * up) @ down[id]
            )
        results.append(total)
        chosen.append(ids)
    return np.reshape(results, x.shape), np.reshape(chosen, (*x.shape[:-1], PER_TOKEN))


def test_each_token_is_the_weighted_sum_of_its_experts(block, x):
    y, ids, statistics = block(x)
    expected, chosen = by_hand(block, x)
    np.testing.assert_array_equal(ids, chosen)
    np.testing.assert_allclose(y, expected, atol=1e-6)
    assert ids.dtype == jnp.int32 and statistics is None


def test_of_equal_probabilities_the_lower_number_wins(block):
    ids = block(np.zeros((1, WIDTH), np.float32))[1]
    np.testing.assert_array_equal(ids, [[0, 1]])


@jax.jit
def loss_and_gradients(block, x, ids):
    graphdef, params = nnx.split(block, nnx.Param)

    def loss(params, x):
        y, taken, _ = nnx.merge(graphdef, params)(x, ids)
        return jnp.sum(jnp.sin(y)), taken

    return jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(params, x)


def test_its_own_choice_given_back_is_the_same_function(block, x):
    """In value and in every gradient, bit for bit, the router's included."""
    (value, ids), gradients = loss_and_gradients(block, x, None)
    for dtype in (jnp.int32, jnp.uint8):
        (again, taken), same = loss_and_gradients(block, x, ids.astype(dtype))
        assert taken.dtype == jnp.int32
        for a, b in zip(
            jax.tree.leaves((value, ids, gradients)), jax.tree.leaves((again, taken, same)), strict=True
        ):
            np.testing.assert_array_equal(a, b)
    assert np.abs(gradients[0]["router"]["kernel"][...]).max() > 0


def test_other_experts_are_weighted_by_what_the_router_gives_them_now(block, x):
    ids = np.broadcast_to(np.array([5, 2], np.uint8), (*x.shape[:-1], 2))
    y, taken, _ = block(x, ids)
    np.testing.assert_array_equal(taken, ids)
    probabilities = np.asarray(block.router(x))[..., [5, 2]]
    weights = probabilities / probabilities.sum(-1, keepdims=True)
    expected = 0
    for number, id in enumerate((5, 2)):
        gate, up = np.split(x @ np.asarray(block.gate_up[...][id]), 2, axis=-1)
        part = np.asarray(jax.nn.silu(gate) * up) @ np.asarray(block.down[...][id])
        expected = expected + weights[..., number : number + 1] * part
    np.testing.assert_allclose(y, expected, atol=1e-6)


def test_the_router_is_float32_beside_bfloat16_activations(block, x):
    half = x.astype(jnp.bfloat16)
    y, ids, _ = block(half)
    assert y.dtype == jnp.bfloat16 and block.router(half).dtype == jnp.float32
    np.testing.assert_array_equal(ids, block(np.asarray(half, np.float32))[1])


@pytest.mark.parametrize("policy", ["full", "dots"])
def test_the_backward_pass_keeps_the_choice_and_computes_the_rest_again(block, x, policy):
    def gradient(kept):
        run = remat(lambda block, x: block(x)[0], policy, kept)
        return str(jax.make_jaxpr(jax.grad(lambda x: jnp.sum(jnp.sin(run(block, x)))))(x))

    assert gradient(moe.MoELayer.KEPT).count("top_k[") == 1
    assert gradient(()).count("top_k[") == 2


def test_statistics_count_the_tokens_that_are_no_padding(block, x):
    counted = np.arange(TOKENS).reshape(3, -1) % 3 > 0
    _, ids, statistics = block(x, None, counted)
    real = np.asarray(ids)[counted]
    np.testing.assert_array_equal(statistics.chosen, np.bincount(real.reshape(-1), minlength=EXPERTS))
    np.testing.assert_allclose(statistics.probability, np.asarray(block.router(x))[counted].sum(0), rtol=1e-6)
    assert statistics.tokens == counted.sum() == 8
    parts = [block(x[row], None, counted[row])[2] for row in range(3)]
    for whole, *pieces in zip(jax.tree.leaves(statistics), *map(jax.tree.leaves, parts), strict=True):
        np.testing.assert_allclose(sum(pieces), whole, rtol=1e-6)


def test_the_router_loss_is_the_number_of_choices_where_experts_are_used_evenly():
    even = RouterStatistics(
        chosen=jnp.full((3, 8), 5.0), probability=jnp.full((3, 8), 2.5), tokens=jnp.full(3, 20.0)
    )
    assert routing.router_loss(even) == pytest.approx(2)
    all_to_one = RouterStatistics(jnp.eye(8)[0] * 20, jnp.eye(8)[0] * 20, jnp.float32(20))
    assert routing.router_loss(all_to_one) == pytest.approx(8)
    gradient = jax.grad(routing.router_loss)(even)
    assert not np.any(gradient.chosen) and np.all(gradient.probability > 0)


def test_the_load_of_experts_in_figures():
    chosen = jnp.array([[4.0, 4.0, 4.0, 4.0], [8.0, 8.0, 0.0, 0.0]])  # two layers, two choices of 8 tokens
    figures = routing.load_figures(RouterStatistics(chosen, chosen, jnp.full(2, 8.0)))
    assert figures["expert_share_max"] == 0.5
    assert figures["expert_entropy"] == pytest.approx(0.75)  # 1 and a half
    assert figures["experts_unused"] == 0.25


@pytest.mark.parametrize(("experts", "dtype"), [(8, np.uint8), (255, np.uint8), (256, np.uint16)])
def test_numbers_of_experts_take_as_few_bytes_as_they_can(experts, dtype):
    assert routing.id_dtype(experts) == dtype
