"""Checkpoint files: read as the format's own library does, and refused with the reason where damaged."""

import json
import pickle
import shutil
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from etils import epath
from safetensors.numpy import load_file, save_file

from dig_jax.models.hf import safetensors_io
from dig_jax.models.hf.safetensors_io import INDEX_FILE, Spec, find_tensors, read_header, write_checkpoint

TENSORS = {
    "a": np.arange(6, dtype=np.float32).reshape(2, 3),
    "b": np.arange(5).astype(ml_dtypes.bfloat16),
    "c": np.zeros((0, 4), np.float16),
    "d": np.array(7, np.float32),
}


def write(folder: Path, tensors: dict[str, np.ndarray], max_shard_bytes: int = 10**9) -> epath.Path:
    folder.mkdir()
    specs = [Spec(name, array.dtype, array.shape) for name, array in tensors.items()]
    write_checkpoint(epath.Path(folder), specs, tensors.values(), max_shard_bytes)
    return epath.Path(folder)


def read(folder: epath.Path) -> dict[str, np.ndarray]:
    return {
        name: entry.read(0, int(np.prod(entry.shape))).reshape(entry.shape)
        for name, entry in find_tensors(folder).items()
    }


def assert_same(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> None:
    assert ours.keys() == theirs.keys()
    for name, array in theirs.items():
        assert ours[name].dtype == array.dtype, name
        np.testing.assert_array_equal(ours[name], array, err_msg=name)


@pytest.mark.parametrize("max_shard_bytes", [10**9, 25, 1])
def test_what_is_written_reads_back(tmp_path, max_shard_bytes):
    folder = write(tmp_path / "folder", TENSORS, max_shard_bytes)
    assert_same(read(folder), TENSORS)
    assert (folder / INDEX_FILE).exists() == (max_shard_bytes < 10**9)


def test_the_formats_own_library_reads_what_we_write(tmp_path):
    write(tmp_path / "folder", TENSORS)
    assert_same(load_file(tmp_path / "folder" / "model.safetensors"), TENSORS)


def test_we_read_what_the_formats_own_library_writes(tmp_path):
    save_file(TENSORS, tmp_path / "model.safetensors", metadata={"who": "library"})
    assert_same(read(epath.Path(tmp_path)), TENSORS)


def test_a_part_of_a_tensor_is_read_alone(tmp_path):
    save_file(TENSORS, tmp_path / "model.safetensors")
    entry = read_header(epath.Path(tmp_path / "model.safetensors"))["a"]
    assert entry.read(2, 3).tolist() == [2.0, 3.0, 4.0]


def test_a_bucket_is_read_and_written_like_a_disk(bucket):
    folder = epath.Path(bucket) / "folder"
    folder.mkdir(parents=True)
    specs = [Spec(name, array.dtype, array.shape) for name, array in TENSORS.items()]
    write_checkpoint(folder, specs, TENSORS.values(), max_shard_bytes=25)
    assert_same(read(folder), TENSORS)


def test_a_file_holds_at_least_one_tensor_and_at_most_the_limit():
    specs = [Spec(str(size), np.dtype(np.float32), (size // 4,)) for size in (8, 8, 4, 40, 4, 16)]
    shards = safetensors_io.split_shards(specs, 20)
    assert [[spec.nbytes for spec in shard] for shard in shards] == [[8, 8, 4], [40], [4, 16]]
    with pytest.raises(ValueError, match="max_shard_bytes is 0, expected at least 1"):
        safetensors_io.split_shards(specs, 0)


def test_an_array_that_is_not_as_announced_is_not_written(tmp_path):
    with pytest.raises(ValueError, match=r"a is float32 \(3,\), announced as Spec\(name='a'"):
        safetensors_io.write_file(
            epath.Path(tmp_path / "file"), [Spec("a", np.dtype(np.float32), (2,))], [np.zeros(3, np.float32)]
        )


def spoil(folder: Path, change) -> epath.Path:
    """model.safetensors of TENSORS with its header and data changed: change(header) -> header or bytes."""
    save_file(TENSORS, folder / "model.safetensors")
    content = (folder / "model.safetensors").read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = change(json.loads(content[8 : 8 + length]))
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(
        len(header).to_bytes(8, "little") + header + content[8 + length :]
    )
    return epath.Path(folder)


def renamed(header, change):
    return {name: {**value, **change} if name == "a" else value for name, value in header.items()}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda header: b"{", "has a damaged header"),
        (lambda header: b"[1]", "has a damaged header"),
        (lambda header: b'{"a": 1}', "has a damaged header"),
        (lambda header: b"[" * 100_000, "has a damaged header"),
        (lambda header: b'{"a": {}, "a": {}}', "has a damaged header: 'a' stands in it twice"),
        (lambda header: renamed(header, {"shape": [2, 4]}), r"F32 \[2, 4\] does not fit in bytes 0\.\.24"),
        (lambda header: renamed(header, {"shape": [-2, -3]}), "must be whole numbers, 0 or more"),
        (lambda header: renamed(header, {"data_offsets": [4, 28]}), "a gap or an overlap at byte 0"),
        (lambda header: {"a": header["a"]}, "is damaged: 38 bytes of data, but the header says 24"),
    ],
)
def test_a_damaged_header_is_refused(tmp_path, change, reason):
    with pytest.raises(ValueError, match=reason) as error:
        find_tensors(spoil(tmp_path, change))
    assert "model.safetensors" in str(error.value)


@pytest.mark.parametrize("left", [0, 5, 100, -1])
def test_a_file_that_was_cut_short_is_called_truncated(tmp_path, left):
    save_file(TENSORS, tmp_path / "model.safetensors")
    content = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(content[:left])
    with pytest.raises(ValueError, match="model.safetensors is truncated"):
        find_tensors(epath.Path(tmp_path))


def test_other_files_under_this_name_are_told_apart(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(ValueError, match="is a Git LFS pointer, not the file itself"):
        find_tensors(epath.Path(tmp_path))
    path.write_bytes(b"\x80\x02}q\x00(X\x01" * 100)
    with pytest.raises(ValueError, match="is not a safetensors file"):
        find_tensors(epath.Path(tmp_path))


def test_pickled_weights_are_refused_unread(tmp_path):
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "it ran",))

    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(ValueError, match=r"Python pickles \(pytorch_model.bin\).* only safetensors are read"):
        find_tensors(epath.Path(tmp_path))
    assert not (tmp_path / "it ran").exists()


