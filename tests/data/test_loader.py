"""Batches depend on seed and step alone, keep their shapes, and hold what the model and the losses need."""

import collections
import dataclasses
import json

import numpy as np
import pytest

from dig_jax.data.augment import NO_AUGMENT, Augment
from dig_jax.data.buckets import Bucket
from dig_jax.data.encode import PairEncoder, changed_cells
from dig_jax.data.images import ImageConfig
from dig_jax.data.loader import PairDataset, PairLoader
from dig_jax.data.mismatch import MismatchedPairs
from dig_jax.data.noise import Answer, CountNoise
from dig_jax.models.families import load_config
from tests.data.conftest import NUM_TRAIN
from tests.helpers.drawn_pairs import draw_pair, write_pairs

ALL = Augment(True, True, True, True, True)
ROOM = Bucket(prompt_length=48, num_patches=128)  # holds a pair of 128x128 pixels


@pytest.fixture(scope="module")
def dataset(pairs_folder) -> PairDataset:
    return PairDataset([pairs_folder], "train", num_differences=(), max_bad_records=0, cache_bytes=1 << 20)


@pytest.fixture(scope="module")
def make_encoder(scratch_folder, tokenizer):
    def make(**changes) -> PairEncoder:
        settings = {
            "question": "Find differences.",
            "max_boxes": 4,
            "answer_step": 20,
            "max_answer_length": 20,
        }
        image_config = ImageConfig.from_folder(scratch_folder)
        return PairEncoder(tokenizer, image_config, load_config(scratch_folder), **(settings | changes))

    return make


@pytest.fixture(scope="module")
def make_loader(dataset, make_encoder):
    def make(**changes) -> PairLoader:
        settings = {
            "bucket_pixels": (),
            "global_batch_size": 4,
            "seed": 0,
            "shuffle": True,
            "group_sizes": False,
            "augment": ALL,
        }
        return PairLoader(changes.pop("dataset", dataset), make_encoder(), **(settings | changes))

    return make


def arrays(batch) -> dict[str, np.ndarray]:
    """Everything in a batch, as named arrays."""
    result = {
        f.name: getattr(batch, f.name)
        for f in dataclasses.fields(batch)
        if f.name not in ("prompts", "pairs")
    }
    result |= {f.name: getattr(batch.prompts, f.name) for f in dataclasses.fields(batch.prompts)}
    return result | {"ids": np.array(batch.ids)}


def assert_same(left, right) -> None:
    for name, value in arrays(left).items():
        np.testing.assert_array_equal(value, arrays(right)[name], err_msg=name)


def test_a_resumed_run_gets_the_same_batches(make_loader):
    first, second = make_loader(), make_loader()
    batches = [first.batch(step) for step in range(6)]
    assert_same(batches[5], second.batch(5))
    assert_same(batches[2], second.batch(2))  # backwards, too


@pytest.mark.parametrize("readahead", [1, 3])
def test_reading_ahead_changes_nothing(make_loader, readahead):
    plain, ahead = make_loader(), make_loader(readahead=readahead)
    for step in (0, 1, 2, 7, 8, 3):
        assert_same(ahead.batch(step), plain.batch(step))


def test_the_batches_that_are_said_to_follow_are_read_ahead_and_no_others(make_loader, monkeypatch):
    loaded = []
    load = PairLoader._load
    monkeypatch.setattr(PairLoader, "_load", lambda self, step: loaded.append(step) or load(self, step))
    loader = make_loader(readahead=2)
    loader.batch(0, following=[3, 6, 1])
    assert loader.batch(3, following=[6]).ids == make_loader().batch(3).ids
    loader.batch(6, following=[])
    assert sorted(loaded) == [0, 3, 3, 6]  # batch 3 again by the other loader


def test_an_error_while_reading_ahead_is_raised_for_its_batch(make_encoder):
    class Broken:
        image_sizes = np.full((4, 2), 128)

        def __len__(self):
            return 4

        def __getitem__(self, index):
            if index == 3:
                raise ValueError("pair 3 is damaged")
            return draw_pair(index)

    settings = {"global_batch_size": 1, "seed": 0, "shuffle": False, "augment": NO_AUGMENT, "readahead": 2}
    loader = PairLoader(Broken(), make_encoder(), bucket_pixels=(), group_sizes=False, **settings)
    assert [loader.batch(step).ids[0][-1] for step in range(3)] == ["0", "1", "2"]
    with pytest.raises(ValueError, match="pair 3 is damaged"):
        loader.batch(3)


def test_every_epoch_shows_every_pair_once_in_another_order(make_loader):
    loader = make_loader(global_batch_size=NUM_TRAIN)
    epochs = [loader.batch(step).ids for step in range(3)]
    assert all(sorted(ids) == sorted(epochs[0]) and len(set(ids)) == NUM_TRAIN for ids in epochs)
    assert len({tuple(ids) for ids in epochs}) == 3


