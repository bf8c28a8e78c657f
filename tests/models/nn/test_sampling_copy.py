"""The copy of the weights for sampling: in any form the same model, but for what int8 rounds."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from bench.compile_time import Shapes, model_config
from configs import base
from dig_jax import settings
from dig_jax.machines import parallel
from dig_jax.models.hf import checkpoint
from dig_jax.models.nn import lora
from dig_jax.models.nn.attention_maps import last_layer
from dig_jax.models.nn.layers import Linear
from dig_jax.models.nn.lora import LoRAConfig
from dig_jax.models.nn.sampling_copy import AS_TRAINED, Form, sampling_copy
from dig_jax.models.qwen3_vl.model import Qwen3VL
from dig_jax.rollout.drawer import Limits, answering_form, sampling_form
from dig_jax.rollout.engine import sample_keys
from dig_jax.rollout.programs import rollout_programs
from dig_jax.rollout.sampling import Sampling
from tests.models.conftest import PromptMaker

APART, INT8 = Form(apart=True), Form(int8=True)
LIMITS = Limits(
    Sampling(0.7, 1.0, 0, tuple(range(0, 300, 6)), suppressed=(), vocab_size=300, pad_id=0),
    max_new_tokens=12,
    slots=1,
    rows=2,
)


class Drawing:
    """A tiny model with the weights in any form: completions, two to each of two prompts, and logits."""

    def __init__(self, model: Any):
        make = PromptMaker(model.config)
        self.model = model
        self.prompts = make.pad(make.example([(4, 6)], seed=0), make.example([(2, 8), (2, 2)], seed=1))
        self.mesh = parallel.make_mesh(base.get_config().mesh, jax.devices()[:1])
        self.keys = sample_keys(jax.random.key(0), 0, np.arange(4).reshape(2, 2))

    def logits(self, form: Form) -> jax.Array:
        """Those after the prompts [2,1,V], and after two tokens each."""

        def run(model: Any) -> list[jax.Array]:
            hidden, prompt_cache = model.prefill(self.prompts)
            cache, logits = model.init_response_cache(2, 1, 4), [model.logits(hidden[:, :1])]
            for step in range(2):
                tokens = jnp.argmax(logits[-1], axis=-1)
                hidden, cache = model.decode(tokens, step, prompt_cache, cache)
                logits.append(model.logits(hidden))
            return logits

        graphdef, params = nnx.split(sampling_copy(self.model, form), nnx.Param)
        return jnp.stack(jax.jit(lambda params: run(nnx.merge(graphdef, params)))(params))

    def __call__(self, form: Form) -> Any:
        graphdef, params = nnx.split(self.model, nnx.Param)
        drawer = rollout_programs(graphdef, params, self.mesh, form)
        weights = drawer.weights(params)
        drawn = drawer.draw(weights, self.prompts, np.arange(2), self.keys, LIMITS)
        drawer.draw(drawer.weights(params), self.prompts, np.arange(2), self.keys, LIMITS)
        assert drawer.fill._compiled._cache_size() == drawer.drain._compiled._cache_size() == 1
        return drawn


@pytest.fixture(scope="module")
def qwen3vl(tiny_qwen3vl) -> Drawing:
    return Drawing(checkpoint.load_model(tiny_qwen3vl))


def test_layers_apart_give_the_logits_of_stacked_ones_and_int8_nearly_these(qwen3vl):
    """Prefill and decoding in one program; in programs of their own they are equal bit for bit (below)."""
    stacked = qwen3vl.logits(AS_TRAINED)
    assert np.abs(stacked[1] - stacked[0]).max() > 0.1
    np.testing.assert_allclose(qwen3vl.logits(APART), stacked, atol=1e-5)
    far = np.abs(qwen3vl.logits(Form(apart=True, int8=True)) - stacked)
    assert 1e-4 < far.max() < 0.05


def test_maps_of_attention_take_layers_apart_too(qwen3vl):
    """A session's weights are apart on a GPU."""
    answers = jnp.ones((2, 3), jnp.int32)
    stacked, apart = (
        last_layer(sampling_copy(qwen3vl.model, form), qwen3vl.prompts, answers)
        for form in (AS_TRAINED, APART)
    )
    np.testing.assert_allclose(apart, stacked, atol=1e-5)


@pytest.fixture(scope="module", params=["tiny_qwen3vl_thinking", "tiny_qwen2_5_vl"], ids=["tied", "qwen2.5"])
def drawing(request) -> Drawing:
    return Drawing(checkpoint.load_model(request.getfixturevalue(request.param)))


@pytest.mark.slow
def test_in_every_form_programs_are_traced_once_and_layers_apart_draw_the_same(drawing):
    stacked, apart = drawing(AS_TRAINED), drawing(APART)
    assert stacked.mask.sum() > 8
    jax.tree.map(np.testing.assert_array_equal, stacked, apart)
    jax.tree.map(np.testing.assert_array_equal, drawing(INT8), drawing(Form(apart=True, int8=True)))


@pytest.fixture(scope="module")
def model() -> Qwen3VL:
    return Qwen3VL(model_config(Shapes(depth=3)), rngs=nnx.Rngs(0), dtype=jnp.bfloat16)


