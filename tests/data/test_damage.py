"""A damaged dataset: a clear error, or pairs that are left out and counted; never a silent gap."""

import logging
import os
import pathlib

import pytest

from dig_jax.data.encode import ExampleEncoder
from dig_jax.data.images import ImageConfig
from dig_jax.data.loader import ExampleLoader
from dig_jax.data.records import BadRecord
from dig_jax.models.families import load_config
from tests.helpers.drawn_pairs import draw_pair, write_pairs
from tests.helpers.tasks import pairs_dataset

PAIRS = 12


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    write_pairs(tmp_path / "pairs", {"train": [draw_pair(i) for i in range(PAIRS)]})
    return tmp_path / "pairs"


def shard(folder: pathlib.Path) -> pathlib.Path:
    (path,) = (path for path in folder.rglob("*.array_record*"))
    return path


def zero_block(path: pathlib.Path) -> None:
    """Some kilobytes that a bad sector turned to zero."""
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 3)
        file.write(bytes(4000))


@pytest.fixture
def make_loader(scratch_folder, tokenizer):
    def make(folder: pathlib.Path, max_bad_records: int) -> ExampleLoader:
        dataset = pairs_dataset([folder], max_bad_records=max_bad_records, cache_bytes=0)
        encoder = ExampleEncoder(
            tokenizer,
            ImageConfig.from_folder(scratch_folder),
            load_config(scratch_folder),
            max_answer_length=20,
        )
        settings = {"bucket_pixels": (), "global_batch_size": PAIRS, "seed": 0, "group_sizes": False}
        return ExampleLoader(dataset, encoder, shuffle=True, **settings)

    return make


def test_an_unreadable_pair_ends_the_run_unless_it_may_be_left_out(folder, make_loader):
    zero_block(shard(folder))
    with pytest.raises(BadRecord, match=r"pairs.*, split 'train', pair \d+: .*max_bad_records is 0: restore"):
        make_loader(folder, 0).batch(0)


def test_an_allowed_unreadable_pair_is_replaced_by_the_next_and_counted_once(folder, make_loader, caplog):
    whole = make_loader(folder, 0).batch(0).ids
    zero_block(shard(folder))
    loader = make_loader(folder, 4)
    caplog.set_level(logging.WARNING, logger="dig_jax")
    ids = loader.batch(0).ids
    bad = set(whole) - set(ids)
    assert bad and len(ids) == PAIRS
    assert all(now == before for now, before in zip(ids, whole, strict=True) if before not in bad)
    loader.batch(1)  # the next epoch meets them again
    assert caplog.text.count("Left out") == len(bad)
    assert loader.batch(0).ids == ids  # whatever was read before


@pytest.mark.parametrize("damage", ["vanished", "truncated", "empty"])
def test_a_shard_that_is_gone_is_an_error(damage, folder, make_loader):
    path = shard(folder)
    if damage == "vanished":
        path.unlink()
    else:
        os.truncate(path, 0 if damage == "empty" else path.stat().st_size // 2)
    with pytest.raises(BadRecord, match="pairs, split 'train', pair 0: "):
        make_loader(folder, 3).batch(0)
