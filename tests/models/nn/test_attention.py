"""Attention: the plain form by hand-sized examples, and the kernels against the plain form."""

import json
import os
import re
import subprocess
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dig_jax.models.nn import attention, kernels
from dig_jax.models.nn.attention import PLAIN, QKV, KeyValues
from dig_jax.models.nn.cudnn_attention import CudnnAttention
from dig_jax.models.nn.splash_attention import SplashAttention, TreeMask

# Emulated: what runs on a GPU or TPU is the same calls.
KERNELS = {"cudnn": CudnnAttention(implementation="xla"), "splash": SplashAttention(interpret=True)}


def draw_qkv(rng, *tokens, heads=4, kv_heads=2, head_dim=24, dtype=jnp.float32):
    draw = lambda n: jnp.asarray(rng.standard_normal((*tokens, n, head_dim)), dtype)  # noqa: E731
    return QKV(draw(heads), draw(kv_heads), draw(kv_heads))


@pytest.mark.parametrize("masked", [False, True])
def test_attention_in_chunks_equals_attention_at_once(monkeypatch, masked):
    """Eleven queries by chunks of four, on a shared and an own segment; values and gradients."""
    rng = np.random.default_rng(0)
    shared = KeyValues.of(draw_qkv(rng, 2, 5), jnp.arange(5) < jnp.array([3, 5]).reshape(2, 1, 1, 1))
    own = draw_qkv(rng, 2, 3, 11)
    causal = jnp.tril(jnp.ones((1, 1, 11, 11), bool)) if masked else None

    def run(q):
        return jnp.sum(jnp.sin(attention.attend(q, [shared, KeyValues.of(own, causal)])))

    whole = jax.jit(jax.value_and_grad(run))(own.q)
    monkeypatch.setattr(attention, "QUERY_CHUNK", 4)
    chunked = jax.jit(jax.value_and_grad(lambda q: run(q)))(
        own.q
    )  # a new function, or jit would not trace it
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), whole, chunked)


def test_attention_over_segments_is_one_softmax():
    """All keys are equal: one in each segment shares the weight, a hidden third gets none."""
    query = jnp.ones((1, 1, 1, 1, 1))
    values = jnp.array([10.0, 99.0]).reshape(1, 1, 2, 1)
    shared = KeyValues(jnp.ones((1, 1, 2, 1)), values, jnp.array([True, False]).reshape(1, 1, 1, 2))
    own = KeyValues(jnp.ones((1, 1, 1, 1, 1)), jnp.full((1, 1, 1, 1, 1), 20.0), None)
    assert attention.attend(query, [shared, own]).item() == pytest.approx(15.0)


def test_the_tree_mask_shows_the_prompt_and_the_own_past():
    """Two prompt tokens, two responses of two tokens, and one token of padding."""
    visible = TreeMask(size=7, prompt=2, response=2)[slice(0, 7), slice(0, 7)]
    expected = [
        [1, 0, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0, 0],
        [1, 1, 1, 1, 0, 0, 0],
        [1, 1, 0, 0, 1, 0, 0],
        [1, 1, 0, 0, 1, 1, 0],
        [1, 1, 0, 0, 0, 0, 1],
    ]
    np.testing.assert_array_equal(visible, expected)


def results(kernel, prompt, responses, length, segment):
    """Every pattern on the same tokens, 0 on padding, and the gradients of a function of all."""
    real = (jnp.arange(prompt.q.shape[1]) < length[:, None])[..., None, None]

    def loss(prompt, responses):
        trunk, branches = kernel.tree(prompt, responses, length)
        causal, packed = kernel.causal(prompt), kernel.packed(prompt, segment)
        out = (*(jnp.where(real, x, 0) for x in (trunk, causal, packed)), branches)
        return sum(jnp.sum(jnp.sin((1 + i) * x.astype(jnp.float32))) for i, x in enumerate(out)), out

    gradients, values = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))(prompt, responses)
    return values, gradients


