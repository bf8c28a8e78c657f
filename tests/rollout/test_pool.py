"""The pool of slots: what it draws is what each completion is on its own, whatever is refilled when."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from dig_jax.models.hf import checkpoint
from dig_jax.models.nn import ragged_decode
from dig_jax.models.nn.attention import MASKED, Read
from dig_jax.models.nn.ragged_decode import RaggedDecode
from dig_jax.rollout import pool
from dig_jax.rollout.engine import rollout, sample_keys
from dig_jax.rollout.sampling import Sampling
from dig_jax.rollout.thinking import Budget
from dig_jax.update.experience import read_per_filled
from tests.models.conftest import PromptMaker

pytestmark = pytest.mark.usefixtures("quick_compiling")

NEW, GROUP = 40, 5
GRIDS = [[(4, 6), (6, 2)], [(2, 8)], [], [(2, 2)]]  # images of each prompt, in patches


@pytest.fixture(scope="module")
def model(tiny_qwen3vl):
    return checkpoint.load_model(tiny_qwen3vl)


@pytest.fixture(scope="module")
def prompts(model):
    make = PromptMaker(model.config)
    return make.pad(*[make.example(grids, seed=i) for i, grids in enumerate(GRIDS)])


@pytest.fixture(scope="module")
def sampling(model):
    """A vocabulary where a sixth of the tokens end a completion, so that lengths differ widely."""
    config = model.config
    return Sampling(
        temperature=0.7,
        top_p=1.0,
        top_k=0,
        eos_ids=tuple(range(0, 300, 6)),
        suppressed=(config.image_token_id, config.video_token_id),
        vocab_size=config.text.vocab_size - 20,
        pad_id=0,
    )


def keys_for(batch):
    return sample_keys(jax.random.key(0), 0, jnp.arange(batch * GROUP).reshape(batch, GROUP))


@pytest.fixture(scope="module")
def together(model, prompts, sampling):
    """All completions decoded in step, each in a slot of its own."""
    run = jax.jit(rollout, static_argnames=("sampling", "max_new_tokens"))
    return run(model, prompts, keys_for(4), sampling=sampling, max_new_tokens=NEW)


def pooled(model, prompts, sampling, *, slots, rows, shards=1, length=NEW, budget=None):
    keys = keys_for(prompts.tokens.shape[0])

    @jax.jit
    def run(model, prompts, keys, budget):
        filled = pool.fill(
            model,
            prompts,
            keys,
            sampling=sampling,
            max_new_tokens=length,
            slots=slots,
            rows=rows,
            shards=shards,
            budget=budget,
        )
        return pool.drain(model, filled, keys, sampling=sampling)

    return run(model, prompts, keys, budget)


def assert_same(drawn, expected):
    for name in ("tokens", "mask", "finished"):
        np.testing.assert_array_equal(getattr(drawn, name), getattr(expected, name), err_msg=name)
    np.testing.assert_allclose(drawn.logprobs, expected.logprobs, atol=1e-5)
    np.testing.assert_allclose(drawn.model_logprobs, expected.model_logprobs, atol=1e-5)


@pytest.mark.parametrize(
    ("slots", "rows", "shards"),
    [
        pytest.param(5, 4, 1, id="a-slot-each"),
        pytest.param(3, 2, 1, id="six-slots-and-two-rows"),
        pytest.param(2, 2, 2, id="both-in-two-shards"),
    ],
)
def test_refilling_does_not_change_a_completion(model, prompts, sampling, together, slots, rows, shards):
    assert_same(pooled(model, prompts, sampling, slots=slots, rows=rows, shards=shards), together)


def test_a_budget_of_thought_is_each_completions_own(model, prompts, sampling, together):
    """Refilled slots and rows in two shards give what the rollout in step gives, closing tokens included."""
    tokens = np.arange(4 * GROUP, dtype=np.int32).reshape(4, GROUP) % 7 + 1
    budget = Budget(tokens, 11, (7, 11, 8))
    run = jax.jit(rollout, static_argnames=("sampling", "max_new_tokens"))
    in_step = run(model, prompts, keys_for(4), sampling=sampling, max_new_tokens=NEW, budget=budget)
    forced = budget.was_forced(np.asarray(in_step.tokens), np.sum(in_step.mask, axis=-1))
    assert forced.any() and not forced.all()
    assert np.any(np.asarray(in_step.tokens) != np.asarray(together.tokens))
    assert_same(pooled(model, prompts, sampling, slots=2, rows=2, shards=2, budget=budget), in_step)


def test_one_slot_decodes_the_completions_one_after_another(model, prompts, sampling, together):
    drawn = pooled(model, prompts, sampling, slots=1, rows=1)
    assert_same(drawn, together)
    # First tokens are drawn with the prompts; a completion that ends with it still takes a step.
    lengths = np.sum(together.mask, axis=-1)
    assert drawn.steps == 1 + np.sum(np.maximum(lengths - 1, 1))


def test_a_slot_takes_the_next_completion_of_any_prompt_in_a_row(model, prompts, sampling, together):
    work = np.maximum(np.sum(together.mask, axis=-1) - 1, 1)  # steps of each completion after its first token
    by_turns = pooled(model, prompts, sampling, slots=5, rows=1)
    assert by_turns.steps == 1 + np.sum(np.max(work, axis=-1))
    free_at = [0] * 4  # when each slot is free: the first one that is takes the next completion
    for steps in work.reshape(-1):
        free_at[np.argmin(free_at)] += int(steps)
    together_in_rows = pooled(model, prompts, sampling, slots=1, rows=4)
    assert together_in_rows.steps == 1 + max(free_at)
    np.testing.assert_array_equal(together_in_rows.cache_reads, max(free_at))  # all 40 positions every time


def test_truncated_completions_make_room_as_well(model, prompts, sampling, together):
    for length in (1, 3):
        cut = pooled(model, prompts, sampling, slots=2, rows=2, length=length)
        np.testing.assert_array_equal(cut.tokens, together.tokens[..., :length])
        np.testing.assert_array_equal(cut.finished, np.sum(together.mask, axis=-1) <= length)


def test_short_completions_read_a_short_window_of_the_cache(model, prompts, sampling, together, monkeypatch):
    monkeypatch.setattr(pool, "SHORTEST_WINDOW", 5)
    windows = []
    decode = type(model).decode
    monkeypatch.setattr(
        type(model),
        "decode",
        lambda *args, window, readers: windows.append(window) or decode(*args, window, readers),
    )
    drawn = pooled(model, prompts, sampling, slots=2, rows=2)
    assert sorted(set(windows)) == [5, 10, 20, 40]
    assert drawn.cache_reads < drawn.steps - 1
    assert_same(drawn, together)


class KernelInXla(RaggedDecode):
    """What the kernel gives, without emulating it: that takes 5 s to compile in the loop."""

    def __call__(self, q, caches, layer, work, block):
        k, v = (jax.lax.dynamic_index_in_dim(x, layer, keepdims=False) for x in caches)
        scores = q.shape[-1] ** -0.5 * jnp.einsum("bgkmte,bgkse->bgkmts", q, k)
        filled = jnp.arange(k.shape[3]) < work.length.reshape(*q.shape[:2], 1, 1, 1, 1)
        total = jax.nn.logsumexp(scores, axis=-1, keepdims=True, where=filled)
        weights = jnp.where(filled, jnp.exp(scores - total), 0)
        return Read(jnp.einsum("bgkmts,bgkse->bgkmte", weights, v), jnp.maximum(total, MASKED))


def with_kernel(model, monkeypatch, kernel):
    """The model, whose decoding reads responses' caches in blocks of 4 positions that are filled."""
    monkeypatch.setattr(ragged_decode, "MOST_POSITIONS", 4)
    monkeypatch.setattr(ragged_decode, "LANES", 4)
    other = nnx.clone(model)
    other.text.decode_attention = kernel
    assert other.cache_block(NEW) == 4 and model.cache_block(NEW) is None
    return other


