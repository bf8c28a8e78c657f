"""What adapters do in bfloat16 after a few updates at the usual learning rate: as much as in float32."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from configs import base
from dig_jax.machines import parallel
from dig_jax.models import families
from dig_jax.models.inputs import make_prompts
from dig_jax.models.nn import freeze, lora
from dig_jax.models.nn.lora import LoRAConfig
from dig_jax.models.qwen3_vl.model import Qwen3VL
from dig_jax.rollout.programs import rollout_programs
from dig_jax.update.policy import response_logprobs

WIDTH, RANK, VOCAB = 256, 64, 389
PROMPTS, GROUP, LENGTH = 4, 16, 16
LEARNING_RATE = 1e-5
SETTINGS = LoRAConfig(RANK, float(RANK), "text/.*_proj")


class Setting:
    """A decoder with weights as released models have them, and responses that it learns."""

    def __init__(self, folder):
        self.mesh = parallel.make_mesh(base.get_config().mesh)
        tiny = families.load_config(folder)
        # New adapters are drawn within 1 / sqrt(width), three times as wide as for a width of 2304; so the
        # weights are three times Qwen's 0.02, too.
        sizes = {"vocab_size": VOCAB, "hidden_size": WIDTH, "intermediate_size": 2 * WIDTH}
        text = dataclasses.replace(tiny.text, **sizes, num_hidden_layers=1, initializer_range=0.06)
        vision = dataclasses.replace(tiny.vision, out_hidden_size=WIDTH, deepstack_visual_indexes=(1,))
        self.config = dataclasses.replace(tiny, text=text, vision=vision)
        self.plain, params = nnx.split(self.model(jnp.float32), nnx.Param)
        self.params = jax.tree.map(lambda x: x.astype(jnp.bfloat16).astype(jnp.float32), params)
        self.adapted, params = lora.add_to_params(
            self.plain, self.params, SETTINGS, frozenset(), self.mesh, seed=0
        )
        self.adapters, _ = freeze.split_adapters(params)
        rng = np.random.default_rng(0)
        ids, none = rng.integers(10, 200, (PROMPTS, 9)), [[]] * PROMPTS
        self.prompts = make_prompts(ids, none, self.config, prompt_length=16, num_patches=0)
        self.tokens = rng.integers(0, 380, (PROMPTS, GROUP, LENGTH)).astype(np.int32)

    def model(self, dtype) -> Qwen3VL:
        return Qwen3VL(self.config, rngs=nnx.Rngs(0), dtype=dtype, param_dtype=jnp.float32)

    def with_adapters(self, dtype) -> nnx.GraphDef:
        def build() -> Qwen3VL:
            model = self.model(dtype)
            lora.add(model, SETTINGS, frozenset(), nnx.Rngs(0))
            return model

        return nnx.split(nnx.eval_shape(build))[0]

    def logprobs(self, graphdef, params) -> jax.Array:
        """As training computes them."""
        mask = np.ones(self.tokens.shape, np.float32)
        settings = {"temperature": 1.0, "allowed": None, "chunk": LENGTH}
        return response_logprobs(nnx.merge(graphdef, params), self.prompts, self.tokens, mask, **settings)[0]

    def decoded(self, graphdef, weights) -> jax.Array:
        """As sampling computes them: prefill, and then a token at a time."""
        model = nnx.merge(graphdef, weights)
        hidden, prompt_cache = model.prefill(self.prompts)
        last = jnp.take_along_axis(hidden, jnp.asarray(self.prompts.length)[:, None, None] - 1, axis=1)
        tokens = jnp.moveaxis(jnp.asarray(self.tokens), 2, 0)

        def step(cache, xs):
            hidden, cache = model.decode(xs[1], xs[0], prompt_cache, cache)
            return cache, hidden

        cache = model.init_response_cache(PROMPTS, GROUP, LENGTH)
        _, states = jax.lax.scan(step, cache, (jnp.arange(LENGTH - 1), tokens[:-1]))
        first = jnp.broadcast_to(last, states.shape[1:])[None]
        logprobs = jax.nn.log_softmax(model.logits(jnp.concatenate([first, states])))
        return jnp.moveaxis(jnp.take_along_axis(logprobs, tokens[..., None], -1)[..., 0], 0, 2)

    def after(self, updates: int) -> nnx.State:
        """The parameters after a few updates: while gradients keep their signs, Adam steps by its rate."""
        change = jax.tree.map(lambda g: updates * LEARNING_RATE * jnp.sign(g), self.gradient)
        adapters = jax.tree.map(jnp.add, self.adapters, change)
        return nnx.merge_state(jax.tree.map(jnp.copy, self.params), adapters)


@pytest.fixture(scope="module")
def setting(tiny_qwen3vl):
    setting = Setting(tiny_qwen3vl)
    setting.trained = jax.jit(setting.logprobs, static_argnums=0)
    setting.sampled = jax.jit(setting.decoded, static_argnums=0)

    def objective(adapters) -> jax.Array:
        return setting.logprobs(setting.adapted, nnx.merge_state(setting.params, adapters)).sum()

    setting.gradient = jax.jit(jax.grad(objective))(setting.adapters)
    return setting


def kept(change: jax.Array, expected: jax.Array) -> float:
    """How much of the expected change of log-probs is there: the slope of a line through all tokens."""
    change, expected = np.asarray(change).ravel(), np.asarray(expected).ravel()
    return float(change @ expected / (expected @ expected))


@pytest.mark.slow
@pytest.mark.parametrize(("updates", "of_merged"), [(4, 0.3), (20, 0.7)])
def test_sampler_and_trainer_see_a_fresh_adapter_whole_where_merging_rounds_it_away(
    setting, updates, of_merged
):
    start, params = setting.after(0), setting.after(updates)
    _, merged, _ = lora.merged_params(setting.adapted, setting.after(updates), setting.mesh)
    expected = setting.trained(setting.plain, merged) - setting.trained(setting.plain, setting.params)

    graphdef = setting.with_adapters(jnp.bfloat16)
    programs = rollout_programs(graphdef, start, setting.mesh)
    of_start = programs.weights(start)
    sampled = setting.sampled(graphdef, programs.weights(params)) - setting.sampled(graphdef, of_start)
    trained = setting.trained(graphdef, params) - setting.trained(graphdef, start)
    assert 0.95 < kept(sampled, expected) < 1.05
    assert 0.95 < kept(trained, expected) < 1.05

    plain, _ = nnx.split(setting.model(jnp.bfloat16), nnx.Param)
    rounded = jax.tree.map(lambda x: x.astype(jnp.bfloat16), merged)
    as_before = jax.tree.map(lambda x: x.astype(jnp.bfloat16), setting.params)
    assert kept(setting.sampled(plain, rounded) - setting.sampled(plain, as_before), expected) < of_merged