def relative_error(ours, expected):
    ours, expected = np.asarray(ours, np.float32), np.asarray(expected, np.float32)
    return np.linalg.norm(ours - expected) / np.linalg.norm(expected)


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 1e-5), (jnp.bfloat16, 2e-2)])
def test_kernels_equal_the_plain_form(name, dtype, tolerance):
    """Values and gradients: grouped heads, prompts of 13 and 20 tokens padded to 20, images and windows."""
    rng = np.random.default_rng(0)
    prompt, responses = draw_qkv(rng, 2, 20, dtype=dtype), draw_qkv(rng, 2, 3, 7, dtype=dtype)
    # The rows of a window (Qwen2.5-VL) do not lie together.
    segment = jnp.array([[1] * 8 + [2] * 5 + [0] * 7, [21, 21, 22, 22] * 3 + [43] * 8])
    args = (prompt, responses, jnp.array([13, 20]), segment)
    ours, expected = results(KERNELS[name], *args), results(PLAIN, *args)
    assert max(jax.tree.leaves(jax.tree.map(relative_error, ours, expected))) < tolerance


@pytest.mark.parametrize(
    ("rows", "apart"),
    [
        ([[1] * 100 + [2] * 100 + [0] * 60, [1] * 100 + [2] * 128 + [0] * 32], True),  # padded to 2 x 256
        ([[1] * 130 + [2] * 130, [0] * 260], True),
        ([[1] * 90 + [0] * 170, [1] * 256 + [2] * 4], True),
        ([[1] * 257 + [0] * 3, [1] * 130 + [2] * 130], False),  # one is longer than half, and a tile
        ([[1] * 100 + [2] * 100 + [3] * 60, [1] * 130 + [2] * 130], False),
        ([[2] * 130 + [1] * 130, [1] * 130 + [2] * 130], False),
    ],
)
def test_cudnn_takes_a_mask_only_where_images_are_not_pairs(monkeypatch, rows, apart):
    """Values and gradients of the form that is chosen; the other gives NaN."""
    other = "_masked" if apart else "_each_image"
    monkeypatch.setattr(CudnnAttention, other, lambda self, x, *args, **options: x.q * jnp.nan)
    x = draw_qkv(np.random.default_rng(0), 2, 260, heads=2, kv_heads=2, head_dim=8)
    segment = jnp.array(rows)

    def run(kernel):
        def loss(x):
            out = jnp.where((segment > 0)[..., None, None], kernel.packed(x, segment), 0)
            return jnp.sum(jnp.sin(out)), out

        return jax.jit(jax.grad(loss, has_aux=True))(x)

    ours, expected = run(KERNELS["cudnn"]), run(PLAIN)
    assert max(jax.tree.leaves(jax.tree.map(relative_error, ours, expected))) < 1e-5


def test_cudnn_sees_only_whole_tiles_of_images(monkeypatch):
    """Masked sequences of 64 more than a multiple of 128 have NaN as gradients on Hopper."""
    seen = []
    attend = CudnnAttention._attend

    def spy(self, x, **options):
        seen.append((x.q.shape[1], sorted(name for name, given in options.items() if given is not None)))
        return attend(self, x, **options)

    monkeypatch.setattr(CudnnAttention, "_attend", spy)
    x = draw_qkv(np.random.default_rng(0), 1, 1600, heads=1, kv_heads=1, head_dim=8)
    jax.eval_shape(KERNELS["cudnn"].packed, x, jnp.ones((1, 1600), jnp.int32))
    assert seen == [(896, ["lengths"]), (1664, ["mask"])]


