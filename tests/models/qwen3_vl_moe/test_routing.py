"""What the whole model says of its routing: transformers' router loss, extras, caches, replay."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from dig_jax.models.nn import moe
from dig_jax.models.nn.experts import Experts
from dig_jax.models.nn.grouped import OfStack
from dig_jax.models.nn.megablox import MegabloxGrouped
from dig_jax.models.nn.multimodal import VisionLanguageModel
from dig_jax.models.nn.routing import Routing
from tests.models.parity import QUICK, case, check_gradients, checkpoint

LAYERS, PER_TOKEN, GROUP, LENGTH = 3, 2, 2, 4


@pytest.fixture(scope="module")
def pair():
    return case("experts")


@pytest.fixture(scope="module")
def examples(pair):
    return pair.examples("text only")


@pytest.fixture(scope="module")
def prompts(pair, examples):
    """Three rows of unequal length, without room for images."""
    return pair.make.pad(*examples, prompt_length=16, num_patches=0)


@pytest.fixture(scope="module")
def responses():
    tokens = np.random.default_rng(0).integers(0, 300, (3, GROUP, LENGTH)).astype(np.int32)
    mask = np.arange(LENGTH) < np.array([[4, 2], [1, 3], [4, 0]])[..., None]
    return tokens, mask.astype(np.float32)


@functools.partial(jax.jit, compiler_options=QUICK)
def run(model, prompts, tokens, routing, mask):
    """Hidden states of both streams, and extras; the model is traced again where routing is given."""
    return model(prompts, tokens, routing, mask)


def test_the_router_loss_and_its_gradient_are_those_of_transformers(pair, examples, prompts):
    """Padding left out, layers together."""
    graphdef, params = nnx.split(pair.model, nnx.Param)

    @functools.partial(jax.jit, compiler_options=QUICK)
    def ours(params):
        return jax.value_and_grad(lambda params: nnx.merge(graphdef, params)(prompts)[2]["router_loss"])(
            params
        )

    value, gradients = ours(params)
    reference = pair.reference
    reference.model.model.rope_deltas = None
    reference.model.zero_grad()
    theirs = reference.model(**reference.inputs(*examples), output_router_logits=True).aux_loss
    assert float(value) == pytest.approx(theirs.item(), rel=1e-5)
    assert 1 < float(value) < 4  # two choices of eight, used unevenly
    theirs.backward()
    found = {name: p.grad.numpy() for name, p in reference.model.named_parameters() if p.grad is not None}
    mine = checkpoint(gradients, pair.model.config)
    routers = [name for name in found if name.endswith("mlp.gate.weight")]
    assert len(routers) == LAYERS
    check_gradients({name: mine[name] for name in found}, found)


def test_extras_count_real_tokens_alone_and_say_where_each_went(pair, prompts, responses):
    tokens, mask = responses
    _, _, extras = run(pair.model, prompts, tokens, None, mask)
    ids = extras["routing"]
    assert ids.prompts.shape == (LAYERS, 3, 16, PER_TOKEN) and ids.prompts.dtype == jnp.uint8
    assert ids.responses.shape == (LAYERS, 3, GROUP, LENGTH, PER_TOKEN)
    of_prompts = np.asarray(ids.prompts)[:, np.arange(16) < prompts.length[:, None]]
    of_responses = np.asarray(ids.responses)[:, mask > 0]
    both = np.concatenate([of_prompts, of_responses], axis=1).reshape(LAYERS, -1)
    np.testing.assert_array_equal(extras["router"].chosen, [np.bincount(row, minlength=8) for row in both])
    assert np.all(extras["router"].tokens == prompts.length.sum() + mask.sum())
    other = run(pair.model, prompts, np.where(mask > 0, tokens, 7), None, mask)[2]
    np.testing.assert_allclose(other["router_loss"], extras["router_loss"], rtol=1e-6)


def test_replaying_its_own_choice_changes_no_bit_and_another_choice_does(pair, prompts, responses):
    tokens, mask = responses
    x, y, extras = run(pair.model, prompts, tokens, None, mask)
    again = run(pair.model, prompts, tokens, extras["routing"], mask)
    for a, b in zip(jax.tree.leaves((x, y, extras)), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(a, b)
    changed = Routing(extras["routing"].prompts, (extras["routing"].responses + 1) % 8)
    same, other, said = run(pair.model, prompts, tokens, changed, mask)
    np.testing.assert_array_equal(same, x)
    assert np.abs(other - y).max() > 0.01
    np.testing.assert_array_equal(said["routing"].responses, changed.responses)


@pytest.mark.parametrize("steps", ["together", "apart"])
def test_caches_hold_the_experts_of_every_token(pair, prompts, responses, steps):
    """All responses in step, and each at a length of its own, as in the pool."""
    tokens, mask = responses
    model = pair.model
    expected = run(model, prompts, tokens, None, mask)[2]["routing"]
    _, prompt_cache = jax.jit(VisionLanguageModel.prefill, compiler_options=QUICK)(model, prompts)
    real = np.arange(16) < prompts.length[:, None]
    np.testing.assert_array_equal(prompt_cache.routing[:, real], expected.prompts[:, real])
    cache = model.init_response_cache(3, GROUP, LENGTH)
    assert (
        cache.routing.dtype == jnp.uint8 and cache.routing.nbytes == LAYERS * 3 * GROUP * LENGTH * PER_TOKEN
    )
    decode = jax.jit(VisionLanguageModel.decode, compiler_options=QUICK)
    for step in range(LENGTH):
        at = step if steps == "together" else np.full((3, GROUP), step)
        _, cache = decode(model, tokens[..., step], at, prompt_cache, cache)
    np.testing.assert_array_equal(cache.routing, expected.responses)


def test_decoding_reads_every_layer_out_of_the_stack_where_the_kernel_can(
    pair, prompts, responses, monkeypatch
):
    model, tokens = pair.model, responses[0]
    _, prompt_cache = jax.jit(VisionLanguageModel.prefill, compiler_options=QUICK)(model, prompts)
    hidden, given = [], []
    original = moe.experts_mlp
    monkeypatch.setattr(
        moe, "experts_mlp", lambda *args: given.append(isinstance(args[3], OfStack)) or original(*args)
    )
    for how in (model.text.layers.mlp.how, Experts(MegabloxGrouped(interpret=True))):
        monkeypatch.setattr(model.text.layers.mlp, "how", how)
        decode = jax.jit(lambda *args: VisionLanguageModel.decode(model, *args), compiler_options=QUICK)
        cache = model.init_response_cache(3, GROUP, LENGTH)
        hidden.append(decode(tokens[..., 0], 0, prompt_cache, cache)[0])
    assert given == [False, True]
    np.testing.assert_allclose(*hidden, rtol=1e-5, atol=1e-5)


def test_a_dense_model_says_nothing_and_its_caches_have_no_leaf_more():
    model = case("three taps").model
    prompts = case("three taps").make.pad(*case("three taps").examples("text only"), num_patches=0)
    shapes = jax.eval_shape(
        lambda: (model(prompts)[2], model.prefill(prompts)[1], model.init_response_cache(1, 1, 1))
    )
    assert shapes[0] == {} and shapes[1].routing is None and shapes[2].routing is None
    assert [len(jax.tree.leaves(cache)) for cache in shapes[1:]] == [4, 2]
