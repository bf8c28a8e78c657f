"""What training keeps in memory: never the logits of whole responses, and activations as `remat` says."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from bench.learning import make_learner
from dig_jax.models import families
from dig_jax.models.qwen3_vl.model import Qwen3VL
from dig_jax.update import sft
from dig_jax.update.microbatches import Cut
from dig_jax.update.policy import Experience
from tests.models.conftest import PromptMaker

VOCAB = 389  # a prime, so that no other array has a dimension like it
BATCH, GROUP, LENGTH = 2, 3, 64


@pytest.fixture(scope="module")
def config(tiny_qwen3vl):
    config = families.load_config(tiny_qwen3vl)
    return dataclasses.replace(config, text=dataclasses.replace(config.text, vocab_size=VOCAB))


@pytest.fixture(scope="module")
def prompts(config):
    make = PromptMaker(config)
    return make.pad(make.example([(4, 6), (6, 2)], seed=1), make.example([(2, 8)], text=3, seed=2))


@pytest.fixture(scope="module")
def responses():
    return np.random.default_rng(0).integers(0, 300, (BATCH, GROUP, LENGTH)).astype(np.int32)


def most_rows_of_logits(config, prompts, tokens, algorithm: str, chunk: int) -> int:
    """In one training update: the most tokens whose logits are in one array, forward or backward."""
    graphdef, params = nnx.split(Qwen3VL(config, rngs=nnx.Rngs(0)), nnx.Param)
    learner = make_learner(
        graphdef,
        VOCAB,
        sft=sft.SFTConfig(aux_weight=1.0, token_yes=0, token_no=1),
        allowed=np.arange(VOCAB) < 300,
        chunk=chunk,
        cut=Cut(BATCH),
    )
    ones = np.ones(tokens.shape, np.float32)
    cells = np.ones(prompts.tokens.shape, np.float32)
    update, batch = {
        "grpo": (learner.update_grpo, Experience(prompts, tokens, ones, -ones, ones[..., 0], -ones, -ones)),
        "sft": (learner.update_sft, sft.Supervised(prompts, tokens[:, 0], ones[:, 0], cells, cells)),
    }[algorithm]
    text = jax.jit(update).lower(learner.init(params), batch).as_text()
    shapes = {tuple(map(int, dims.split("x")[:-1])) for dims in re.findall(r"tensor<([\dx]+x)\w+>", text)}
    tables = {(VOCAB, config.text.hidden_size), (config.text.hidden_size, VOCAB)}
    return max(int(np.prod(s)) // VOCAB for s in shapes - tables if VOCAB in s)


@pytest.mark.parametrize(
    ("algorithm", "chunk", "rows"),
    [
        pytest.param("grpo", 8, BATCH * GROUP * 8, marks=pytest.mark.slow),
        ("sft", 8, BATCH * 8),
        ("sft", LENGTH, BATCH * LENGTH),
    ],
)
def test_an_update_holds_the_logits_of_a_chunk_at_a_time(config, prompts, responses, algorithm, chunk, rows):
    """Read off the program, gradient and optimizer included. With one chunk for all, all are there."""
    assert most_rows_of_logits(config, prompts, responses, algorithm, chunk) == rows


@pytest.mark.slow
def test_remat_saves_memory_and_changes_no_gradient(config, prompts, responses):
    """Temporary memory of the gradient: "full" needs less than "dots", and that less than half of "none"."""
    memory, gradients = {}, {}
    for policy in ("none", "dots", "full"):
        graphdef, params = nnx.split(Qwen3VL(config, rngs=nnx.Rngs(0), remat=policy), nnx.Param)

        def loss(params, graphdef=graphdef):
            hidden = nnx.merge(graphdef, params)(prompts, responses)
            return sum(jnp.sum(jnp.sin(x)) for x in hidden[:2])

        compiled = jax.jit(jax.grad(loss)).lower(params).compile()
        memory[policy] = compiled.memory_analysis().temp_size_in_bytes
        gradients[policy] = compiled(params)
    assert memory["full"] < 0.7 * memory["dots"] < 0.35 * memory["none"]
    for policy in ("dots", "full"):
        for ours, expected in zip(*map(jax.tree.leaves, (gradients[policy], gradients["none"])), strict=True):
            np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max() + 1e-9)


def test_an_unknown_remat_policy_is_refused(config):
    with pytest.raises(ValueError, match="remat='some': expected one of none, full, dots"):
        Qwen3VL(config, rngs=nnx.Rngs(0), remat="some")


def test_casting_the_parameters_once_changes_no_bit(config, prompts):
    """bfloat16 compute with float32 parameters: kernels and embeddings are cast, norms are not."""
    model = Qwen3VL(config, rngs=nnx.Rngs(0), dtype=jnp.bfloat16)
    cast = model.in_compute_dtype()
    # XLA may leave out a rounding between two operations (on a CPU it does): where it does not, none is lost.
    exactly = {"xla_allow_excess_precision": False}
    logits = jax.jit(lambda model: model.logits(model(prompts)[0]), compiler_options=exactly)
    np.testing.assert_array_equal(logits(cast), logits(model))
    assert cast.text.layers.mlp.up_proj.kernel.dtype == cast.text.embedding.dtype == jnp.bfloat16
    assert cast.text.layers.attn.q_norm.scale.dtype == cast.vision.merger.norm.bias.dtype == jnp.float32
    assert model.text.embedding.dtype == jnp.float32


def test_decoding_with_cast_parameters_casts_none_of_them_again(config, prompts):
    """The program of a step converts no array to bfloat16 that is as large as a layer's smallest kernel."""
    model = Qwen3VL(config, rngs=nnx.Rngs(0), dtype=jnp.bfloat16)

    def largest_cast(model) -> int:
        _, prompt_cache = jax.eval_shape(Qwen3VL.prefill, model, prompts)
        cache = jax.eval_shape(lambda: model.init_response_cache(BATCH, GROUP, LENGTH))
        tokens = jax.ShapeDtypeStruct((BATCH, GROUP), jnp.int32)
        step = jax.jit(lambda *args: args[0].logits(Qwen3VL.decode(*args)[0]))
        text = step.lower(model, tokens, 0, prompt_cache, cache).as_text()
        casts = re.findall(r"stablehlo.convert .*-> tensor<([\dx]+)xbf16>", text)
        return max(int(np.prod(list(map(int, shape.split("x"))))) for shape in casts)

    text = config.text
    smallest = text.hidden_size * text.num_key_value_heads * text.head_dim
    assert largest_cast(model.in_compute_dtype()) < smallest < largest_cast(model)
