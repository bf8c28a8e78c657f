"""The two drawers: what they draw is the same, and no more is compiled for how it is given out."""

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx

from configs import base
from dig_jax.machines import parallel
from dig_jax.models.hf import checkpoint
from dig_jax.models.nn.sampling_copy import Form
from dig_jax.rollout import lockstep
from dig_jax.rollout.drawer import Limits
from dig_jax.rollout.engine import sample_keys
from dig_jax.rollout.lockstep import lockstep_programs
from dig_jax.rollout.programs import rollout_programs
from dig_jax.rollout.sampling import Sampling
from tests.models.conftest import PromptMaker

GRIDS = [[(4, 6), (6, 2)], [(2, 8)], [], [(2, 2)]]  # images of each prompt, in patches
LIMITS = Limits(
    Sampling(0.7, 1.0, 0, tuple(range(0, 300, 6)), suppressed=(), vocab_size=300, pad_id=0), max_new_tokens=40
)


@pytest.fixture(scope="module")
def policy(tiny_qwen3vl) -> Any:
    """Structure, parameters and mesh of the tiny model, four prompts, and keys of three completions each."""
    model = checkpoint.load_model(tiny_qwen3vl)
    make = PromptMaker(model.config)
    prompts = make.pad(*[make.example(grids, seed=i) for i, grids in enumerate(GRIDS)])
    mesh = parallel.make_mesh(base.get_config().mesh, jax.devices()[:1])
    keys = sample_keys(jax.random.key(0), 0, np.arange(12).reshape(4, 3))
    return *nnx.split(model, nnx.Param), mesh, (prompts, np.arange(4), keys)


def test_the_pool_and_lockstep_draw_the_same_completions_in_the_steps_of_the_longest(policy):
    graphdef, params, mesh, asked = policy
    drawn = []
    for make, limits in (
        (lockstep_programs, LIMITS),
        (rollout_programs, dataclasses.replace(LIMITS, slots=2, rows=2)),
    ):
        drawer = make(graphdef, params, mesh)
        drawn.append(drawer.draw(drawer.weights(params), *asked, limits))
    together, refilled = drawn
    for name in ("tokens", "mask", "finished"):
        np.testing.assert_array_equal(getattr(together, name), getattr(refilled, name), err_msg=name)
    np.testing.assert_allclose(together.model_logprobs, refilled.model_logprobs, atol=1e-5)
    assert together.tokens.shape == (4, 3, 40)
    assert together.steps == together.mask.sum(axis=-1).max() < refilled.steps


def test_completions_given_out_while_they_grow_end_as_those_given_out_once(policy, monkeypatch):
    graphdef, params, mesh, asked = policy
    traces = []
    original = lockstep.engine.advance
    monkeypatch.setattr(
        lockstep.engine, "advance", lambda *args, **named: traces.append(1) or original(*args, **named)
    )
    lockstep._decoding_programs.cache_clear()
    drawer = lockstep_programs(graphdef, params, mesh)
    weights = drawer.weights(params)
    whole = drawer.draw(weights, *asked, LIMITS)
    for every in (1, 7):
        parts = list(drawer.parts(weights, *asked, LIMITS, every=every))
        assert [int(part.steps) for part in parts[:3]] == [1, 1 + every, 1 + 2 * every]
        for part in parts:
            length = int(part.steps)
            np.testing.assert_array_equal(part.tokens[..., :length], whole.tokens[..., :length])
        jax.tree.map(np.testing.assert_array_equal, parts[-1], whole)
    shorter = drawer.draw(weights, *asked, dataclasses.replace(LIMITS, max_new_tokens=5))
    np.testing.assert_array_equal(shorter.tokens, whole.tokens[..., :5])
    assert len(traces) == 1  # neither how often nor how long is a program's own
    lockstep._decoding_programs.cache_clear()


def test_lockstep_refuses_to_refill(policy):
    graphdef, params, mesh, asked = policy
    drawer = lockstep_programs(graphdef, params, mesh)
    with pytest.raises(ValueError, match=r"slots=2, rows=0: decoding in step takes all 3 completions"):
        drawer.draw(params, *asked, dataclasses.replace(LIMITS, slots=2))


def test_what_training_has_in_the_form_to_draw_with_is_not_copied(policy):
    graphdef, params, mesh, asked = policy
    copy = rollout_programs(graphdef, params, mesh).weights
    assert not jax.tree.leaves(copy.made(params))  # float32 on the same device
    assert pointers(copy(params)) == pointers(params)

    apart = rollout_programs(graphdef, params, mesh, Form(apart=True))
    made = {path for path, _ in nnx.to_flat_state(apart.weights.made(params))}
    assert {path[:2] for path in made} == {("text", "layers")}
    drawn = [
        drawer.draw(drawer.weights(params), *asked, LIMITS)
        for drawer in (apart, rollout_programs(graphdef, params, mesh))
    ]
    jax.tree.map(np.testing.assert_array_equal, *drawn)


def pointers(params: nnx.State) -> dict[Any, int]:
    """Where the values lie in the memory."""
    return {path: x.get_value().unsafe_buffer_pointer() for path, x in nnx.to_flat_state(params)}
