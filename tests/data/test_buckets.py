"""Buckets: a short ladder from pixel limits and data, chosen per step alike on all processes."""

import dataclasses
import math
import pathlib

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from dig_jax.data.buckets import (
    Bucket,
    Padding,
    derive_buckets,
    round_up_coarsely,
    smallest_bucket,
    with_lengths,
)
from dig_jax.data.encode import ExampleEncoder
from dig_jax.data.example import Shape
from dig_jax.data.images import ImageConfig
from dig_jax.data.loader import ExampleDataset, ExampleLoader
from dig_jax.data.tokenizer import Tokenizer
from dig_jax.models.families import load_config
from tests.helpers.drawn_pairs import draw_pair, write_pairs
from tests.helpers.tasks import asked, pairs_dataset

SIZES = [(64, 64), (64, 96), (128, 128), (96, 64), (256, 192)]  # 8, 12, 32, 12 and 96 image tokens per pair


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> ExampleDataset:
    """Twenty pairs of five sizes, in turn."""
    folder = tmp_path_factory.mktemp("mixed")
    write_pairs(folder, {"train": [draw_pair(i, size=SIZES[i % 5]) for i in range(20)]})
    return pairs_dataset([folder], cache_bytes=1 << 24)


@pytest.fixture(scope="module")
def encoder(scratch_folder: pathlib.Path, tokenizer: Tokenizer) -> ExampleEncoder:
    image_config = dataclasses.replace(ImageConfig.from_folder(scratch_folder), max_pixels=65536)
    return ExampleEncoder(
        tokenizer,
        image_config,
        load_config(scratch_folder),
        max_answer_length=0,
    )


def make_loader(dataset: ExampleDataset, encoder: ExampleEncoder, **changes: object) -> ExampleLoader:
    settings = {
        "bucket_pixels": (),
        "global_batch_size": 2,
        "seed": 0,
        "shuffle": True,
        "group_sizes": False,
    }
    return ExampleLoader(dataset, encoder, **(settings | changes))


