"""What can be wrong with a command line, a machine or a folder is told in words, and leaves no dataset."""

import dataclasses
import errno
import json
import os
import shutil
import subprocess
import sys

import pytest

from data_gen.__main__ import main
from data_gen.files import staging as stagings
from data_gen.order.options import parse_arguments
from data_gen.render.interpreter import NoBlender, find_blender
from data_gen.scenes.presets import PRESETS, parse_differences
from tests.data_gen.conftest import SMALL


@pytest.fixture
def order(fake_blender, tmp_path):
    """A small order without an --out."""
    return [*SMALL, f"--blender_python={fake_blender}", "--workers=1"]


def test_every_path_of_the_command_line_may_begin_in_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    names = ("out", "scenes", "assets", "kind_file", "blender", "blender_python")
    args = parse_arguments([*SMALL, *(f"--{name}=~/{name}" for name in names)])
    assert all(str(getattr(args, name)) == str(tmp_path / name) for name in names)
    assert str(parse_arguments([*SMALL, "--out=~nobody_of_that_name/x"]).out) == "~nobody_of_that_name/x"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--differences=5"], "--differences=5: expected counts up to 4"),
        (["--differences=1:x"], "--differences=1:x"),
        (["--resolution=big"], "--resolution=big: expected pixels"),
        (["--resolution=90000"], "of at most 8192 a side"),
        (["--kinds=color,colour"], "unknown kind of change 'colour'; known: color, material"),
        (["--kinds=color,color"], "a kind is named twice"),
        (["--shard_index=3", "--num_shards=3"], "shards count from 0 to num_shards - 1 = 2"),
        (["--num_shards=3"], "needs --shard_index"),
        (["--blender=x", "--blender_python=y"], "name one of them"),
        (["--num_pairs=0", "--test_pairs=0"], "nothing to make"),
        (
            ["--out=gs://bucket/pairs"],
            "--out=gs://bucket/pairs: pairs are rendered to a disk of this machine",
        ),
    ],
)
def test_a_bad_value_is_named(flags, message, tmp_path, capsys):
    assert main([*SMALL, f"--out={tmp_path / 'x'}", *flags]) == 2
    assert message in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    "flag", ["--num_pairs=-1", "--workers=0", "--time_limit=0", "--time_limit=soon", "--prese=x"]
)
def test_a_value_of_the_wrong_form_is_refused_before_anything_starts(flag, capsys):
    with pytest.raises(SystemExit) as exit_:
        main([*SMALL, "--out=x", flag])
    assert exit_.value.code == 2 and flag.split("=")[0] in capsys.readouterr().err


def test_an_unknown_preset_lists_the_known_ones(capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["--preset=huge", "--num_pairs=1", "--out=x"])
    assert exit_.value.code == 2
    message = capsys.readouterr().err
    assert all(name in message for name in PRESETS)


def test_numbers_of_differences_are_weights():
    assert parse_differences("2") == (0.0, 0.0, 1.0)
    assert parse_differences("0-3") == (1.0, 1.0, 1.0, 1.0)
    assert parse_differences("0:0.1,2:0.9") == (0.1, 0.0, 0.9)


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        ("ModuleNotFoundError: No module named 'bpy'", "make setup-render"),
        (
            "ImportError: libSM.so.6: cannot open shared object file",
            r"missing \(libsm6\).*apt-get install .*libsm6",
        ),
        (
            "ImportError: libxkbcommon.so.0: cannot open shared object file: No such file",
            r"missing \(libxkbcommon0\)",
        ),
    ],
)
def test_an_interpreter_without_blender_is_an_error_that_says_what_to_do(error, advice, tmp_path):
    python = program(tmp_path, f'echo "{error}" >&2; exit 1')
    with pytest.raises(NoBlender, match=f"(?s){error}.*{advice}"):
        find_blender(str(python))


def test_an_installed_blender_without_its_libraries_names_the_packages(tmp_path):
    error = "error while loading shared libraries: libSM.so.6: cannot open shared object file"
    blender = program(tmp_path, f'echo "{error}" >&2; exit 127')
    with pytest.raises(NoBlender, match=r"(?s)--blender=.*libSM.*apt-get install .*libsm6"):
        find_blender(blender=str(blender))


@pytest.mark.parametrize("version", ["2.93.18", "3.4.1", "4.1.1", "9.0.0"])
def test_a_blender_of_another_age_is_refused(version, tmp_path):
    with pytest.raises(NoBlender, match=rf"is Blender {version}; data_gen needs 4.2 or later"):
        find_blender(blender=str(program(tmp_path, f"echo Blender {version}")))
    with pytest.raises(NoBlender, match=rf"is Blender {version}; data_gen needs 4.2 or later"):
        find_blender(python=str(program(tmp_path, f"echo {version}")))


def test_a_program_that_is_no_blender_is_refused(tmp_path):
    with pytest.raises(NoBlender, match="it is no Blender: --version printed 'GIMP 3.0'"):
        find_blender(blender=str(program(tmp_path, "echo GIMP 3.0")))


def test_a_missing_program_is_named(tmp_path):
    with pytest.raises(NoBlender, match="/no/python: no such file"):
        find_blender("/no/python")
    with pytest.raises(NoBlender, match="--blender=/no/blender: no such file"):
        find_blender(blender="/no/blender")
    (tmp_path / "text").write_text("I am no program")
    with pytest.raises(NoBlender, match="not a program that may be run"):
        find_blender(blender=str(tmp_path / "text"))


