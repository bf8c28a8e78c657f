"""Batches depend on seed and step alone, keep their shapes, and hold what the model and the losses need."""

import collections
import dataclasses
import json

import numpy as np
import pytest

from dig_jax.data.buckets import Bucket
from dig_jax.data.encode import ExampleEncoder, covered_cells
from dig_jax.data.example import BadRecord, Demonstration, Example, Turn
from dig_jax.data.images import ImageConfig, preprocess
from dig_jax.data.loader import ExampleDataset, ExampleLoader, MismatchedDataset, PartData
from dig_jax.models.families import load_config
from tests.data.conftest import NUM_TRAIN
from tests.helpers.drawn_pairs import draw_pair, write_pairs
from tests.helpers.tasks import asked, pairs_dataset, pairs_task

ALL = {
    f"data.augment.{name}": True
    for name in ("flip_horizontal", "flip_vertical", "transpose", "swap_pair", "permute_channels")
}
ROOM = Bucket(prompt_length=48, num_patches=128)  # holds a pair of 128x128 pixels


@pytest.fixture(scope="module")
def dataset(pairs_folder) -> ExampleDataset:
    return pairs_dataset([pairs_folder])


@pytest.fixture(scope="module")
def make_encoder(scratch_folder, tokenizer):
    def make(**changes) -> ExampleEncoder:
        image_config = ImageConfig.from_folder(scratch_folder)
        settings = {"max_answer_length": 20} | changes
        return ExampleEncoder(tokenizer, image_config, load_config(scratch_folder), **settings)

    return make


@pytest.fixture(scope="module")
def make_loader(dataset, make_encoder):
    def make(*, task=None, **changes) -> ExampleLoader:
        task = task or pairs_task(**ALL)
        settings = {
            "bucket_pixels": (),
            "global_batch_size": 4,
            "seed": 0,
            "shuffle": True,
            "group_sizes": False,
            "augment": task.augment,
            "demonstrate": task.demonstrate,
        }
        return ExampleLoader(changes.pop("dataset", dataset), make_encoder(), **(settings | changes))

    return make


def arrays(batch) -> dict[str, np.ndarray]:
    """Everything in a batch, as named arrays."""
    result = {
        f.name: getattr(batch, f.name)
        for f in dataclasses.fields(batch)
        if f.name not in ("prompts", "examples", "teacher")
    }
    shown = {"": batch.prompts} | ({"teacher/": batch.teacher} if batch.teacher else {})
    for name, prompts in shown.items():
        result |= {name + f.name: getattr(prompts, f.name) for f in dataclasses.fields(prompts)}
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
    load = ExampleLoader._load
    monkeypatch.setattr(ExampleLoader, "_load", lambda self, step: loaded.append(step) or load(self, step))
    loader = make_loader(readahead=2)
    loader.batch(0, following=[3, 6, 1])
    assert loader.batch(3, following=[6]).ids == make_loader().batch(3).ids
    loader.batch(6, following=[])
    assert sorted(loaded) == [0, 3, 3, 6]  # batch 3 again by the other loader


def test_an_error_while_reading_ahead_is_raised_for_its_batch(make_encoder):
    class Broken:
        shapes = [asked(draw_pair(0)).shape] * 4

        def __len__(self):
            return 4

        def __getitem__(self, index):
            if index == 3:
                raise ValueError("pair 3 is damaged")
            return asked(draw_pair(index))

    settings = {"global_batch_size": 1, "seed": 0, "shuffle": False, "readahead": 2}
    loader = ExampleLoader(Broken(), make_encoder(), bucket_pixels=(), group_sizes=False, **settings)
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
    pairs = [{example.id: example.images[0] for example in batch.examples} for batch in batches]
    assert any((pairs[0][id] != pairs[1][id]).any() for id in pairs[0])