def test_the_ladder_halves_from_the_limit_and_shrinks_to_the_data():
    needs = [Bucket(10 + patches // 4, patches) for patches in (1568, 1024, 512, 500)]
    # Rungs end at 2048, 1024 and 512; the highest holds 1568 at most, in multiples of 64.
    assert derive_buckets(needs, 2048) == (Bucket(144, 512), Bucket(320, 1024), Bucket(448, 1600))


def test_prompts_of_one_size_get_one_exact_bucket():
    assert derive_buckets([Bucket(546, 1568)] * 9, 131_072) == (Bucket(576, 1600),)


def test_a_rung_without_a_prompt_is_left_out():
    assert derive_buckets([Bucket(64, 256), Bucket(2048, 8192)], 8192) == (
        Bucket(64, 256),
        Bucket(2048, 8192),
    )


def test_prompts_of_text_alone_get_a_bucket():
    assert derive_buckets([Bucket(30, 0)], 1024) == (Bucket(32, 0),)


@hypothesis.given(
    needs=st.lists(
        st.builds(Bucket, st.integers(1, 5000), st.integers(0, 1024).map(lambda n: 4 * n)), min_size=1
    ),
    most=st.integers(64, 4096),
)
def test_every_need_has_a_smallest_bucket_and_buckets_are_nested(needs: list[Bucket], most: int):
    buckets = derive_buckets(needs, most)
    assert all(larger.holds(smaller) for smaller, larger in zip(buckets, buckets[1:], strict=False))
    for need in needs:
        chosen = smallest_bucket(buckets, need)
        assert chosen is not None and buckets[chosen].holds(need)
        assert not any(bucket.holds(need) for bucket in buckets[:chosen])
    assert all(bucket.num_patches % 4 == 0 for bucket in buckets)


@hypothesis.given(st.integers(65, 10**6))
def test_coarse_rounding_wastes_a_fifth_at_most(length: int):
    rounded = round_up_coarsely(length)
    assert length <= rounded < 1.25 * length
    assert rounded % 2 ** (math.floor(math.log2(length)) - 2) == 0  # four sizes per doubling


def test_a_batch_takes_the_smallest_bucket_that_holds_all_its_rows(
    mixed: ExampleDataset, encoder: ExampleEncoder
):
    loader = make_loader(mixed, encoder)
    for step in range(10):
        batch = loader.batch(step)
        shape = Bucket(batch.prompts.tokens.shape[1], batch.prompts.patches.shape[1])
        assert shape == loader.bucket(step)
        patches = (batch.prompts.patch_image > 0).sum(axis=1).max()
        # Rungs end at 256x256 / 2^k pixels, 512 / 2^k patches of both images together.
        assert shape.num_patches == {32: 32, 48: 48, 128: 128, 384: 384}[int(patches)]


def test_all_processes_pad_to_the_same_bucket(mixed: ExampleDataset, encoder: ExampleEncoder):
    whole = make_loader(mixed, encoder, global_batch_size=4)
    parts = [make_loader(mixed, encoder, global_batch_size=4, rows=np.array([row])) for row in range(4)]
    assert len({whole.bucket(step) for step in range(10)}) > 1
    for step in range(10):
        assert {part.batch(step).prompts.tokens.shape[1] for part in parts} == {
            whole.bucket(step).prompt_length
        }


def test_the_padding_told_is_the_padding_there(mixed: ExampleDataset, encoder: ExampleEncoder):
    loader = make_loader(mixed, encoder, global_batch_size=4)
    for step in range(3):
        prompts = loader.batch(step).prompts
        told = loader.figures(step)
        assert told["bucket/prompt_length"] == prompts.tokens.shape[1]
        assert told["bucket/num_patches"] == prompts.patches.shape[1]
        assert told["padding/prompt"] == pytest.approx(1 - prompts.length.sum() / prompts.tokens.size)
        assert told["padding/patches"] == pytest.approx(1 - (prompts.patch_image > 0).mean())


def test_the_expected_padding_is_described_per_bucket(mixed: ExampleDataset, encoder: ExampleEncoder):
    loader = make_loader(mixed, encoder, global_batch_size=5, shuffle=False)  # every batch has every size
    lines = loader.describe_padding()
    assert len(lines) == 4  # of 32, 48, 128 and 384 patches
    assert lines[0] == "bucket of 32 tokens and 32 patches: 0% of the batches"
    used = 1 - (32 + 48 + 128 + 48 + 384) / 5 / 384
    assert lines[-1].startswith("bucket of 112 tokens and 384 patches: 100% of the batches; padding is ")
    assert lines[-1].endswith(f"{used:.1%} of their patches")


@pytest.mark.parametrize("size", [2, 3, 7, 40])
def test_grouped_epochs_show_every_pair_once_in_batches_of_one_bucket(
    mixed: ExampleDataset, encoder: ExampleEncoder, size: int
):
    plain, grouped = (
        make_loader(mixed, encoder, global_batch_size=size, group_sizes=group) for group in (False, True)
    )
    steps = range(0, 4 * 20 // size)
    ids = [id for step in steps for id in grouped.batch(step).ids]
    for epoch in range(len(ids) // 20):
        assert len(set(ids[20 * epoch : 20 * (epoch + 1)])) == 20
    assert ids[:20] != sorted(ids[:20]) and ids[:20] != ids[20:40]

    def padding(loader: ExampleLoader) -> float:
        return np.mean([loader.figures(step)["padding/patches"] for step in steps])

    assert padding(grouped) < padding(plain) if size < 20 else padding(grouped) == padding(plain)


def test_grouping_changes_nothing_where_all_pairs_are_of_one_size(
    pairs_folder: pathlib.Path, encoder: ExampleEncoder
):
    dataset = pairs_dataset([pairs_folder])
    plain, grouped = (make_loader(dataset, encoder, group_sizes=group) for group in (False, True))
    assert [plain.batch(step).ids for step in range(8)] == [grouped.batch(step).ids for step in range(8)]


def test_buckets_can_be_given_in_pixels(mixed: ExampleDataset, encoder: ExampleEncoder):
    loader = make_loader(mixed, encoder, bucket_pixels=(128 * 128, 65536))
    assert {loader.bucket(step).num_patches for step in range(10)} == {128, 512}


def test_an_image_too_large_for_the_buckets_names_pair_and_setting(
    mixed: ExampleDataset, encoder: ExampleEncoder
):
    with pytest.raises(ValueError) as raised:
        make_loader(mixed, encoder, bucket_pixels=(96 * 96, 128 * 128))
    assert "drawn-0-00004, 2 images of 192x256 pixels need" in str(raised.value)
    assert "config.data.buckets=(9216, 16384)" in str(raised.value)
    assert "config.data.max_pixels" in str(raised.value)


def test_an_image_that_no_model_takes_names_its_pair(encoder: ExampleEncoder):
    class Strip(list):
        shapes = [Shape(asked(draw_pair(0)).messages, (size, size)) for size in [(64, 64), (1, 400)]]

    with pytest.raises(ValueError, match=r"drawn-0-00001, 2 images of 400x1 pixels: .* within 200:1"):
        make_loader(Strip([asked(draw_pair(0)), asked(draw_pair(1))]), encoder)


def test_lengths_of_prompts_make_further_rungs_where_something_takes_them():
    """One image or five; texts of 20 to 1500 tokens beside its 576."""
    needs = [Bucket(600, 576), Bucket(650, 576), Bucket(2070, 576), Bucket(1170, 2880)]
    ladder = derive_buckets(needs, 2880)
    assert ladder == (Bucket(2112, 576), Bucket(2112, 2880))
    longer = with_lengths(ladder, needs, (704, 1216, 4096))
    assert longer == (Bucket(704, 576), Bucket(2112, 576), Bucket(1216, 2880), Bucket(2112, 2880))
    table = np.array([(need.prompt_length, need.num_patches) for need in needs])
    padding = Padding(longer, table, np.array([smallest_bucket(longer, need) for need in needs]))
    assert padding.smallest.tolist() == [0, 0, 1, 2]
    assert padding.bucket(np.array([0, 1])) == Bucket(704, 576)
    assert padding.bucket(np.array([0, 3])) == Bucket(1216, 2880)
    assert padding.bucket(np.array([2, 3])) == Bucket(2112, 2880)  # neither holds the other
    assert with_lengths(ladder, needs, ()) == ladder