def test_batches_run_across_the_end_of_an_epoch(make_loader):
    loader = make_loader(
        global_batch_size=4
    )  # 10 pairs: batch 2 holds the last two and the next epoch's first two
    seen = [id for step in range(5) for id in loader.batch(step).ids]
    assert set(collections.Counter(seen).values()) == {2}


def test_the_seed_decides_the_order_and_the_augmentation(make_loader):
    batches = [make_loader(seed=seed, global_batch_size=NUM_TRAIN).batch(0) for seed in (0, 1)]
    assert batches[0].ids != batches[1].ids
    pairs = [{pair.id: pair.image_a for pair in batch.pairs} for batch in batches]
    assert any((pairs[0][id] != pairs[1][id]).any() for id in pairs[0])


def test_an_unshuffled_loader_keeps_the_order_and_starts_over(make_loader):
    loader = make_loader(shuffle=False, augment=NO_AUGMENT)
    assert [id[-1] for step in range(3) for id in loader.batch(step).ids] == list("012345678901")


@pytest.mark.parametrize("rows", [[0, 1, 2, 3], [1, 2, 6], [7]])
def test_rows_that_are_loaded_alone_are_those_of_the_whole_batch(make_loader, rows):
    whole = make_loader(global_batch_size=8).batch(3)
    part = make_loader(global_batch_size=8, rows=np.array(rows)).batch(3)
    assert part.rows.tolist() == rows and part.ids == [whole.ids[row] for row in rows]
    for name, value in arrays(whole).items():
        np.testing.assert_array_equal(arrays(part)[name], value[rows], err_msg=name)


def test_only_pairs_with_the_wanted_number_of_differences_are_kept(pairs_folder, make_loader):
    kept = PairDataset([pairs_folder], "train", num_differences=(0, 2), max_bad_records=0, cache_bytes=0)
    assert len(kept) == 7
    assert set(make_loader(dataset=kept, global_batch_size=7).batch(0).num_boxes) == {0, 2}
    with pytest.raises(ValueError, match=r"no pairs with \[4\] differences in split 'train'"):
        PairDataset([pairs_folder], "train", num_differences=(4,), max_bad_records=0, cache_bytes=0)


def test_several_folders_are_mixed(pairs_folder, tmp_path, make_loader):
    write_pairs(tmp_path / "more", {"train": [draw_pair(i, seed=5) for i in range(4)]})
    mixed = PairDataset(
        [pairs_folder, tmp_path / "more"], "train", num_differences=(), max_bad_records=0, cache_bytes=0
    )
    ids = make_loader(dataset=mixed, global_batch_size=14).batch(0).ids
    assert len(set(ids)) == 14
    assert sum(id.startswith("drawn-5") for id in ids) == 4


def test_the_cache_keeps_pairs_up_to_its_size(pairs_folder):
    pair_bytes = 2 * 128 * 128 * 3
    cached = PairDataset(
        [pairs_folder], "train", num_differences=(), max_bad_records=0, cache_bytes=2 * pair_bytes
    )
    first = [cached[i] for i in range(4)]
    assert [cached[i] is first[i] for i in range(4)] == [True, True, False, False]


def test_mismatched_pairs_differ_in_the_first_image_alone(pairs_folder, dataset):
    options = {"num_differences": (), "max_bad_records": 0, "cache_bytes": 1 << 20}
    mismatched = MismatchedPairs([pairs_folder], "train", **options)
    firsts = [pair.image_a.tobytes() for pair in (dataset[i] for i in range(len(dataset)))]
    assert sorted(mismatched[i].image_a.tobytes() for i in range(len(dataset))) == sorted(firsts)
    for i in range(len(dataset)):
        assert mismatched[i].id == dataset[i].id
        assert mismatched[i].image_a.tobytes() != firsts[i]
        np.testing.assert_array_equal(mismatched[i].image_b, dataset[i].image_b)
        np.testing.assert_array_equal(mismatched[i].boxes, dataset[i].boxes)


def test_a_batch_holds_the_labels_and_the_answer(make_loader, tokenizer):
    batch = make_loader(global_batch_size=8).batch(0)
    for row, pair in enumerate(batch.pairs):
        count = len(pair.boxes)
        assert batch.num_boxes[row] == count
        np.testing.assert_array_equal(batch.boxes[row, :count], pair.boxes)
        assert not batch.boxes[row, count:].any()
        length = int(batch.answer_mask[row].sum())
        assert batch.answers[row, length - 1] == tokenizer.eos_ids[0]
        assert (batch.answers[row, length:] == tokenizer.pad_id).all()
        answer = json.loads(tokenizer.decode(batch.answers[row]))
        assert len(answer) == count
        if count:
            nearest = np.abs(np.array(answer)[:, None] / 1000 - pair.boxes[None]).max(axis=2).min(axis=1)
            assert (nearest <= 0.02).all()