def test_an_unshuffled_loader_keeps_the_order_and_starts_over(make_loader):
    loader = make_loader(shuffle=False, augment=None)
    assert [id[-1] for step in range(3) for id in loader.batch(step).ids] == list("012345678901")


@pytest.mark.parametrize("rows", [[0, 1, 2, 3], [1, 2, 6], [7]])
def test_rows_that_are_loaded_alone_are_those_of_the_whole_batch(make_loader, rows):
    whole = make_loader(global_batch_size=8).batch(3)
    part = make_loader(global_batch_size=8, rows=np.array(rows)).batch(3)
    assert part.rows.tolist() == rows and part.ids == [whole.ids[row] for row in rows]
    for name, value in arrays(whole).items():
        np.testing.assert_array_equal(arrays(part)[name], value[rows], err_msg=name)


def test_only_pairs_with_the_wanted_number_of_differences_are_kept(pairs_folder, make_loader):
    kept = pairs_dataset([pairs_folder], pairs_task(**{"data.num_differences": (0, 2)}))
    assert len(kept) == 7
    examples = make_loader(dataset=kept, global_batch_size=7).batch(0).examples
    assert {len(example.target.boxes) for example in examples} == {0, 2}
    assert pairs_task(**{"data.num_differences": (4,)}).unit == "pairs with [4] differences"


def test_several_folders_are_mixed(pairs_folder, tmp_path, make_loader):
    write_pairs(tmp_path / "more", {"train": [draw_pair(i, seed=5) for i in range(4)]})
    mixed = pairs_dataset([pairs_folder, tmp_path / "more"])
    ids = make_loader(dataset=mixed, global_batch_size=14).batch(0).ids
    assert len(set(ids)) == 14
    assert sum(id.startswith("drawn-5") for id in ids) == 4


def test_a_mixture_has_its_shares_in_every_batch_and_no_process_needs_another_for_it(
    pairs_folder, tmp_path, make_loader
):
    """Three of four are of ten pairs, one is of two others; rows of hosts are those of the whole batch."""
    write_pairs(tmp_path / "more", {"train": [draw_pair(i, seed=5) for i in range(2)]})
    both = pairs_dataset([pairs_folder, tmp_path / "more"])
    parts = {"dataset": both, "parts": (PartData(NUM_TRAIN, 3), PartData(2, 1)), "global_batch_size": 8}
    whole = [make_loader(**parts).batch(step) for step in range(5)]
    others = [[id.startswith("drawn-5") for id in batch.ids] for batch in whole]
    assert all(sum(batch) == 2 for batch in others)
    shown = [id for batch in whole for id in batch.ids]  # 30 of the ten pairs, 10 of the two
    assert {shown.count(id) for id in set(shown)} == {3, 5}
    loader = make_loader(**parts)
    for step in (4, 1):
        np.testing.assert_array_equal(loader.parts(loader.positions(step)), others[step])
        rows = [np.array([0, 3, 4]), np.array([1, 2, 5, 6, 7])]
        hosts = [make_loader(**parts, rows=own).batch(step) for own in rows]
        for own, host in zip(rows, hosts, strict=True):
            assert host.ids == [whole[step].ids[row] for row in own]
            np.testing.assert_array_equal(host.prompts.patches, whole[step].prompts.patches[own])
    assert [loader.first(part).id.startswith("drawn-5") for part in (0, 1)] == [False, True]


def test_an_unreadable_example_of_a_mixture_is_replaced_by_one_of_its_part(
    pairs_folder, tmp_path, make_loader, monkeypatch
):
    write_pairs(tmp_path / "more", {"train": [draw_pair(i, seed=5) for i in range(2)]})
    both = pairs_dataset([pairs_folder, tmp_path / "more"], max_bad_records=1)
    read = ExampleDataset.__getitem__

    def unreadable(self: ExampleDataset, index: int) -> Example:
        if index == NUM_TRAIN:
            raise BadRecord("damaged")
        return read(self, index)

    monkeypatch.setattr(ExampleDataset, "__getitem__", unreadable)
    loader = make_loader(dataset=both, parts=(PartData(NUM_TRAIN, 1), PartData(2, 1)), global_batch_size=8)
    assert collections.Counter(loader.batch(0).ids)["drawn-5-00001"] == 4