def test_a_kernel_becomes_int8_by_output_channel():
    linear = Linear((2,), (2,), (None, None), std=1.0, rngs=nnx.Rngs(0), dtype=jnp.float32)
    linear.kernel.set_value(jnp.array([[1.0, 0.0], [-127.0, 0.0]]))
    dense = linear(jnp.array([[10.0, 3.0]]))
    holder: Any = nnx.Module()
    holder.text = nnx.Module()
    holder.text.layers = linear
    holder.in_compute_dtype = lambda: holder
    sampling_copy(holder, INT8)
    assert linear.kernel.dtype == jnp.int8
    assert linear.kernel[...].tolist() == [[1, -127], [0, 0]]  # outputs first
    assert linear.kernel_scale[...].tolist() == [1, 1]  # of a column of zeros: not 0
    np.testing.assert_array_equal(linear(jnp.array([[10.0, 3.0]])), dense)


@pytest.mark.parametrize("form", [INT8, Form(apart=True, int8=True)])
def test_int8_changes_nothing_but_the_products_of_decoder_layers(model, form):
    copied = sampling_copy(model, form)
    plain = dict(nnx.to_flat_state(nnx.state(model.in_compute_dtype(), nnx.Param)))
    for path, param in nnx.to_flat_state(nnx.state(copied, nnx.Param)):
        if path[:2] != ("text", "layers"):
            np.testing.assert_array_equal(param[...], plain[path][...], err_msg=str(path))
        elif path[-1] == "kernel":
            assert param.dtype == jnp.int8, path
        else:
            assert param.dtype == jnp.float32, path  # norms and scales
    again = sampling_copy(copied, form)
    jax.tree.map(np.testing.assert_array_equal, *(nnx.state(x, nnx.Param) for x in (copied, again)))


def test_int8_kernels_are_within_half_a_step_of_the_values_that_training_has(model):
    """Of the float32 ones, which rounding to bfloat16 first would move by as much."""
    whole = model.text.layers.mlp.down_proj.kernel[...]  # [L,I,D]
    rounded = sampling_copy(model, INT8).text.layers.mlp.down_proj
    back = rounded.kernel[...].swapaxes(1, 2) * rounded.kernel_scale[...][:, None]
    assert np.abs(back - whole).max(axis=1) == pytest.approx(
        np.asarray(rounded.kernel_scale[...]) / 2, rel=0.2
    )
    assert np.abs(rounded.kernel[...]).max() == 127


def test_adapters_are_added_beside_int8_kernels(model):
    adapted = nnx.clone(model)
    lora.add(adapted, LoRAConfig(2, 2.0, "text/.*_proj"), frozenset(), nnx.Rngs(0))
    adapter = adapted.text.layers.attn.q_proj.adapter
    adapter.b.set_value(jnp.ones_like(adapter.b[...]))
    copied = sampling_copy(adapted, Form(apart=True, int8=True)).text.layers[1].attn.q_proj
    without = sampling_copy(model, INT8).text.layers
    x = jnp.ones((1, model.config.text.hidden_size), jnp.float32)
    kernel, scale = without.attn.q_proj.kernel[1], without.attn.q_proj.kernel_scale[1]
    expected = jnp.einsum("td,hed->the", x, kernel.astype(jnp.float32)) * scale + copied.adapter(x)
    np.testing.assert_allclose(copied(x), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(copied.adapter.a[...], adapter.a[1].astype(jnp.bfloat16))


def test_a_session_cuts_the_stack_up_without_keeping_it(model):
    def fresh() -> Qwen3VL:
        graphdef, params = nnx.split(model, nnx.Param)
        return nnx.merge(graphdef, jax.tree.map(jnp.copy, params))

    policy = fresh()
    scale, kernel = policy.text.norm.scale[...], policy.text.layers.post_norm.scale[...]
    in_place = sampling_copy(policy, APART, consume=True)
    expected = sampling_copy(fresh(), APART)
    jax.tree.map(np.testing.assert_array_equal, *(nnx.state(x, nnx.Param) for x in (in_place, expected)))
    assert kernel.is_deleted() and not scale.is_deleted()


def test_gpus_take_layers_apart_and_others_stacked():
    assert Form.choose("auto", "", "gpu") == APART
    assert Form.choose("auto", "", "tpu") == Form.choose("auto", "", "cpu") == AS_TRAINED
    assert Form.choose("stacked", "int8", "gpu") == INT8


def test_answers_that_are_measured_are_those_of_the_weights_that_are_saved():
    config = base.get_config()
    config.rollout.layers, config.rollout.weight_dtype = "apart", "int8"
    mesh = parallel.make_mesh(config.mesh, jax.devices()[:1])
    assert sampling_form(config, mesh) == dataclasses.replace(answering_form(config, mesh), int8=True)


def test_int8_without_importance_weights_is_refused():
    config = base.get_config()
    config.data.train, config.model_path = ("pairs",), "model"
    config.rollout.weight_dtype = "int8"
    with pytest.raises(ValueError, match=r"weight_dtype='int8' samples .*config.grpo.importance_cap=2.0"):
        settings.check(config)
    config.grpo.importance_cap = 2.0
    settings.check(config)