def test_prompts_show_the_two_images_then_the_question(make_loader, tokenizer):
    prompts = make_loader().batch(0).prompts
    assert prompts.tokens.shape == (4, 48) and prompts.patches.shape == (4, 128, 1536)
    text = tokenizer.hf.decode(prompts.tokens[0, : prompts.length[0]])
    image = "<|vision_start|>" + "<|image_pad|>" * 16 + "<|vision_end|>"
    assert text == f"<|im_start|>user\n{image * 2}Find differences.<|im_end|>\n<|im_start|>assistant\n"
    np.testing.assert_array_equal(prompts.patch_image[0], [1] * 64 + [2] * 64)


def test_count_noise_changes_answers_but_not_labels(make_loader):
    plain, noisy = make_loader(), make_loader(count_noise=CountNoise(share=1.0, max_boxes=1))
    for step in range(3):
        expected, batch = plain.batch(step), noisy.batch(step)
        np.testing.assert_array_equal(batch.boxes, expected.boxes)
        np.testing.assert_array_equal(batch.cell_targets, expected.cell_targets)
        assert not (batch.answers == expected.answers).all(axis=1).any()
    assert_same(noisy.batch(1), make_loader(count_noise=CountNoise(share=1.0, max_boxes=1)).batch(1))


def test_coordinates_of_false_boxes_are_not_learnt(make_encoder, tokenizer):
    pair = dataclasses.replace(draw_pair(0), boxes=np.array([[0.5, 0.5, 0.7, 0.7]], np.float32))
    answer = Answer(np.array([[0.5, 0.5, 0.7, 0.7], [0.1, 0.2, 0.3, 0.4]]), np.array([True, False]))
    batch = make_encoder()([pair], ROOM, [answer])
    learnt = batch.answers[0][batch.answer_mask[0] > 0]
    assert tokenizer.decode(batch.answers[0]) == "[[100,200,300,400],[500,500,700,700]]"
    assert tokenizer.hf.decode(learnt) == "[[],[500,500,700,700]]<|im_end|>"


def test_cell_targets_lie_on_the_tokens_of_the_last_image(make_encoder, tokenizer):
    quarter = np.array([[0.5, 0, 1, 0.5]], np.float32)  # the top right quarter of a 4x4 grid of tokens
    batch = make_encoder()([dataclasses.replace(draw_pair(0), boxes=quarter)], ROOM)
    slots = np.flatnonzero(batch.prompts.tokens[0] == tokenizer.image_token_id)
    np.testing.assert_array_equal(np.flatnonzero(batch.cell_mask[0]), slots[16:])
    expected = np.zeros((4, 4))
    expected[:2, 2:] = 1
    np.testing.assert_array_equal(batch.cell_targets[0, slots[16:]].reshape(4, 4), expected)
    assert batch.cell_targets.sum() == 4


def test_a_cell_counts_from_a_quarter_of_its_area_or_with_the_center_of_a_box():
    cells = changed_cells(np.array([[0.3, 0.5, 0.5, 0.75]]), (8, 8), 2)  # 0.8 of cell (2, 1), no other
    assert np.argwhere(cells).tolist() == [[2, 1]]
    cells = changed_cells(np.array([[0.19, 0.5, 0.5, 0.75]]), (8, 8), 2)  # and 0.24 of cell (2, 0)
    assert np.argwhere(cells).tolist() == [[2, 1]]
    cells = changed_cells(np.array([[0.1875, 0.5, 0.5, 0.75]]), (8, 8), 2)  # exactly a quarter of it
    assert np.argwhere(cells).tolist() == [[2, 0], [2, 1]]
    cells = changed_cells(np.array([[0.9, 0.1, 0.92, 0.12]]), (8, 4), 2)  # tiny: the cell of its center
    assert np.argwhere(cells).tolist() == [[0, 1]]
    assert not changed_cells(np.zeros((0, 4)), (8, 8), 2).any()


def test_smaller_images_fit_into_the_same_shapes(make_encoder):
    encode = make_encoder()
    small = encode([draw_pair(0, size=(64, 96)), draw_pair(1)], ROOM)
    large = encode([draw_pair(0), draw_pair(1)], ROOM)
    shapes = [{name: value.shape for name, value in arrays(batch).items()} for batch in (small, large)]
    assert shapes[0] == shapes[1]
    assert small.cell_mask.sum(axis=1).tolist() == [6, 16]


def test_what_does_not_fit_is_refused_with_the_pairs_name(make_encoder):
    three = draw_pair(0, num_differences=3)
    with pytest.raises(ValueError, match="drawn-0-00000: has 3 differences, max_boxes is 2"):
        make_encoder(max_boxes=2)([three], ROOM)
    with pytest.raises(
        ValueError, match=r"drawn-0-00000: the answer takes 26 tokens, but max_answer_length is 20"
    ):
        make_encoder()([three], ROOM)
    with pytest.raises(
        ValueError, match=r"drawn-0-00000: two images of 128x128 pixels need 47 tokens and 128 patches"
    ):
        make_encoder()([draw_pair(0)], Bucket(prompt_length=48, num_patches=64))


def test_no_answers_are_made_where_none_are_wanted(make_encoder):
    batch = make_encoder(max_answer_length=0)([draw_pair(0, num_differences=4)], ROOM)
    assert batch.answers.shape == batch.answer_mask.shape == (1, 0)