@pytest.fixture
def sharded(tmp_path) -> epath.Path:
    """TENSORS in files of one tensor each: a in the first, b in the second, and so on."""
    return write(tmp_path / "sharded", TENSORS, max_shard_bytes=1)


def change_index(folder: epath.Path, change) -> None:
    index = json.loads((folder / INDEX_FILE).read_text())
    change(index["weight_map"])
    (folder / INDEX_FILE).write_text(json.dumps(index))


def test_an_index_and_its_files_must_agree_and_all_is_told_at_once(sharded):
    def change(weight_map):
        weight_map["b"] = weight_map["a"]
        weight_map["x"] = weight_map["c"]

    shutil.copy(sharded / "model-00001-of-00004.safetensors", sharded / "again.safetensors")
    change_index(sharded, change)
    change_index(sharded, lambda weight_map: weight_map.update(y="again.safetensors", z=weight_map["d"]))
    # The second file is in no entry now, so b is nowhere.
    with pytest.raises(ValueError) as error:
        find_tensors(sharded)
    assert str(error.value).splitlines() == [
        f"{sharded / INDEX_FILE} does not fit the files it lists",
        "  a is in again.safetensors, not in model-00001-of-00004.safetensors",
        "  a is in two files, again.safetensors and model-00001-of-00004.safetensors",
        "  b is not in model-00001-of-00004.safetensors",
        "  x is not in model-00003-of-00004.safetensors",
        "  y is not in again.safetensors",
        "  z is not in model-00004-of-00004.safetensors",
    ]


def test_files_that_an_index_lists_and_that_are_absent_are_named(sharded):
    (sharded / "model-00002-of-00004.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="names files that are not there: model-00002-of-00004"):
        find_tensors(sharded)


@pytest.mark.parametrize("name", ["../x.safetensors", "/x.safetensors", "..\\x.safetensors", "x.bin", 3])
def test_an_index_cannot_reach_outside_its_folder(sharded, name):
    change_index(sharded, lambda weight_map: weight_map.update(a=name))
    with pytest.raises(ValueError, match="is not the name of a safetensors file in the same folder") as error:
        find_tensors(sharded)
    assert INDEX_FILE in str(error.value)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"weight_map": []}', '{"weight_map": null}'])
def test_an_index_that_is_none_is_named(sharded, text):
    (sharded / INDEX_FILE).write_text(text)
    with pytest.raises(ValueError, match=f"{INDEX_FILE} is not an index of safetensors files"):
        find_tensors(sharded)


@pytest.mark.parametrize("listed", ["itself", "absent shards", "nonsense", "nothing"])
def test_one_whole_file_counts_and_not_an_index_beside_it_as_in_transformers(tmp_path, caplog, listed):
    save_file(TENSORS, tmp_path / "model.safetensors")
    file = "model.safetensors" if listed == "itself" else "model-00001-of-00002.safetensors"
    index = {"weight_map": dict.fromkeys(() if listed == "nothing" else TENSORS, file)}
    (tmp_path / INDEX_FILE).write_text(json.dumps(index if listed != "nonsense" else [1]))
    assert find_tensors(epath.Path(tmp_path)).keys() == TENSORS.keys()
    assert not caplog.text


def test_of_two_sets_of_weights_the_one_file_is_read_with_a_warning(sharded, caplog):
    save_file({"a": np.zeros(3, np.float32)}, sharded / "model.safetensors")
    assert find_tensors(sharded).keys() == {"a"}
    assert "has two sets of weights: model.safetensors is read" in caplog.text


def test_an_index_may_list_the_file_that_is_otherwise_alone(sharded):
    """Such as vision weights in a file of their own."""
    names = find_tensors(sharded).keys()
    first = min(path.name for path in sharded.glob("model-*"))
    (sharded / first).rename(sharded / "model.safetensors")
    change_index(
        sharded,
        lambda weight_map: weight_map.update(
            {name: "model.safetensors" for name, file in weight_map.items() if file == first}
        ),
    )
    assert find_tensors(sharded).keys() == names
