"""In bfloat16 our model is as close to float32 as transformers' is.

Both run on the same weights, which are bfloat16 as in published checkpoints, and both are compared with
transformers' model in float32. Where ours has experts it takes those of its float32 model: a close choice
that falls otherwise is worth a hundred roundings, and falls to either side as it pleases.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models.parity import (
    BATCHES,
    CONFIGS,
    MID_BUCKET,
    MORE_CONFIGS,
    Case,
    random_model,
    reference_of,
    run_ours,
    run_theirs,
)
from tests.models.qwen3_vl.configs import MID_CONFIG

# Two towers take twice as long to compile, and are the same blocks.
SLOW = {name for name, config in (CONFIGS | MORE_CONFIGS).items() if config.vision.fixed_side} | {
    *MORE_CONFIGS
}
NAMES = [pytest.param(n, marks=[pytest.mark.slow] * (n in SLOW)) for n in CONFIGS | MORE_CONFIGS]
ALLOWED = 1.5  # times their error; measured 0.84 to 1.01 for the mean square, up to 1.2 for the largest


def experts_of(model):
    """What finds the experts that a model takes for each token of some prompts; None where it has none."""
    return functools.partial(jax.jit(lambda model, prompts: model(prompts)[2].get("routing")), model)


def check_errors(config, make_batches, **bucket):
    """Compares what bfloat16 does to the logits [T,V] of all rows of some batches: to ours and to theirs."""
    exact = reference_of(random_model(config, weights=jnp.bfloat16))
    half = random_model(config, weights=jnp.bfloat16, dtype=jnp.bfloat16)
    pair = Case(half, reference_of(half, "bfloat16"))
    choose = experts_of(random_model(config, weights=jnp.bfloat16))
    run = jax.jit(lambda model, prompts, routing: model.logits(model(prompts, routing=routing)[0]))
    ours, theirs = [], []
    for examples in make_batches(pair):
        wanted = exact.logits(*examples)
        prompts = pair.make.pad(*examples, **bucket)
        rows = np.asarray(run(half, prompts, choose(prompts)))
        ours += [row[: len(right)] - right for row, right in zip(rows, wanted, strict=True)]
        rows = pair.reference.logits(*examples)
        theirs += [row - right for row, right in zip(rows, wanted, strict=True)]
    our_error, their_error = np.concatenate(ours), np.concatenate(theirs)
    assert np.abs(their_error).max() > 1e-3  # it is bfloat16
    assert np.sqrt(np.mean(our_error**2)) < ALLOWED * np.sqrt(np.mean(their_error**2))
    assert np.abs(our_error).max() < ALLOWED * np.abs(their_error).max()


@pytest.mark.parametrize("name", NAMES)
def test_the_error_of_bfloat16_is_no_larger_than_theirs(name):
    config = (CONFIGS | MORE_CONFIGS)[name]
    check_errors(config, lambda pair: [pair.examples(batch) for batch in BATCHES])


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=[pytest.mark.slow] * (n in SLOW | {"three taps", "one tap, tied"}))
        for n in CONFIGS
    ],
)
def test_the_error_of_gradients_in_bfloat16_is_no_larger_than_theirs(name):
    """All together by the gate for logits; single tensors, of 16 to 20,000 numbers, by twice theirs."""
    config = CONFIGS[name]
    exact = reference_of(random_model(config, weights=jnp.bfloat16))
    half = random_model(config, weights=jnp.bfloat16, dtype=jnp.bfloat16)
    pair = Case(half, reference_of(half, "bfloat16"))
    examples = pair.examples("three images")
    right = run_theirs(exact, examples).gradients
    prompts = pair.make.pad(*examples)
    routing = experts_of(random_model(config, weights=jnp.bfloat16))(prompts)
    ours = run_ours(half, prompts, routing).gradients
    theirs = run_theirs(pair.reference, examples).gradients
    our_errors, their_errors = (
        {tensor: np.linalg.norm(side[tensor] - right[tensor]) for tensor in right} for side in (ours, theirs)
    )
    assert np.linalg.norm([*our_errors.values()]) < ALLOWED * np.linalg.norm([*their_errors.values()])
    ratios = {tensor: our_errors[tensor] / their_errors[tensor] for tensor in right}
    worst = max(ratios, key=lambda tensor: ratios[tensor])
    assert ratios[worst] < 2, f"the error of {worst} is {ratios[worst]:.2f} times theirs"


@pytest.mark.slow
def test_the_error_of_bfloat16_is_no_larger_than_theirs_at_full_depth():
    check_errors(MID_CONFIG, lambda pair: [pair.mid_examples()], **MID_BUCKET)
