"""A folder appears whole or not at all, on a disk and in a bucket."""

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import fsspec
import pytest
from etils import epath
from etils.epath import backend

from dig_jax.machines.folder import (
    LiteralPath,
    local_copy,
    matching,
    move_folder,
    to_path,
    whole_folder,
    writable_file,
    write_result,
)
from tests.helpers.fake_bucket import FakeBuckets
from tests.helpers.fake_gcs import FakeGCS


def write(out: epath.PathLike, text: str = "whole") -> None:
    with whole_folder(epath.Path(out)) as folder:
        (folder / "config.json").write_text(text)
        (folder / "weights").write_text(text)


def files(folder: Path) -> dict[str, str]:
    """Everything below a folder, by its path."""
    return {str(p.relative_to(folder)): p.read_text() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(params=["disk", "bucket"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path]:
    """Where folders are made, as the commands name it and as the disk has it; nothing else is there."""
    if request.param == "disk":
        return str(tmp_path / "parent"), tmp_path / "parent"
    return request.getfixturevalue("bucket"), tmp_path / "bucket"


def test_the_folder_appears_at_the_end_with_all_its_files(place):
    name, disk = place
    with whole_folder(epath.Path(name) / "out") as folder:
        (folder / "config.json").write_text("{}")
        assert not (disk / "out").exists()
    assert files(disk) == {"out/config.json": "{}"}


def test_an_error_leaves_nothing_behind(place):
    name, disk = place
    with pytest.raises(OSError, match="disk full"), whole_folder(epath.Path(name) / "out") as folder:
        (folder / "weights").write_text("half")
        raise OSError("disk full")
    assert not files(disk)
    write(f"{name}/out")


def test_a_folder_with_something_in_it_is_left_alone(place):
    name, disk = place
    (disk / "out").mkdir(parents=True)
    (disk / "out" / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="out exists and is not empty; remove it"):
        write(f"{name}/out")
    assert files(disk) == {"out/notes.txt": "mine"}


def test_an_empty_folder_is_filled(place):
    name, disk = place
    (disk / "out").mkdir(parents=True)
    write(f"{name}/out")
    assert files(disk / "out") == {"config.json": "whole", "weights": "whole"}


KILLED = """
import os, signal, sys
from etils import epath
from etils.epath import backend
from dig_jax.machines.folder import whole_folder
with whole_folder(epath.Path(sys.argv[1])) as folder:
    (folder / "config.json").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path):
    killed = subprocess.run([sys.executable, "-c", KILLED, tmp_path / "out"])
    assert killed.returncode == -9
    assert not (tmp_path / "out").exists()
    assert files(tmp_path)[".out.incomplete/config.json"] == "half"
    write(tmp_path / "out")
    assert files(tmp_path) == {"out/config.json": "whole", "out/weights": "whole"}


def test_two_processes_cannot_write_the_same_folder(tmp_path):
    with (tmp_path / ".out.lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(FileExistsError, match="another process is writing .*out; wait for it"):
            write(tmp_path / "out")
    write(tmp_path / "out")  # the other one is gone


@pytest.fixture
def stopped_at_the_second_file(bucket, monkeypatch):
    """Moves inside the bucket end with a KeyboardInterrupt after the first one; undo by `.undo()`."""
    move, moved = FakeBuckets.mv, []

    def mv(self, path, target, **options):
        if moved:
            raise KeyboardInterrupt
        moved.append(path)
        return move(self, path, target, **options)

    monkeypatch.setattr(FakeBuckets, "mv", mv)
    return monkeypatch


def test_a_move_inside_a_bucket_that_is_interrupted_is_taken_back(
    bucket, tmp_path, stopped_at_the_second_file
):
    with pytest.raises(KeyboardInterrupt):
        write(f"{bucket}/out")
    assert not files(tmp_path / "bucket")


def test_a_move_inside_a_bucket_that_was_killed_looks_like_no_model_and_is_made_good(
    bucket, tmp_path, stopped_at_the_second_file
):
    for tidy_up in ("rmtree", "unlink"):  # the dead do not
        stopped_at_the_second_file.setattr(type(epath.Path(bucket)), tidy_up, lambda *args, **kwargs: None)
    with pytest.raises(KeyboardInterrupt):
        write(f"{bucket}/out", "half")
    stopped_at_the_second_file.undo()
    assert files(tmp_path / "bucket" / "out") == {"weights": "half"}

    (tmp_path / "bucket" / "out" / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="out exists and is not empty"):
        write(f"{bucket}/out")
    assert files(tmp_path / "bucket" / "out") == {"notes.txt": "mine"}

    (tmp_path / "bucket" / "out" / "notes.txt").unlink()
    write(f"{bucket}/out")
    assert files(tmp_path / "bucket") == {"out/config.json": "whole", "out/weights": "whole"}


def test_the_client_of_real_buckets_makes_and_moves_folders(monkeypatch):
    """There a folder is nothing but the names of its files: before the first one there is none."""
    gcsfs = pytest.importorskip("gcsfs", reason="needs the gcs extra")
    server = FakeGCS()
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    for protocol in ("gcs", "gs"):
        fsspec.register_implementation(protocol, gcsfs.GCSFileSystem, clobber=True)
    gcsfs.GCSFileSystem.clear_instance_cache()
    backend.fsspec_backend._get_filesystem.cache_clear()
    write("gs://bucket/out")
    assert server.objects.keys() == {"out/config.json", "out/weights"}
    (epath.Path("gs://bucket/out") / "below" / "notes").write_text("mine")
    move_folder(epath.Path("gs://bucket/out"), epath.Path("gs://bucket/damaged/out"))
    names = ("below/notes", "config.json", "weights")
    assert sorted(server.objects) == [f"damaged/out/{name}" for name in names]


def test_files_of_a_bucket_are_copied_for_libraries_that_read_the_disk_alone(bucket):
    write(f"{bucket}/out")
    with local_copy(epath.Path(bucket) / "out", ("*.json", "*.txt")) as folder:
        assert files(Path(folder)) == {"config.json": "whole"}
    assert not folder.exists()


def test_a_local_folder_is_read_where_it_is(tmp_path):
    with local_copy(epath.Path(tmp_path), ("*",)) as folder:
        assert Path(folder) == tmp_path


def test_a_bucket_that_nothing_installed_can_read_is_an_error_that_says_what_to_install(monkeypatch):
    def missing(*args, **kwargs):
        raise ImportError("Please install gcsfs")

    monkeypatch.setattr(backend.fsspec_backend, "_get_filesystem", missing)
    with pytest.raises(ValueError, match=r"^gs://a/b: Please install gcsfs \(for gs://: pip install"):
        to_path("gs://a/b")


def test_the_home_folder_is_found_where_the_shell_left_it(monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    assert str(to_path("~/model")) == "/home/someone/model"


def test_brackets_and_stars_of_a_folder_are_no_pattern(place):
    name, _ = place
    folder = epath.Path(name) / "a[1]*"
    for file in ("b.json", "c.txt", "b.bin"):
        (folder / "inner").mkdir(parents=True, exist_ok=True)
        (folder / "inner" / file).write_text(file)
    assert [path.name for path in matching(folder / "inner", "*.json", "c*")] == ["b.json", "c.txt"]
    assert matching(folder / "nowhere", "*") == []
    assert [path.name for path in LiteralPath(folder).glob("in*/b.*")] == ["b.bin", "b.json"]
    with local_copy(folder / "inner", ("*.json",)) as local:
        assert (local / "b.json").read_text() == "b.json"


def test_only_a_tilde_that_names_a_home_folder_is_expanded(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")
    names = ["~", "~/x", "~nobody_of_that_name/x", "a~/x", "gs://b/~/x"]
    paths = ["/home/ada", "/home/ada/x", "~nobody_of_that_name/x", "a~/x", "gs://b/~/x"]
    monkeypatch.setattr(epath.Path, "exists", lambda path: False)  # no bucket is asked
    assert [str(to_path(name)) for name in names] == paths


def test_a_file_to_be_written_later_gets_its_folder_now(place):
    name, disk = place
    path = writable_file(f"{name}/new/folder/x.json", "--out")
    assert list((disk / "new" / "folder").iterdir()) == []
    path.write_text("x")
    with pytest.raises(ValueError, match=r"--out=.*/new is a folder"):
        writable_file(f"{name}/new", "--out")


def test_a_file_that_cannot_be_written_is_named_with_its_flag(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=rf"--out={tmp_path}/file/x.json: nothing can be written"):
        writable_file(tmp_path / "file" / "x.json", "--out")
    with pytest.raises(ValueError, match="--out=.*nothing can be written in .*name too long"):
        writable_file(tmp_path / ("x" * 300), "--out")


def test_a_result_goes_through_links_and_to_devices_and_never_replaces_them(tmp_path):
    for name, target in (("link", tmp_path / "kept.json"), ("dangling", tmp_path / "new" / "x.json")):
        (tmp_path / name).symlink_to(target)
        write_result(writable_file(tmp_path / name, "--out"), name)
        assert (tmp_path / name).is_symlink() and target.read_text() == name
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = subprocess.Popen(["cat", pipe], stdout=subprocess.PIPE, text=True)
    write_result(writable_file(pipe, "--out"), "piped")
    assert reader.communicate()[0] == "piped" and pipe.is_fifo()


def test_a_result_that_cannot_be_written_is_named():
    with pytest.raises(OSError, match="/dev/full cannot be written: No space left on device"):
        write_result(writable_file("/dev/full", "--out"), "x" * 100_000)
