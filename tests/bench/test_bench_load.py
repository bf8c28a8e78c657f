"""What loading a checkpoint costs the host in memory, as `python -m bench.load_checkpoint` measures it."""

from pathlib import Path

import pytest

from bench.load_checkpoint import LIMIT, can_measure, measure
from bench.random_model import config_of, write_random_model

if not can_measure():
    pytest.skip("memory is measured through /proc", allow_module_level=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """A model of 215 million parameters, 429 MB in files of 100 MB, and the bytes of its largest tensor."""
    folder = tmp_path_factory.mktemp("random") / "model"
    specs = write_random_model(folder, config_of("215M"), max_shard_bytes=10**8)
    assert len(list(folder.glob("*.safetensors"))) >= 5
    return folder, max(spec.nbytes for spec in specs)


@pytest.mark.slow
def test_loading_onto_a_mesh_holds_the_shards_and_little_more(folder):
    path, largest = folder
    ours, whole_files = measure(path, "dig_jax", devices=8), measure(path, "load_file")
    assert ours.fingerprint == whole_files.fingerprint
    assert ours.own_bytes == whole_files.own_bytes > 4 * largest
    assert ours.beyond_own < LIMIT * largest
    assert ours.peak_file < largest / 4  # nothing is mapped
    # The same measurement tells a loader that reads whole files.
    assert whole_files.beyond_own > LIMIT * largest


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 8])
def test_saving_holds_one_tensor(folder, devices):
    path, largest = folder
    assert measure(path, "save", devices).beyond_own < 1.3 * largest + 60e6  # programs are compiled meanwhile