def test_the_cache_keeps_pairs_up_to_its_size(pairs_folder):
    pair_bytes = 2 * 128 * 128 * 3
    cached = pairs_dataset([pairs_folder], cache_bytes=2 * pair_bytes)
    first = [cached[i] for i in range(4)]
    assert [cached[i] is first[i] for i in range(4)] == [True, True, False, False]


def test_mismatched_pairs_differ_in_the_first_image_alone(pairs_folder, dataset):
    mismatched = pairs_dataset([pairs_folder], kind=MismatchedDataset)
    firsts = [dataset[i].images[0].tobytes() for i in range(len(dataset))]
    assert sorted(mismatched[i].images[0].tobytes() for i in range(len(dataset))) == sorted(firsts)
    for i in range(len(dataset)):
        assert mismatched[i].id == dataset[i].id
        assert mismatched[i].images[0].tobytes() != firsts[i]
        np.testing.assert_array_equal(mismatched[i].images[1], dataset[i].images[1])
        np.testing.assert_array_equal(mismatched[i].target.boxes, dataset[i].target.boxes)


def test_a_batch_holds_the_labels_and_the_answer(make_loader, tokenizer):
    batch = make_loader(global_batch_size=8).batch(0)
    for row, example in enumerate(batch.examples):
        pair = example.target
        count = len(pair.boxes)
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
    noise = pairs_task(**ALL, **{"sft.count_noise": 1.0, "sft.count_noise_boxes": 1})
    plain, noisy = make_loader(), make_loader(task=noise)
    for step in range(3):
        expected, batch = plain.batch(step), noisy.batch(step)
        assert [len(example.target.boxes) for example in batch.examples] == [
            len(example.target.boxes) for example in expected.examples
        ]
        np.testing.assert_array_equal(batch.cell_targets, expected.cell_targets)
        assert not (batch.answers == expected.answers).all(axis=1).any()
    assert_same(noisy.batch(1), make_loader(task=noise).batch(1))


def test_coordinates_of_false_boxes_are_not_learnt(make_encoder, tokenizer):
    answer = Demonstration("[[100,200,300,400],[500,500,700,700]]", unlearned=((2, 17),))
    batch = make_encoder()([asked(draw_pair(0))], ROOM, [answer])
    learnt = batch.answers[0][batch.answer_mask[0] > 0]
    assert tokenizer.decode(batch.answers[0]) == answer.text
    assert tokenizer.hf.decode(learnt) == "[[],[500,500,700,700]]<|im_end|>"


@pytest.mark.parametrize("image", [0, 1])
def test_cell_targets_lie_on_the_tokens_of_the_image_with_regions(make_encoder, tokenizer, image):
    quarter = np.array([[0.5, 0, 1, 0.5]], np.float32)  # the top right quarter of a 4x4 grid of tokens
    batch = make_encoder()([asked(draw_pair(0))], ROOM, [Demonstration("[]", regions={image: quarter})])
    slots = np.flatnonzero(batch.prompts.tokens[0] == tokenizer.image_token_id)[16 * image :][:16]
    np.testing.assert_array_equal(np.flatnonzero(batch.cell_mask[0]), slots)
    expected = np.zeros((4, 4))
    expected[:2, 2:] = 1
    np.testing.assert_array_equal(batch.cell_targets[0, slots].reshape(4, 4), expected)
    assert batch.cell_targets.sum() == 4