def test_splash_over_several_blocks_equals_the_plain_form(monkeypatch):
    """Blocks of 128: some hidden, some whole, some cut by the mask, and padding at the end."""
    monkeypatch.setattr("dig_jax.models.nn.splash_attention.BLOCK", 128)
    rng = np.random.default_rng(1)
    sizes = {"heads": 2, "kv_heads": 1, "head_dim": 8}
    prompt, responses = draw_qkv(rng, 1, 150, **sizes), draw_qkv(rng, 1, 2, 140, **sizes)
    args = (prompt, responses, jnp.array([130]), jnp.array([[1] * 90 + [2] * 40 + [0] * 20]))
    ours, expected = results(KERNELS["splash"], *args), results(PLAIN, *args)
    assert max(jax.tree.leaves(jax.tree.map(relative_error, ours, expected))) < 1e-5


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("head_dim", [72, 128])
def test_scores_are_not_scaled_by_a_rounded_factor(name, head_dim):
    """The second token sees itself with weight 1 / (1 + e^9.x): a score 1.5 in 1,000 too small adds 1.4%."""
    rng = np.random.default_rng(0)
    query = jnp.asarray(rng.uniform(1, 2, (1, 2, 1, head_dim)), jnp.bfloat16)
    keys = jnp.concatenate([9 * head_dim**-0.5 * query[:, 1:] / 2.3, jnp.zeros_like(query[:, 1:])], axis=1)
    values = jnp.stack([jnp.zeros(head_dim), jnp.ones(head_dim)])[None, :, None]
    x = QKV(query, keys, values.astype(jnp.bfloat16))
    exact = PLAIN.causal(QKV(*(a.astype(jnp.float32) for a in x)))[0, 1, 0]
    ours = KERNELS[name].causal(x)[0, 1, 0].astype(jnp.float32)
    assert exact[0] < 1e-3
    np.testing.assert_allclose(ours.mean(), exact.mean(), rtol=6e-3)


def device(platform, compute_capability="9.0"):
    return types.SimpleNamespace(
        platform=platform, compute_capability=compute_capability, device_kind=f"some {platform}"
    )


@pytest.mark.parametrize(
    ("where", "dtype", "head_dims", "expected"),
    [
        (device("cpu"), jnp.bfloat16, [64, 128], "plain"),
        (device("tpu"), jnp.bfloat16, [72, 128], "splash"),
        (device("tpu"), jnp.float32, [72, 128], "plain"),
        (device("gpu"), jnp.bfloat16, [72, 128], "cudnn"),
        (device("gpu"), jnp.float32, [72, 128], "plain"),
        (device("gpu"), jnp.bfloat16, [20, 128], "plain"),
        (device("gpu", "7.5"), jnp.bfloat16, [64, 128], "plain"),
    ],
)
def test_auto_takes_the_kernel_that_can_run(where, dtype, head_dims, expected):
    chosen = kernels.choose("auto", where, dtype, head_dims)
    assert type(chosen).__name__.lower() == f"{expected}attention"
    assert chosen == kernels.choose(expected, where, dtype, head_dims)


