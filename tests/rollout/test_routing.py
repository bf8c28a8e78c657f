"""Which experts tokens went to: the pool keeps it of those that were fed, whatever is refilled when."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dig_jax.models.hf import checkpoint
from dig_jax.models.nn.routing import id_dtype, unknown
from dig_jax.rollout import pool, routing
from dig_jax.rollout.engine import Rollout, sample_keys
from dig_jax.rollout.routing import KeptRouting
from dig_jax.rollout.sampling import Sampling
from dig_jax.update.policy import response_logprobs
from tests.models.conftest import PromptMaker

NEW, GROUP, PROMPTS = 9, 3, 4
UNKNOWN = 255
QUICK = {"xla_backend_optimization_level": 0}  # compiled sooner than it is run


@pytest.fixture(scope="module")
def model(small_experts):
    return checkpoint.load_model(small_experts)


@pytest.fixture(scope="module")
def prompts(model):
    make = PromptMaker(model.config)
    images = [[(2, 4), (2, 2)], [(2, 2)], [], [(4, 2)]]
    return make.pad(*[make.example(grids, text=2 + i, seed=i) for i, grids in enumerate(images)])


@pytest.fixture(scope="module")
def sampling(model):
    """A fifth of the tokens end a completion: lengths differ, and some are a single token."""
    config = model.config
    ends, images = tuple(range(0, 250, 5)), (config.image_token_id, config.video_token_id)
    size = config.text.vocab_size - 64
    return Sampling(
        temperature=1.0, top_p=1.0, top_k=0, eos_ids=ends, suppressed=images, vocab_size=size, pad_id=0
    )


@pytest.fixture(scope="module")
def keys():
    return sample_keys(jax.random.key(0), 0, jnp.arange(PROMPTS * GROUP).reshape(PROMPTS, GROUP))


@pytest.fixture(scope="module")
def drawn(model, prompts, sampling, keys) -> Rollout:
    """Decoded in two slots of each of two rows, which are refilled, in two shards."""

    @functools.partial(jax.jit, compiler_options=QUICK)
    def run(model, prompts, keys):
        sizes = {"slots": 2, "rows": 2, "shards": 2, "max_new_tokens": NEW}
        filled = pool.fill(model, prompts, keys, routing=True, sampling=sampling, **sizes)
        return pool.drain(model, filled, keys, sampling=sampling)

    return jax.device_get(run(model, prompts, keys))


def test_experts_are_kept_of_the_tokens_that_were_fed_and_of_no_other(drawn):
    """Of all but the last token of a completion, which is drawn and never fed."""
    lengths = drawn.mask.sum(axis=-1).astype(int)
    assert lengths.min() == 1 and lengths.max() == NEW  # ended by its first token, and cut off
    kept = drawn.routing.responses
    assert kept.dtype == np.uint8
    fed = np.arange(NEW) < lengths[..., None] - 1
    assert np.all(kept[fed] < 8) and np.all(kept[~fed] == UNKNOWN)
    assert np.all(drawn.routing.prompts < 8)


def test_experts_differ_between_tokens_and_layers(drawn):
    kept = drawn.routing.responses
    known = np.sort(kept[kept[..., 0, 0] != UNKNOWN], axis=-1)  # [tokens,L,K]
    assert len(np.unique(known[:, 0], axis=0)) > 3
    assert (known[:, 0] != known[:, 1]).any()


def test_without_being_asked_the_pool_keeps_none(model, prompts, sampling, keys):
    sizes = {"slots": 2, "rows": 2, "shards": 1}
    filled = jax.eval_shape(
        lambda: pool.fill(model, prompts, keys, max_new_tokens=NEW, sampling=sampling, **sizes)
    )
    assert filled.drawn.routing is None


def test_a_dense_model_has_none_to_keep(tiny_qwen3vl, sampling, keys):
    model = checkpoint.load_model(tiny_qwen3vl)
    prompts = PromptMaker(model.config).pad(
        *[PromptMaker(model.config).example([], seed=i) for i in range(4)]
    )
    sizes = {"slots": 2, "rows": 2, "shards": 1}
    with pytest.raises(ValueError, match="its layers are dense"):
        jax.eval_shape(
            lambda: pool.fill(
                model, prompts, keys, max_new_tokens=4, sampling=sampling, routing=True, **sizes
            )
        )


@pytest.fixture(scope="module")
def score(model, prompts, drawn):
    """Log-probs of the completions in training, with these experts, and the experts that were taken."""

    @functools.partial(jax.jit, compiler_options=QUICK)
    def run(model, prompts, kept):
        logprobs, _, extras = response_logprobs(
            model,
            prompts,
            drawn.tokens,
            drawn.mask,
            temperature=1.0,
            allowed=None,
            chunk=4,
            routing=kept,
        )
        return logprobs, KeptRouting.of(extras["routing"])

    return lambda kept: jax.device_get(run(model, prompts, kept))


def test_in_float32_training_chooses_the_experts_of_the_sampler(drawn, score, prompts):
    """Position by position: a token's experts stand where the token does, in prompts and completions."""
    kept, (_, chosen) = drawn.routing, score(None)
    known = kept.responses != UNKNOWN
    np.testing.assert_array_equal(chosen.responses[known], kept.responses[known])
    real = np.arange(kept.prompts.shape[1]) < prompts.length[:, None]
    np.testing.assert_array_equal(chosen.prompts[real], kept.prompts[real])


