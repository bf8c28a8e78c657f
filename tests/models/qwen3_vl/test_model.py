"""One prompt shared by its responses, caches, static shapes, and initial values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from dig_jax.models.hf import checkpoint
from dig_jax.models.inputs import make_prompts
from dig_jax.models.qwen3_vl.model import Qwen3VL

pytestmark = pytest.mark.usefixtures("quick_compiling")

GRIDS = [(4, 6), (2, 8)]
GROUP, LENGTH = 3, 6


@pytest.fixture(scope="module")
def prompts_and_responses(make):
    """Two prompts of unequal length with three responses each."""
    examples = [make.example(GRIDS), make.example([(2, 4)], text=3, seed=1)]
    responses = np.random.default_rng(2).integers(0, 300, (2, GROUP, LENGTH)).astype(np.int32)
    return examples, responses


def sequences(examples, responses):
    """Every [prompt, response] as a prompt of its own, group by group."""
    return [
        type(example)(np.concatenate([example.ids, response]), example.images)
        for example, group in zip(examples, responses, strict=True)
        for response in group
    ]


def test_grouped_responses_equal_separate_sequences(tiny_qwen3vl, model, make, prompts_and_responses):
    """In values, and in the gradient of every parameter; with rematerialisation on the grouped side."""
    frugal = checkpoint.load_model(tiny_qwen3vl, remat="full")
    examples, responses = prompts_and_responses
    prompts, separate = make.pad(*examples), make.pad(*sequences(examples, responses))
    weights = np.random.default_rng(3).standard_normal((2, GROUP, LENGTH, 64)).astype(np.float32)
    slots = np.repeat(prompts.length, GROUP)[:, None] + np.arange(LENGTH)

    def grouped(model):
        hidden = model(prompts, responses)[1]
        return jnp.sum(hidden * weights), hidden

    def apart(model):
        hidden = model(separate)[0][jnp.arange(2 * GROUP)[:, None], slots].reshape(weights.shape)
        return jnp.sum(hidden * weights), hidden

    (_, ours), our_gradients = jax.jit(jax.value_and_grad(grouped, has_aux=True))(frugal)
    (_, theirs), their_gradients = jax.jit(jax.value_and_grad(apart, has_aux=True))(model)
    np.testing.assert_allclose(ours, theirs, atol=2e-5)
    pairs = zip(jax.tree.leaves(our_gradients), jax.tree.leaves(their_gradients), strict=True)
    errors = [np.linalg.norm(a - b) / max(np.linalg.norm(b), 1e-9) for a, b in pairs]
    assert max(errors) < 1e-4


def test_prompt_states_do_not_depend_on_responses(model, make, prompts_and_responses):
    examples, responses = prompts_and_responses
    prompts = make.pad(*examples)
    with_responses, *_ = jax.jit(Qwen3VL.__call__)(model, prompts, responses)
    alone, cache = jax.jit(Qwen3VL.prefill)(model, prompts)
    np.testing.assert_allclose(with_responses, alone, atol=1e-5)
    assert cache.k.shape == (4, 2, 2, make.pad(*examples).tokens.shape[1], 32)


def test_decoding_equals_the_teacher_forced_pass(model, make, prompts_and_responses):
    """With one step number for all, and with one per response."""
    examples, responses = prompts_and_responses
    prompts = make.pad(*examples)
    _, expected, _ = jax.jit(Qwen3VL.__call__)(model, prompts, responses)
    _, prompt_cache = jax.jit(Qwen3VL.prefill)(model, prompts)
    decode = jax.jit(Qwen3VL.decode)
    together = each = model.init_response_cache(2, GROUP, LENGTH)
    for step in range(LENGTH):
        tokens = responses[..., step]
        hidden, together = decode(model, tokens, step, prompt_cache, together)
        np.testing.assert_allclose(hidden, expected[:, :, step], atol=1e-5)
        hidden, each = decode(model, tokens, np.full((2, GROUP), step), prompt_cache, each)
        np.testing.assert_allclose(hidden, expected[:, :, step], atol=1e-5)


def test_decoding_may_read_the_filled_slots_alone(model, make, prompts_and_responses):
    """A window of the slots before the current one, in a cache whose other slots are no numbers."""
    examples, responses = prompts_and_responses
    _, prompt_cache = jax.jit(Qwen3VL.prefill)(model, make.pad(*examples))
    decode = jax.jit(Qwen3VL.decode, static_argnames="window")
    cache = model.init_response_cache(2, GROUP, LENGTH)
    for step in range(3):
        _, cache = decode(model, responses[..., step], step, prompt_cache, cache)
    expected, _ = decode(model, responses[..., 3], 3, prompt_cache, cache)
    spoiled = jax.tree.map(lambda x: x.at[..., 3:, :].set(jnp.nan), cache)
    hidden, written = decode(model, responses[..., 3], 3, prompt_cache, spoiled, window=3)
    np.testing.assert_allclose(hidden, expected, atol=1e-6)
    assert np.isfinite(written.k[..., :4, :]).all()


def test_a_slot_can_start_a_new_response_while_others_go_on(model, make, prompts_and_responses):
    examples, responses = prompts_and_responses
    prompts = make.pad(*examples)
    _, expected, _ = jax.jit(Qwen3VL.__call__)(model, prompts, responses)
    _, prompt_cache = jax.jit(Qwen3VL.prefill)(model, prompts)
    decode = jax.jit(Qwen3VL.decode)
    cache = model.init_response_cache(2, GROUP, LENGTH)
    steps = np.zeros((2, GROUP), np.int32)
    for now in range(LENGTH):
        steps[0, 0] = now % 3  # starts again after three tokens
        steps[0, 1:] = steps[1] = now
        tokens = np.take_along_axis(responses, steps[..., None], axis=2)[..., 0]
        hidden, cache = decode(model, tokens, steps, prompt_cache, cache)
        wanted = np.take_along_axis(np.asarray(expected), steps[..., None, None], axis=2)[:, :, 0]
        np.testing.assert_allclose(hidden, wanted, atol=1e-5)


def test_neither_padding_nor_the_size_of_the_bucket_changes_a_prompt(model, make):
    example = make.example(GRIDS)
    length = len(example.ids)
    tight_fit = make_prompts(
        [example.ids], [example.images], model.config, prompt_length=length, num_patches=40
    )
    run = jax.jit(Qwen3VL.__call__)
    roomy, tight = run(model, make.pad(example))[0], run(model, tight_fit)[0]
    np.testing.assert_allclose(roomy[:, :length], tight, atol=1e-5)


def test_a_batch_without_room_for_images_gives_the_same_text(model, make):
    example = make.example([], text=7)
    without_room = make_prompts([example.ids], [[]], model.config, prompt_length=48, num_patches=0)
    run = jax.jit(Qwen3VL.__call__)
    ours, expected = run(model, without_room)[0], run(model, make.pad(example))[0]
    np.testing.assert_allclose(ours, expected, atol=1e-5)


def test_new_images_and_texts_within_a_bucket_are_never_traced_again(model, make):
    traces = []

    @jax.jit
    def run(model, prompts, responses):
        traces.append(None)
        return model(prompts, responses)

    responses = np.zeros((1, 2, 4), np.int32)
    for grids, text in [([(4, 6)], 5), ([(6, 4)], 5), ([(2, 2), (8, 4), (2, 10)], 3), ([], 20)]:
        assert np.isfinite(run(model, make.pad(make.example(grids, text=text)), responses)[1]).all()
    assert len(traces) == 1


def test_bfloat16_compute_stays_close_to_float32(tiny_qwen3vl, model, make, prompts_and_responses):
    examples, responses = prompts_and_responses
    prompts = make.pad(*examples)
    half = checkpoint.load_model(tiny_qwen3vl, dtype=jnp.bfloat16)
    hidden = jax.jit(Qwen3VL.__call__)(half, prompts, responses)[1]
    assert hidden.dtype == jnp.bfloat16
    ours = half.logits(hidden)
    expected = model.logits(jax.jit(Qwen3VL.__call__)(model, prompts, responses)[1])
    assert ours.dtype == jnp.float32
    error = np.abs(ours - expected).max()
    assert 1e-4 < error < 0.1  # bfloat16 keeps 8 bits of logits up to 2


def test_works_as_a_graph_and_parameters(model, make):
    prompts = make.pad(make.example(GRIDS))
    graphdef, params = nnx.split(model, nnx.Param)
    hidden = jax.jit(lambda params: nnx.merge(graphdef, params)(prompts)[0])(params)
    np.testing.assert_array_equal(hidden, jax.jit(lambda model: model(prompts)[0])(model))


def test_initial_values_are_those_of_transformers(model):
    """Normal kernels with the configured deviation, zero biases, unit norms."""
    quick = {"xla_backend_optimization_level": 0}
    fresh = jax.jit(lambda: Qwen3VL(model.config, rngs=nnx.Rngs(0)), compiler_options=quick)()
    for path, parameter in nnx.to_flat_state(nnx.state(fresh, nnx.Param)):
        value = np.asarray(parameter.get_value())
        if path[-1] in ("scale", "bias"):
            assert (value == (path[-1] == "scale")).all(), path
        else:
            part = model.config.vision if path[0] == "vision" else model.config.text
            assert abs(value.mean()) < 0.1 * part.initializer_range, path
            assert value.std() == pytest.approx(part.initializer_range, rel=0.1), path