def program(folder, script):
    path = folder / "program"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def test_a_folder_of_something_else_is_refused(order, tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("mine")
    assert main([*order, f"--out={tmp_path}"]) == 2
    assert "is not a dataset made by data_gen" in capsys.readouterr().err


def test_another_dataset_is_never_overwritten_and_a_complete_one_not_made_again(order, tmp_path, capsys):
    out = f"--out={tmp_path / 'set'}"
    assert main([*order, out]) == 0
    assert main([*order, out]) == 0
    assert "is complete: 3 train and 2 test pairs" in capsys.readouterr().out
    assert main([*order, "--seed=12", out]) == 2
    assert "holds another dataset (seed: 11 there, 12 here)" in capsys.readouterr().err


def test_staged_pairs_of_another_dataset_are_refused(order, tmp_path, capsys):
    out = f"--out={tmp_path / 'set'}"
    assert main([*order, out, "--stage=plan"]) == 0
    assert main([*order, out, "--resolution=96"]) == 2
    assert "width: 64 there, 96 here" in capsys.readouterr().err


def test_pairs_of_two_blender_versions_are_never_mixed(order, fake_blender, tmp_path, capsys):
    out = f"--out={tmp_path / 'set'}"
    assert main([*order, out, "--stage=plan"]) == 0
    assert main([*order, out, "--stage=render", "--num_pairs=1", "--max_skipped=9"]) == 0
    other = program(tmp_path, f'[ "$1" = -c ] && echo 5.0.1 && exit; exec {fake_blender} "$@"')
    assert main([*order, out, f"--blender_python={other}"]) == 2
    assert "blender: 4.5.15 LTS there, 5.0.1 here" in capsys.readouterr().err


def test_objects_that_do_not_fit_are_told_before_anything_is_rendered(order, tmp_path, capsys, monkeypatch):
    huge = dataclasses.replace(PRESETS["tiny"], sizes={"small": 9.0, "large": 12.0})
    monkeypatch.setitem(PRESETS, "tiny", huge)
    assert main([*order, f"--out={tmp_path / 'set'}", "--num_pairs=0", "--test_pairs=1"]) == 1
    message = capsys.readouterr().err
    assert "tiny-11-test-000000 cannot be planned" in message
    assert "objects do not fit 10x" in message and "ask for fewer objects or smaller ones" in message
    assert not (tmp_path / "set").exists()


def test_a_folder_that_may_not_be_written_is_an_error(order, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main([*order, f"--out={tmp_path / 'file' / 'set'}"]) == 1
    message = capsys.readouterr().err
    assert "file" in message and "the same command goes on" in message and "Traceback" not in message


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_an_error(order, tmp_path, capsys):
    (tmp_path / "locked").mkdir(mode=0o500)
    assert main([*order, f"--out={tmp_path / 'locked' / 'set'}"]) == 1
    assert "Permission denied" in capsys.readouterr().err


def test_a_disk_that_fills_up_keeps_the_finished_pairs(order, tmp_path, capsys, monkeypatch):
    out, write, written = tmp_path / "set", stagings.write_file, []

    def write_until_full(path, data):
        if path.suffix == ".png" and len(written) >= 5:  # in the middle of the third pair
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        written.extend([path] if path.suffix == ".png" else [])
        write(path, data)

    monkeypatch.setattr(stagings, "write_file", write_until_full)
    assert main([*order, f"--out={out}"]) == 1
    message = capsys.readouterr().err
    assert "No space left on device" in message and "free some" in message and "Traceback" not in message
    assert not out.exists()
    monkeypatch.undo()
    assert main([*order, f"--out={out}"]) == 0
    assert "2 are rendered already" in capsys.readouterr().err


def test_a_dataset_larger_than_the_disk_is_refused_before_it_is_rendered(
    order, tmp_path, capsys, monkeypatch
):
    usage = shutil.disk_usage(tmp_path)._replace(free=70_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    assert main([*order, f"--out={tmp_path / 'set'}", "--num_pairs=1000"]) == 1
    assert "1002 pairs take about" in capsys.readouterr().err


def test_two_runs_into_one_folder_refuse_each_other(order, tmp_path, capsys):
    out = tmp_path / "set"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(out) + ".staging"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert holder.stdout.readline() == b"held\n"
        assert main([*order, f"--out={out}"]) == 2
        message = capsys.readouterr().err
        assert "set.staging is in use (process " in message and "name another --out" in message
        assert main([*order, f"--out={out}", "--shard_index=1", "--num_shards=2"]) == 2
    finally:
        holder.kill()  # the lock ends with its process, however it ends
        holder.wait()
    assert main([*order, f"--out={out}"]) == 0


HOLD = """
import sys
from pathlib import Path
from data_gen.files.staging import Staging
with Staging(Path(sys.argv[1]), {}).locked():
    (Path(sys.argv[1]) / "shard-00000-of-00001" / "spec.json").unlink()
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_plan_that_was_tampered_with_is_named(order, tmp_path, capsys):
    out = tmp_path / "set"
    assert main([*order, f"--out={out}", "--stage=plan"]) == 0
    (path,) = tmp_path.glob("set.staging/shard-*/plan.jsonl")
    lines = path.read_text().splitlines(keepends=True)
    line = json.loads(lines[1])
    del line["scene_a"]["objects"][0]["shape"]
    path.write_text(lines[0] + json.dumps(line) + "\n" + "".join(lines[2:]))
    assert main([*order, f"--out={out}", "--stage=render"]) == 2
    assert "plan.jsonl, line 2: not a planned pair" in capsys.readouterr().err


def test_rendering_without_a_plan_is_an_error(order, tmp_path, capsys):
    assert main([*order, f"--out={tmp_path / 'set'}", "--stage=render"]) == 2
    assert "run --stage=plan" in capsys.readouterr().err


def test_packing_nothing_is_an_error(order, tmp_path, capsys):
    assert main([*order, f"--out={tmp_path / 'set'}", "--stage=pack"]) == 1
    assert "nothing was rendered" in capsys.readouterr().err
