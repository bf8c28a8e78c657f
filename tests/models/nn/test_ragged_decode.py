"""The kernel of decoding against the plain form, emulated; and by the real compiler for TPUs."""

import re
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dig_jax.models.nn import kernels, ragged_decode
from dig_jax.models.nn.attention import (
    KeyValues,
    attend,
    attend_with_readers,
    grouped,
    length_mask,
)
from dig_jax.models.nn.caches import ResponseCache, positions_read, write_slots
from dig_jax.models.nn.ragged_decode import RaggedDecode
from dig_jax.models.nn.readers import Readers


def normal(rng, *shape, dtype=jnp.float32):
    return jnp.asarray(rng.standard_normal(shape), dtype)


def read(kernel, q, caches, length, block):
    """What the kernel reads of the second of two layers."""
    kv_heads, longest = caches[0].shape[3:5]
    work = kernel.plan(length, block, longest)
    return kernel(grouped(q, kv_heads), caches, jnp.int32(1), work, block)


@pytest.mark.parametrize(
    ("dtype", "tolerance", "kv_heads", "heads", "head_dim", "longest", "cores"),
    [
        pytest.param(jnp.float32, 1e-6, 2, 6, 128, 24, 1, id="float32"),
        pytest.param(jnp.bfloat16, 1e-2, 2, 10, 64, 24, 2, id="bfloat16-on-two-cores"),
        pytest.param(jnp.bfloat16, 1e-2, 1, 17, 128, 21, 1, id="an-odd-group-and-a-block-over-the-end"),
    ],
)
def test_attention_equals_that_over_whole_caches_under_a_mask(
    dtype, tolerance, kv_heads, heads, head_dim, longest, cores
):
    """Beside a prompt and the new token, by two responses of three prompts; blocks that are not read are NaN.

    In blocks of 8 nothing is filled, one position, up to an edge and beyond it, more, all.
    """
    rng = np.random.default_rng(0)
    length = jnp.minimum(jnp.array([[0, 1], [8, 9], [17, 24]]), longest)
    q = normal(rng, 3, 2, 1, heads, head_dim, dtype=dtype)
    k, v = (normal(rng, 2, 3, 2, kv_heads, longest, head_dim, dtype=dtype) for _ in "kv")
    prompt = KeyValues(
        *(normal(rng, 3, kv_heads, 5, head_dim, dtype=dtype) for _ in "kv"),
        length_mask(jnp.array([5, 1, 3]), 5),
    )
    new = KeyValues(*(normal(rng, 3, 2, kv_heads, 1, head_dim, dtype=dtype) for _ in "kv"), None)

    @jax.jit
    def plain():
        filled = (jnp.arange(longest) < length[..., None])[:, :, None]
        return attend(q, [prompt, KeyValues(k[1], v[1], filled), new])

    @jax.jit
    def by_kernel():
        kernel = RaggedDecode(cores=cores, interpret=True)
        unread = jnp.arange(longest) >= positions_read(length, 8, longest)[..., None]
        poisoned = [jnp.where(unread[:, :, None, :, None], jnp.nan, x) for x in (k, v)]
        return attend(q, [prompt, new], [read(kernel, q, poisoned, length, 8)])

    ours, expected = (np.asarray(x, np.float32) for x in (by_kernel(), plain()))
    np.testing.assert_allclose(ours, expected, atol=tolerance, rtol=tolerance)


def test_responses_that_read_prompts_of_their_choice_join_the_same():
    """Three responses, of which two read the second of two prompts, the third the first one."""
    rng = np.random.default_rng(0)
    readers = Readers.of(jnp.array([[1, 0, 1]]), jnp.array([[0, 0, 1]]), jnp.ones((1, 3), bool), 2, 2)
    length = jnp.array([[2], [0], [5]])
    q, caches = normal(rng, 3, 1, 1, 4, 8), [normal(rng, 2, 3, 1, 2, 6, 8) for _ in "kv"]
    prompts = KeyValues(*(normal(rng, 2, 2, 4, 8) for _ in "kv"), length_mask(jnp.array([4, 2]), 4))
    new = KeyValues(*(normal(rng, 3, 1, 2, 1, 8) for _ in "kv"), None)
    before = KeyValues(*(x[1] for x in caches), (jnp.arange(6) < length[..., None])[:, :, None])

    @jax.jit
    def run():
        ours = read(RaggedDecode(interpret=True), q, caches, length, 4)
        return (
            attend_with_readers(q, prompts, [new], readers, [ours]),
            attend_with_readers(q, prompts, [before, new], readers),
        )

    np.testing.assert_allclose(*run(), atol=1e-6)


def test_the_list_has_the_filled_blocks_response_by_response():
    """Blocks of 4 of caches of 12: nothing is filled, 9, 4, and more than there is.

    Of caches that are all empty one block is listed: a grid has at least one step.
    """
    work = RaggedDecode().plan(jnp.array([[0], [9], [4], [99]]), block=4, longest=12)
    count = work.entries.item()
    entries = list(zip(work.response.tolist(), work.block.tolist(), strict=True))[:count]
    assert entries == [(1, 0), (1, 1), (1, 2), (2, 0), (3, 0), (3, 1), (3, 2)]
    assert len(work.response) == 4 * 3 and work.length.tolist() == [0, 9, 4, 12]
    empty = RaggedDecode().plan(jnp.zeros((4, 1), jnp.int32), block=4, longest=12)
    assert (empty.entries.item(), empty.response[0].item(), empty.block[0].item()) == (1, 3, 0)


