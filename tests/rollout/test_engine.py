"""The rollout engine on the tiny model: against transformers' generate and the trainer's log-probs."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dig_jax.models.hf import checkpoint
from dig_jax.rollout.engine import advance, rollout, sample_keys, start
from dig_jax.rollout.sampling import Sampling
from dig_jax.rollout.thinking import Budget
from dig_jax.update.policy import response_logprobs
from tests.models.conftest import PROMPT_LENGTH, PromptMaker, load_reference

TWO_IMAGES = [(4, 6), (6, 2)]  # patches, of different sizes, none square
NEW = 40

jitted_rollout = jax.jit(rollout, static_argnames=("sampling", "max_new_tokens"))


@pytest.fixture(scope="module")
def model(tiny_qwen3vl):
    return checkpoint.load_model(tiny_qwen3vl)


@pytest.fixture(scope="module")
def examples(model):
    """Prompts of unequal length, with unequal numbers of images."""
    make = PromptMaker(model.config)
    return [make.example(TWO_IMAGES, seed=1), make.example([(2, 8)], text=3, seed=2)]


@pytest.fixture(scope="module")
def prompts(model, examples):
    return PromptMaker(model.config).pad(*examples)


@pytest.fixture(scope="module")
def sampling(model):
    config = model.config
    return Sampling(
        temperature=0.7,
        top_p=1.0,
        top_k=0,
        eos_ids=(5,),
        suppressed=(config.image_token_id, config.video_token_id),
        vocab_size=config.text.vocab_size - 20,
        pad_id=0,
    )


def keys_for(batch, group, seed=0):
    return sample_keys(jax.random.key(seed), 0, jnp.arange(batch * group).reshape(batch, group))


@pytest.fixture(scope="module")
def drawn(model, prompts, sampling):
    """Five completions of each prompt, at a vocabulary where a sixth of the tokens end one."""
    ending = dataclasses.replace(sampling, eos_ids=tuple(range(0, 300, 6)))
    return ending, jitted_rollout(model, prompts, keys_for(2, 5), sampling=ending, max_new_tokens=NEW)


# Against transformers


def test_greedy_completions_equal_transformers_generate(tiny_qwen3vl, model, examples, prompts, sampling):
    reference = load_reference(tiny_qwen3vl)
    forbidden = np.flatnonzero(~sampling.allowed(model.config.text.vocab_size)).tolist()

    def compare(eos):
        reference.model.model.rope_deltas = None
        theirs = reference.model.generate(
            **reference.inputs(*examples),
            max_new_tokens=NEW,
            do_sample=False,
            suppress_tokens=forbidden,
            eos_token_id=eos,
            pad_token_id=sampling.pad_id,
        )[:, -NEW:].numpy()
        greedy = dataclasses.replace(sampling, temperature=0.0, eos_ids=(eos,))
        ours = jitted_rollout(model, prompts, keys_for(2, 1), sampling=greedy, max_new_tokens=NEW)
        np.testing.assert_array_equal(ours.tokens[:, 0], theirs)
        return ours

    unfinished = compare(eos=forbidden[-1] - 30)
    assert not np.any(unfinished.finished) and unfinished.steps == NEW
    # Now end the first completion in the middle: the other goes on beside it.
    ended = compare(eos=int(unfinished.tokens[0, 0, 20]))
    assert ended.finished[0, 0] and ended.mask[0, 0].sum() <= 21


@pytest.mark.parametrize(
    "kind",
    [
        "tiny_qwen3vl",
        "tiny_qwen2_5_vl",
        pytest.param("small_experts", marks=pytest.mark.slow),
        pytest.param("tiny_qwen3vl_thinking", marks=pytest.mark.slow),
    ],
)
def test_rows_of_no_image_to_three_are_completed_as_by_transformers(kind, sampling, request):
    """Sixty-four tokens of each, in one batch; the last model has a tied head."""
    folder = request.getfixturevalue(kind)
    model, reference = checkpoint.load_model(folder), load_reference(folder)
    make = PromptMaker(model.config)
    grids = [[], [(2, 8)], TWO_IMAGES, [(2, 2), (6, 4), (4, 2)]]
    rows = [make.example(row, text=3 + 2 * seed, seed=seed) for seed, row in enumerate(grids)]
    forbidden = np.flatnonzero(~sampling.allowed(model.config.text.vocab_size)).tolist()
    theirs = reference.model.generate(
        **reference.inputs(*rows),
        max_new_tokens=64,
        do_sample=False,
        suppress_tokens=forbidden,
        eos_token_id=None,
        pad_token_id=sampling.pad_id,
        output_logits=True,  # before any token is suppressed
        return_dict_in_generate=True,
    )
    tokens = theirs.sequences[:, -64:]
    logprobs = reference.torch.stack(theirs.logits, dim=1).log_softmax(-1)
    never = int(np.setdiff1d(np.arange(300), tokens)[0])
    greedy = dataclasses.replace(sampling, temperature=0.0, eos_ids=(never,))
    ours = jitted_rollout(model, make.pad(*rows), keys_for(4, 1), sampling=greedy, max_new_tokens=64)
    np.testing.assert_array_equal(ours.tokens[:, 0], tokens.numpy())
    chosen = logprobs.gather(2, tokens[..., None])[..., 0]
    np.testing.assert_allclose(ours.model_logprobs[:, 0], chosen.numpy(), atol=1e-5)


# What a rollout is


def test_mask_covers_the_response_and_its_end_token(drawn):
    sampling, drawn = drawn
    is_end = np.isin(drawn.tokens, sampling.eos_ids) & (np.asarray(drawn.mask) > 0)
    for tokens, mask, ends, finished in zip(
        *(np.asarray(x).reshape(10, -1) for x in (drawn.tokens, drawn.mask, is_end, drawn.finished)),
        strict=True,
    ):
        length = int(mask.sum())
        np.testing.assert_array_equal(mask, np.arange(NEW) < length)
        assert finished and ends.sum() == 1 and ends[length - 1]
        assert np.all(tokens[length:] == sampling.pad_id)


def test_everything_after_the_end_is_zero(drawn):
    _, drawn = drawn
    after = np.asarray(drawn.mask) == 0
    assert np.all(drawn.logprobs[after] == 0) and np.all(drawn.model_logprobs[after] == 0)
    assert np.all(drawn.logprobs[~after] < 0)


def test_decoding_stops_when_all_have_ended(drawn):
    _, drawn = drawn
    assert drawn.steps == np.max(np.sum(drawn.mask, axis=-1)) < NEW


def test_a_truncated_completion_is_not_finished(model, prompts, drawn):
    sampling, whole = drawn
    cut = jitted_rollout(model, prompts, keys_for(2, 5), sampling=sampling, max_new_tokens=3)
    np.testing.assert_array_equal(cut.finished, np.sum(whole.mask, axis=-1) <= 3)
    assert not np.all(cut.finished)
    np.testing.assert_array_equal(cut.tokens, whole.tokens[..., :3])


def test_a_completion_depends_on_its_prompt_and_key_alone(model, examples, drawn):
    sampling, together = drawn
    alone = PromptMaker(model.config).pad(examples[1])
    keys = keys_for(2, 5)[1:, 3:4]
    one = jitted_rollout(model, alone, keys, sampling=sampling, max_new_tokens=NEW)
    np.testing.assert_array_equal(one.tokens[0, 0], together.tokens[1, 3])
    np.testing.assert_allclose(one.logprobs[0, 0], together.logprobs[1, 3], atol=1e-5)


def test_samples_of_a_group_differ(drawn):
    _, drawn = drawn
    assert len({tuple(tokens) for tokens in np.asarray(drawn.tokens[0])}) == 5


# In parts


def test_a_rollout_in_parts_is_the_rollout_in_one(model, prompts, drawn):
    sampling, whole = drawn
    keys = keys_for(2, 5)
    begin = jax.jit(start, static_argnames=("sampling", "max_new_tokens"))
    go_on = jax.jit(advance, static_argnames="sampling", donate_argnames="decoding")
    decoding = begin(model, prompts, keys, sampling=sampling, max_new_tokens=NEW)
    assert decoding.rollout.steps == 1
    for until in (2, 2, 5, NEW + 9):  # any number of tokens at a time, none as well, beyond the end as well
        decoding = go_on(model, decoding, keys, until, sampling=sampling)
        shown = np.asarray(decoding.rollout.tokens)[..., : min(until, NEW)]
        np.testing.assert_array_equal(shown, whole.tokens[..., : min(until, NEW)])
    assert go_on._cache_size() == 1
    for part, one in zip(jax.tree.leaves(decoding.rollout), jax.tree.leaves(whole), strict=True):
        np.testing.assert_array_equal(part, one)


# With a budget of thought


@pytest.fixture(scope="module")
def budgeted(model, prompts, drawn):
    """The completions of `drawn`, each with a budget of its own, closed by three tokens that never end one.

    `</think>` is the token that most of them draw first, but not all.
    """
    sampling, whole = drawn
    allowed = [token for token in range(200) if token % 6]
    counts = [np.sum(np.any(np.asarray(whole.tokens) == token, axis=-1)) for token in allowed]
    end = allowed[int(np.argmax(counts))]
    tokens = np.array([[1, 2, 3, 4, 5], [6, 2, 7, 4, 30]], np.int32)
    budget = Budget(tokens, end, (7, end, 8))
    with_budget = jitted_rollout(
        model, prompts, keys_for(2, 5), sampling=sampling, max_new_tokens=NEW, budget=budget
    )
    return budget, with_budget


def test_a_spent_budget_closes_the_thought_and_the_model_goes_on(drawn, budgeted):
    sampling, whole = drawn
    budget, with_budget = budgeted
    kinds = set()
    for own, limited, limit in zip(
        np.asarray(whole.tokens).reshape(10, NEW),
        np.asarray(with_budget.tokens).reshape(10, NEW),
        budget.tokens.reshape(10),
        strict=True,
    ):
        np.testing.assert_array_equal(limited[:limit], own[:limit])  # up to there nothing differs
        ended = np.isin(own[:limit], sampling.eos_ids).any()
        if ended or budget.end in own[:limit]:
            np.testing.assert_array_equal(limited, own)
        else:
            np.testing.assert_array_equal(limited[limit : limit + 3], budget.closing)
        kinds.add("ended" if ended else "thought out" if budget.end in own[:limit] else "closed")
    assert kinds == {"ended", "thought out", "closed"}  # the case of each is there
    np.testing.assert_array_equal(
        budget.was_forced(np.asarray(with_budget.tokens), np.asarray(with_budget.mask).sum(-1)),
        [
            [budget.closing == tuple(row[n : n + 3]) for row, n in zip(rows, limits, strict=True)]
            for rows, limits in zip(np.asarray(with_budget.tokens), budget.tokens, strict=True)
        ],
    )


def test_forced_tokens_have_the_logprob_of_the_model_and_cost_the_sampler_nothing(
    model, prompts, drawn, budgeted
):
    budget, with_budget = budgeted
    logprobs = jax.jit(response_logprobs, static_argnames=("temperature", "allowed", "chunk"))(
        model, prompts, with_budget.tokens, with_budget.mask, temperature=1.0, allowed=None, chunk=16
    )[0]
    np.testing.assert_allclose(with_budget.model_logprobs, logprobs, atol=1e-5)
    forced = budget.was_forced(np.asarray(with_budget.tokens), np.asarray(with_budget.mask).sum(-1))
    places = np.arange(NEW) - budget.tokens[..., None]
    closing = forced[..., None] & (places >= 0) & (places < 3)
    assert np.all(np.asarray(with_budget.logprobs)[closing] == 0)
    assert np.all(np.asarray(with_budget.logprobs)[(np.asarray(with_budget.mask) > 0) & ~closing] < 0)


def test_with_a_budget_too_a_completion_depends_on_its_prompt_and_key_alone(model, examples, drawn, budgeted):
    sampling, _ = drawn
    budget, together = budgeted
    row = int(np.argmax(budget.was_forced(np.asarray(together.tokens), np.asarray(together.mask).sum(-1))[1]))
    one = jitted_rollout(
        model,
        PromptMaker(model.config).pad(examples[1]),
        keys_for(2, 5)[1:, row : row + 1],
        sampling=sampling,
        max_new_tokens=NEW,
        budget=budget.replace(tokens=budget.tokens[1:, row : row + 1]),
    )
    np.testing.assert_array_equal(one.tokens[0, 0], together.tokens[1, row])


def test_another_budget_does_not_compile_again(model, prompts, drawn, budgeted):
    sampling, whole = drawn
    budget, _ = budgeted
    compiled = jitted_rollout._cache_size()
    endless = budget.replace(tokens=np.full((2, 5), NEW, np.int32))
    free = jitted_rollout(
        model, prompts, keys_for(2, 5), sampling=sampling, max_new_tokens=NEW, budget=endless
    )
    np.testing.assert_array_equal(free.tokens, whole.tokens)
    assert jitted_rollout._cache_size() == compiled


# Against the trainer


def test_logprobs_are_those_the_trainer_recomputes(model, prompts, drawn):
    sampling, drawn = drawn

    def recompute(temperature, allowed):
        return jax.jit(response_logprobs, static_argnames=("temperature", "chunk"))(
            model,
            prompts,
            drawn.tokens,
            drawn.mask,
            temperature=temperature,
            allowed=allowed,
            chunk=16,
        )[0]

    allowed = jnp.asarray(sampling.allowed(model.config.text.vocab_size))
    np.testing.assert_allclose(drawn.logprobs, recompute(sampling.temperature, allowed), atol=1e-5)
    np.testing.assert_allclose(drawn.model_logprobs, recompute(1.0, None), atol=1e-5)


# Cost


def test_the_prompt_cache_is_shared_by_the_group(model, prompts, sampling):
    group, head_dim = 5, model.config.text.head_dim
    text = str(
        jax.make_jaxpr(lambda keys: rollout(model, prompts, keys, sampling=sampling, max_new_tokens=NEW))(
            keys_for(2, group)
        )
    )
    shapes = {tuple(map(int, dims.split(","))) for dims in re.findall(r"f32\[([\d,]+)\]", text)}
    config = model.config.text
    cache = (config.num_hidden_layers, 2, config.num_key_value_heads, PROMPT_LENGTH, head_dim)
    assert cache in shapes
    assert not [shape for shape in shapes if {group, PROMPT_LENGTH, head_dim} <= set(shape)]


def test_other_images_lengths_and_seeds_do_not_compile_again(model, drawn):
    sampling, _ = drawn
    make = PromptMaker(model.config)
    compiled = jitted_rollout._cache_size()
    for seed, grids in enumerate(([(4, 6), (6, 2)], [(2, 8)], [])):
        batch = make.pad(make.example(grids, seed=seed), make.example([(2, 2)], seed=9))
        jitted_rollout(model, batch, keys_for(2, 5, seed), sampling=sampling, max_new_tokens=NEW)
    assert jitted_rollout._cache_size() == compiled


# Keys


def test_a_sample_has_the_same_key_whatever_the_batch():
    seed = jax.random.key(3)
    grid = sample_keys(seed, 7, np.arange(6).reshape(2, 3))
    assert grid[1, 2] == sample_keys(seed, 7, np.array([5]))[0]
    data = jax.random.key_data(jnp.concatenate([grid.ravel(), sample_keys(seed, 8, np.arange(6))]))
    assert len(np.unique(data, axis=0)) == 12