def test_replayed_are_the_experts_that_are_known_and_the_others_are_chosen(drawn, score):
    (live, chosen), kept = score(None), drawn.routing
    same, taken = score(kept)
    np.testing.assert_array_equal(taken.responses, chosen.responses)  # where unknown: as the router chooses
    np.testing.assert_allclose(same, live, atol=1e-6)
    # Others everywhere they are known, and only there.
    known = kept.responses != UNKNOWN
    moved = dataclasses.replace(kept, responses=np.where(known, (kept.responses + 1) % 8, UNKNOWN))
    other, taken = score(moved)
    np.testing.assert_array_equal(taken.responses[known], moved.responses[known])
    np.testing.assert_array_equal(taken.prompts, kept.prompts)
    # The first token of a completion comes from its prompt; what follows reads the moved tokens.
    np.testing.assert_allclose(other[..., 0], live[..., 0], atol=1e-6)
    after = np.any(known, axis=(-1, -2))[..., :-1]
    assert np.all(np.abs(other - live)[..., 1:][after] > 1e-6)


def test_unknown_experts_are_chosen_by_the_router(score):
    live, chosen = score(None)
    nothing = jax.tree.map(lambda x: np.full_like(x, UNKNOWN), chosen)
    replayed, taken = score(nothing)
    np.testing.assert_allclose(replayed, live, atol=1e-6)
    jax.tree.map(np.testing.assert_array_equal, taken, chosen)


def made(prompts: int, length: int, value: int) -> KeptRouting:
    """Of one layer with one expert per token; two completions of three tokens."""
    return KeptRouting(
        np.full((prompts, length, 1, 1), value, np.uint8), np.full((prompts, 2, 3, 1, 1), value, np.uint8)
    )


def test_prompts_are_taken_with_another_padding():
    of = made(3, 2, 7)
    of.prompts[1, 1] = 5
    taken = routing.take(of, np.array([1, 2]), 4)
    assert taken.prompts[..., 0, 0].tolist() == [[7, 5, 255, 255], [7, 7, 255, 255]]
    assert taken.responses.shape == (2, 2, 3, 1, 1)
    assert routing.take(of, np.array([1]), 1).prompts[..., 0, 0].tolist() == [[7]]


def test_a_replaced_prompt_brings_its_experts_along():
    """From a batch of longer prompts: all get its length."""
    before, other = made(3, 2, 1), made(2, 4, 9)
    after = routing.replace(before, np.array([2]), other, np.array([1]))
    assert after.prompts[..., 0, 0].tolist() == [[1, 1, 255, 255], [1, 1, 255, 255], [9, 9, 9, 9]]
    assert after.responses[:, 0, 0, 0, 0].tolist() == [1, 1, 9]
    assert before.responses[2, 0, 0, 0, 0] == 1  # and the one it was stays


def test_more_than_255_experts_take_two_bytes_and_leave_a_number_for_unknown():
    assert [id_dtype(count) for count in (128, 255, 256)] == [np.uint8, np.uint8, np.uint16]
    assert unknown(np.uint8) == 255 and unknown(np.uint16) == 65535
