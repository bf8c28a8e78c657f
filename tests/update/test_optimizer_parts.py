"""Parts of a model that stages train in turn: what rests is as it was, what moves does so as if alone."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from configs import base
from dig_jax.models.nn import freeze
from dig_jax.update.learner import TrainState, with_learning_rate
from dig_jax.update.optimizer import OptimizerConfig
from dig_jax.update.optimizer_parts import OptimizerOfParts

CLIP = 0.5  # less than any gradient's norm here


def some(dtype: Any, seed: int) -> nnx.State:
    """Two arrays of the decoder, one of the tower, one of the projector."""
    paths = [("text", "a"), ("text", "b"), ("vision", "blocks", "w"), ("vision", "merger", "w")]
    keys = jax.random.split(jax.random.key(seed), len(paths))
    return nnx.from_flat_state(
        (path, nnx.Param(jax.random.normal(key, (3, 4)).astype(dtype)))
        for path, key in zip(paths, keys, strict=True)
    )


def optimizers() -> tuple[Any, OptimizerOfParts]:
    config = base.get_config()
    config.optimizer.learning_rate, config.optimizer.weight_decay, config.optimizer.clip_norm = (
        1e-2,
        0.1,
        CLIP,
    )
    whole = OptimizerConfig.from_config(config).make()
    return whole, OptimizerOfParts(whole)


def cut(params: nnx.State, *frozen: str) -> tuple[nnx.State, nnx.State]:
    return freeze.split(params, frozenset(frozen))


def assert_same(left: Any, right: Any) -> None:
    assert jax.tree.structure(left) == jax.tree.structure(right)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(np.asarray(a), np.asarray(b)), left, right)


def test_what_rests_keeps_its_state_and_what_moves_does_what_it_would_do_alone():
    whole, parts = optimizers()
    params, grads = some(jnp.bfloat16, 0), some(jnp.float32, 1)
    state = parts.init(params)
    assert list(state) == ["vision", "projector", "text"]
    trained, rest = cut(params, "vision")
    before = jax.tree.map(np.array, state["vision"])
    alone, alone_state = trained, whole.init(trained)
    for _ in range(3):
        trained, state = jax.jit(parts.step)(cut(grads, "vision")[0], state, trained, True)
        alone, alone_state = jax.jit(whole.step)(cut(grads, "vision")[0], alone_state, alone, True)
    assert_same(trained, alone)  # the gradient is clipped by the norm of both parts that move
    assert_same(before, state["vision"])
    moments = optax.tree_utils.tree_get(alone_state, "mu")
    for part, own in freeze.by_part(moments).items():
        assert_same(optax.tree_utils.tree_get(state[part], "mu"), own)


def test_a_part_that_is_trained_late_begins_as_a_new_optimizer_does():
    """With one count for all, its first steps would be three times as long: 0.1 / sqrt(0.001)."""
    whole, parts = optimizers()
    params, grads = some(jnp.bfloat16, 0), some(jnp.float32, 1)
    text, state = cut(params, "vision", "projector")[0], parts.init(params)
    for _ in range(5):
        text, state = parts.step(cut(grads, "vision", "projector")[0], state, text, True)
    tower = cut(params, "text", "projector")[0]
    own = cut(grads, "text", "projector")[0]
    late, state = parts.step(own, state, tower, True)
    fresh, fresh_state = whole.step(own, whole.init(tower), tower, True)
    assert_same(late, fresh)
    assert_same(state["vision"], fresh_state)


def test_after_a_rest_a_part_goes_on_from_where_it_was():
    _, parts = optimizers()
    params, grads = some(jnp.bfloat16, 0), some(jnp.float32, 1)

    def train(part: str, params: nnx.State, state: Any) -> tuple[nnx.State, Any]:
        others = [name for name in freeze.PARTS if name != part]
        trained, rest = cut(params, *others)
        trained, state = parts.step(cut(grads, *others)[0], state, trained, True)
        return nnx.merge_state(trained, rest), state

    between, state = train("text", params, parts.init(params))
    between, state = train("projector", between, state)
    between, state = train("text", between, state)
    straight, other = train("text", *train("text", params, parts.init(params)))
    assert_same(between["text"], straight["text"])
    assert_same(state["text"], other["text"])


def test_an_update_that_is_not_wanted_and_a_new_learning_rate_reach_every_part():
    _, parts = optimizers()
    params, grads = some(jnp.float32, 0), some(jnp.float32, 1)
    kept, state = parts.step(grads, parts.init(params), params, jnp.bool_(False))
    assert_same((kept, state), (params, parts.init(params)))
    still = with_learning_rate(TrainState(params, state, jnp.int32(0)), 0.0)
    assert_same(parts.step(grads, still.opt_state, params, True)[0], params)


def test_a_restart_is_of_all_parts_and_keeps_what_bfloat16_lacks():
    _, parts = optimizers()
    params, grads = some(jnp.bfloat16, 0), some(jnp.float32, 1)
    trained, rest = cut(params, "vision")
    trained, state = parts.step(cut(grads, "vision")[0], parts.init(params), trained, True)
    anew = parts.restart(nnx.merge_state(trained, rest), state)
    (moments, remainders), (new_moments, kept) = parts.cut(state), parts.cut(anew)
    assert_same(remainders, kept)
    assert any(np.asarray(x).any() for x in jax.tree.leaves(remainders))
    assert not any(np.asarray(x).any() for x in jax.tree.leaves(new_moments) if x.ndim)
    assert any(np.asarray(x).any() for x in jax.tree.leaves(moments) if x.ndim)


def test_a_state_in_host_memory_makes_the_same_step():
    _, parts = optimizers()
    params, grads = some(jnp.float32, 0), some(jnp.float32, 1)
    trained, _ = cut(params, "vision")
    own = cut(grads, "vision")[0]
    at_once, state = jax.jit(parts.step)(own, parts.init(params), trained, True)
    one_by_one, other = jax.jit(parts.step_from_host)(own, parts.init(params), trained, True)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), (at_once, state), (one_by_one, other)
    )


def test_stages_know_what_they_freeze_and_what_all_do():
    each = [frozenset({"vision", "text"}), frozenset({"vision"}), frozenset({"vision", "projector"})]
    stages = freeze.Freezing.of_stages(each)
    assert all(stage.varies and stage.always == {"vision"} for stage in stages)
    assert [stage.resting for stage in stages] == [{"text"}, set(), {"projector"}]
    (alone,) = freeze.Freezing.of_stages(each[:1])
    assert alone == freeze.Freezing(each[0], each[0], varies=False)
    assert dataclasses.replace(stages[1], varies=False).resting == frozenset()