@pytest.mark.parametrize(
    "kernel",
    [
        pytest.param(KernelInXla(), id="in-xla"),
        pytest.param(RaggedDecode(interpret=True), id="emulated", marks=pytest.mark.slow),
    ],
)
def test_a_kernel_that_reads_what_is_filled_draws_the_same(
    model, prompts, sampling, together, monkeypatch, kernel
):
    """Two slots, refilled; each reads the blocks of its own completion, and nothing when it is idle."""
    other = with_kernel(model, monkeypatch, kernel)
    drawn = pooled(other, prompts, sampling, slots=2, rows=1)
    assert_same(drawn, together)
    lengths = np.asarray(together.mask).sum(axis=-1).astype(int).reshape(-1).tolist()
    fed = [n for length in lengths for n in range(length - 1)]  # token n has n - 2 before it in the cache
    read = sum(-(-n // 4) * 4 for n in fed)
    np.testing.assert_allclose(read_per_filled([drawn], slots=2, longest=NEW), read / sum(fed), rtol=1e-6)


@pytest.mark.slow
def test_decoding_in_step_with_the_kernel_draws_the_same(model, prompts, sampling, together, monkeypatch):
    run = jax.jit(rollout, static_argnames=("sampling", "max_new_tokens"))
    other = with_kernel(model, monkeypatch, KernelInXla())
    drawn = run(other, prompts, keys_for(4), sampling=sampling, max_new_tokens=NEW)
    assert_same(drawn, together)
    read = [-(-n // 4) * 4 / NEW for n in range(drawn.steps - 1)]
    np.testing.assert_allclose(drawn.cache_reads, sum(read), rtol=1e-6)
    assert together.cache_reads == together.steps - 1


@pytest.mark.parametrize(
    ("slots", "rows", "named"),
    [(6, 4, "slots is 6"), (0, 4, "slots is 0"), (2, 5, "rows is 5"), (2, 3, "rows is 3")],
)
def test_a_pool_that_can_not_be_filled_is_an_error(model, prompts, sampling, slots, rows, named):
    with pytest.raises(ValueError, match=named):
        pool.fill(
            model,
            prompts,
            keys_for(4),
            sampling=dataclasses.replace(sampling),
            max_new_tokens=4,
            slots=slots,
            rows=rows,
            shards=1,
        )