def test_images_stand_where_the_turns_have_them_and_turns_follow_each_other(make_encoder, tokenizer):
    image_a, image_b = asked(draw_pair(0)).images
    turns = (
        Turn("user", ("First", 1, "then", 0, "?")),
        Turn("assistant", ("Yes.",)),
        Turn("user", ("Why?",)),
    )
    example = Example("x", turns, (image_a, image_b[:64]), None, "any")
    encode = make_encoder()
    bucket = encode.need(example.shape).rounded()
    batch = encode([example], bucket)
    text = tokenizer.hf.decode(batch.prompts.tokens[0, : batch.prompts.length[0]])
    small, large = ("<|vision_start|>" + "<|image_pad|>" * count + "<|vision_end|>" for count in (8, 16))
    user = f"<|im_start|>user\nFirst{small}then{large}?<|im_end|>\n<|im_start|>assistant\nYes.<|im_end|>\n"
    assert text == f"{user}<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n"
    assert batch.prompts.length[0] == encode.need(example.shape).prompt_length
    first = preprocess(image_b[:64], encode.image_config)[0]
    np.testing.assert_array_equal(batch.prompts.patches[0, : len(first)], first)


def test_a_cell_counts_from_a_quarter_of_its_area_or_with_the_center_of_a_box():
    cells = covered_cells(np.array([[0.3, 0.5, 0.5, 0.75]]), (8, 8), 2)  # 0.8 of cell (2, 1), no other
    assert np.argwhere(cells).tolist() == [[2, 1]]
    cells = covered_cells(np.array([[0.19, 0.5, 0.5, 0.75]]), (8, 8), 2)  # and 0.24 of cell (2, 0)
    assert np.argwhere(cells).tolist() == [[2, 1]]
    cells = covered_cells(np.array([[0.1875, 0.5, 0.5, 0.75]]), (8, 8), 2)  # exactly a quarter of it
    assert np.argwhere(cells).tolist() == [[2, 0], [2, 1]]
    cells = covered_cells(np.array([[0.9, 0.1, 0.92, 0.12]]), (8, 4), 2)  # tiny: the cell of its center
    assert np.argwhere(cells).tolist() == [[0, 1]]
    assert not covered_cells(np.zeros((0, 4)), (8, 8), 2).any()


def test_smaller_images_fit_into_the_same_shapes(make_encoder):
    encode, answers = make_encoder(), [Demonstration("[]", regions={1: np.zeros((0, 4))})] * 2
    small = encode([asked(draw_pair(0, size=(64, 96))), asked(draw_pair(1))], ROOM, answers)
    large = encode([asked(draw_pair(0)), asked(draw_pair(1))], ROOM, answers)
    shapes = [{name: value.shape for name, value in arrays(batch).items()} for batch in (small, large)]
    assert shapes[0] == shapes[1]
    assert small.cell_mask.sum(axis=1).tolist() == [6, 16]


def test_what_does_not_fit_is_refused_with_the_pairs_name(make_encoder, pairs_folder):
    with pytest.raises(ValueError, match="drawn-0-00002: has 2 differences, max_boxes is 1"):
        pairs_task(**{"reward.max_boxes": 1}).open(pairs_folder, "train")[2]
    three = pairs_task().demonstrate(asked(draw_pair(0, num_differences=3)), np.random.default_rng(0))
    with pytest.raises(
        ValueError, match=r"drawn-0-00000: the answer takes 26 tokens, but max_answer_length is 20"
    ):
        make_encoder()([asked(draw_pair(0))], ROOM, [three])
    with pytest.raises(
        ValueError, match=r"drawn-0-00000: 2 images of 128x128 pixels need 47 tokens and 128 patches"
    ):
        make_encoder()([asked(draw_pair(0))], Bucket(prompt_length=48, num_patches=64))


def test_no_answers_are_made_where_none_are_wanted(make_encoder):
    batch = make_encoder(max_answer_length=0)([asked(draw_pair(0, num_differences=4))], ROOM)
    assert batch.answers.shape == batch.answer_mask.shape == (1, 0)