@pytest.mark.parametrize(
    ("name", "where", "dtype", "message"),
    [
        ("flash", device("gpu"), jnp.bfloat16, "'flash': expected one of auto, plain, cudnn, splash"),
        ("cudnn", device("tpu"), jnp.bfloat16, "'cudnn' needs an NVIDIA GPU, but the model runs on tpu"),
        ("cudnn", device("gpu", "7.5"), jnp.bfloat16, "needs compute capability 8.0 or more, but some gpu"),
        ("cudnn", device("gpu"), jnp.float32, "needs model.dtype=bfloat16, not float32; use 'auto'"),
        ("splash", device("cpu"), jnp.bfloat16, "'splash' needs a TPU, but the model runs on cpu devices"),
        ("splash", device("tpu"), jnp.float32, "needs model.dtype=bfloat16, not float32"),
    ],
)
def test_a_kernel_that_can_not_run_is_refused(name, where, dtype, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        kernels.choose(name, where, dtype, [64, 128])


def test_cudnn_is_what_a_gpu_would_run(monkeypatch):
    """Lowered for CUDA without a GPU: flash kernels forward and backward, and no scores outside of them."""
    monkeypatch.setattr("jax._src.cudnn.fused_attention_stablehlo.check_cudnn_version", lambda: 91000)
    rng = np.random.default_rng(0)
    sizes = {"dtype": jnp.bfloat16, "head_dim": 72}
    prompt, responses = draw_qkv(rng, 2, 64, **sizes), draw_qkv(rng, 2, 3, 32, **sizes)
    function = jax.jit(lambda *args: results(CudnnAttention(), *args))
    traced = function.trace(prompt, responses, jnp.array([40, 64]), jnp.ones((2, 64), jnp.int32))
    text = traced.lower(lowering_platforms=("cuda",)).as_text()
    kernels = set(re.findall(r"@__cudnn\$(\w+)", text))
    masked = {"fmhaScaleBiasSoftmax", "fmhaScaleBiasSoftmaxBackward"}  # the images
    assert kernels == {"fmhaSoftmax", "fmhaSoftmaxBackward", *masked}
    assert "stablehlo.dot_general" not in text


@pytest.mark.slow
@pytest.mark.parametrize("vision_head_dim", [64, 72])
def test_splash_compiles_for_a_tpu_at_the_sizes_of_real_models(monkeypatch, vision_head_dim):
    """By the real compiler: 2 images of 448x448, 8 responses of 2,048 tokens, heads of 128 elements."""
    pytest.importorskip("libtpu")
    monkeypatch.setenv("TPU_SKIP_MDS_QUERY", "1")
    monkeypatch.setenv("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # else one process at a time
    from jax.experimental import topologies

    topology = topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x2")
    where = jax.sharding.SingleDeviceSharding(topology.devices[0])
    kernel = kernels.choose("auto", topology.devices[0], jnp.bfloat16, [vision_head_dim, 128])

    def qkv(*tokens, heads, kv_heads, head_dim):
        shape = lambda n: jax.ShapeDtypeStruct(  # noqa: E731
            (*tokens, n, head_dim), jnp.bfloat16, sharding=where
        )
        return QKV(shape(heads), shape(kv_heads), shape(kv_heads))

    def integers(*shape):
        return jax.ShapeDtypeStruct(shape, jnp.int32, sharding=where)

    def gradient(patches, image, prompt, responses, length):
        def loss(patches, prompt, responses):
            out = (kernel.packed(patches, image), *kernel.tree(prompt, responses, length))
            return sum(jnp.sum(x.astype(jnp.float32) ** 2) for x in out)

        return jax.grad(loss, argnums=(0, 1, 2))(patches, prompt, responses)

    text = {"heads": 16, "kv_heads": 8, "head_dim": 128}
    compiled = (
        jax.jit(gradient)
        .lower(
            qkv(1, 1568, heads=16, kv_heads=16, head_dim=vision_head_dim),
            integers(1, 1568),
            qkv(1, 576, **text),
            qkv(1, 8, 2048, **text),
            integers(1),
        )
        .compile()
    )
    assert compiled.as_text().count("tpu_custom_call") == 6  # forward, and two backward, of each
    # Scores of one head alone, in bfloat16, would take 2 * (576 + 8 * 2048)^2 bytes.
    assert compiled.memory_analysis().temp_size_in_bytes < 2 * (576 + 8 * 2048) ** 2


@pytest.mark.slow
@pytest.mark.parametrize("tensor", [2, 4])
def test_kernels_split_over_a_mesh_equal_the_plain_form(tensor):
    """Rows over data and heads over tensor; the two key/value heads stay whole on four devices."""
    command = [sys.executable, "-m", "tests.models.nn.split_attention", str(tensor)]
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": "4"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    errors = json.loads(done.stdout)
    assert errors.keys() == {*KERNELS, "ragged"} and max(errors.values()) < 1e-5