@pytest.mark.parametrize(
    ("longest", "kv_heads", "dtype", "block"),
    [
        (2048, 2, jnp.bfloat16, 512),  # half a megabyte of keys and values
        (2048, 8, jnp.bfloat16, 128),
        (2048, 2, jnp.float32, 256),
        (600, 1, jnp.bfloat16, 384),  # twice, rather than 512 and 88
        (300, 2, jnp.bfloat16, 300),
    ],
)
def test_a_block_is_long_enough_to_be_worth_a_step(longest, kv_heads, dtype, block):
    assert RaggedDecode().block(longest, kv_heads, 128, dtype) == block


def device(platform, **fields):
    return types.SimpleNamespace(platform=platform, **fields)


def test_auto_takes_the_kernel_on_tpus():
    assert kernels.choose_decode("auto", device("tpu", num_cores=2), 128) == RaggedDecode(cores=2)
    assert kernels.choose_decode("ragged", device("tpu"), 256) == RaggedDecode()
    assert kernels.choose_decode("plain", device("tpu"), 128) is None
    assert kernels.choose_decode("auto", device("tpu"), 64) is None
    assert kernels.choose_decode("auto", device("gpu"), 128) is None


@pytest.mark.parametrize(
    ("name", "where", "head_dim", "message"),
    [
        ("paged", device("tpu"), 128, "'paged': expected one of auto, plain, ragged"),
        ("ragged", device("gpu"), 128, "'ragged' needs a TPU, but the model runs on gpu devices; use 'auto'"),
        ("ragged", device("tpu"), 64, "'ragged' needs heads of a multiple of 128 elements, not 64"),
    ],
)
def test_a_kernel_that_can_not_run_is_refused(name, where, head_dim, message):
    with pytest.raises(ValueError, match=re.escape(f"model.decode_attention={message}")):
        kernels.choose_decode(name, where, head_dim)


def chip_called(name, monkeypatch):
    """One of the chips of a slice that is not there, for the real compiler."""
    pytest.importorskip("libtpu")
    monkeypatch.setenv("TPU_SKIP_MDS_QUERY", "1")
    monkeypatch.setenv("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # else one process at a time
    from jax.experimental import topologies

    return topologies.get_topology_desc(platform="tpu", topology_name=name).devices[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["v5e:2x2", "v6e:2x2", "v5p:2x2x1"])
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_the_kernel_compiles_for_a_tpu_and_copies_no_cache(monkeypatch, name, dtype):
    """By the real compiler: a chip's share of 4B, 36 layers, 64 responses of 2,048 tokens, 2 heads of 8."""
    chip = chip_called(name, monkeypatch)
    kernel = kernels.choose_decode("auto", chip, 128)
    assert kernel is not None and kernel.cores == (2 if "v5p" in name else 1)
    where = jax.sharding.SingleDeviceSharding(chip)
    block = kernel.block(2048, 2, 128, dtype)
    shape = lambda dtype, *sizes: jax.ShapeDtypeStruct(sizes, dtype, sharding=where)  # noqa: E731
    cache = shape(dtype, 36, 64, 1, 2, 2048, 128)
    run = jax.jit(lambda q, k, v, length: read(kernel, q, (k, v), length, block))
    compiled = run.lower(shape(dtype, 64, 1, 1, 8, 128), cache, cache, shape(jnp.int32, 64, 1)).compile()
    assert compiled.as_text().count(f"/{ragged_decode.NAME}") > 0
    assert compiled.memory_analysis().temp_size_in_bytes < 64 * 2 * 2048 * 128 * 2  # one layer's keys


@pytest.mark.slow
def test_a_loop_that_reads_and_writes_caches_compiles_for_a_tpu_and_copies_none(monkeypatch):
    """128 responses at lengths of their own: what is read becomes the next query, and a key and a value."""
    chip = chip_called("v5e:2x2", monkeypatch)
    kernel, where = kernels.choose_decode("auto", chip, 128), jax.sharding.SingleDeviceSharding(chip)
    block = kernel.block(2048, 2, 128, jnp.bfloat16)
    shape = lambda dtype, *sizes: jax.ShapeDtypeStruct(sizes, dtype, sharding=where)  # noqa: E731
    values = shape(jnp.bfloat16, 4, 128, 1, 2, 2048, 128)

    def run(cache, q, new, length):
        def step(carry):
            cache, q, length = carry
            seen = read(kernel, q, (cache.k, cache.v), length, block)
            q = (q + seen.mixed.reshape(q.shape)).astype(q.dtype)
            return write_slots(cache, new * jnp.mean(q), new, length), q, length + 1

        return jax.lax.while_loop(lambda carry: jnp.max(carry[2]) < 2048, step, (cache, q, length))

    fed = (shape(jnp.bfloat16, *sizes) for sizes in ((128, 1, 1, 8, 128), (4, 128, 1, 2, 1, 128)))
    args = ResponseCache(values, values), *fed, shape(jnp.int32, 128, 1)
    compiled = jax.jit(run, donate_argnums=0).lower(*args).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 128 * 2 * 2048 * 128 * 2  # one layer's keys
