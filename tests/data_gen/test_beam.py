"""The Beam pipeline, on the direct runner, stages what a plain run makes."""

import json
import subprocess
import sys
from importlib.util import find_spec

import pytest

from data_gen.__main__ import main
from tests.data_gen.conftest import SMALL, assert_same_datasets
from tests.helpers.paths import ROOT

BEAM_PYTHON = ROOT / ".venv-beam" / "bin" / "python"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not BEAM_PYTHON.exists() and not find_spec("apache_beam"), reason="needs `make setup-beam`"
    ),
]


@pytest.fixture
def order(fake_blender):
    return [*SMALL, "--num_pairs=7", f"--blender_python={fake_blender}"]


def run_beam(order, out, *flags):
    python = BEAM_PYTHON if BEAM_PYTHON.exists() else sys.executable
    command = [python, "-m", "data_gen.beam", *order, f"--out={out}", "--runner=DirectRunner", *flags]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.mark.parametrize("mode", ["in_memory", "multi_threading", "multi_processing"])
def test_a_pipeline_stages_the_pairs_of_a_plain_run(mode, order, tmp_path):
    assert main([*order, f"--out={tmp_path / 'plain'}"]) == 0
    result = run_beam(order, tmp_path / "beam", f"--direct_running_mode={mode}", "--direct_num_workers=2")
    assert result.returncode == 0, result.stderr
    assert "9 of 9 pairs are in" in result.stdout
    assert main([*order, f"--out={tmp_path / 'beam'}", "--stage=pack"]) == 0
    assert_same_datasets(tmp_path / "plain", tmp_path / "beam")


def test_a_pipeline_goes_on_where_a_plain_run_stopped(order, tmp_path, monkeypatch):
    log = tmp_path / "log"
    log.touch()
    assert main([*order, f"--out={tmp_path / 'set'}", "--num_pairs=4", "--stage=plan"]) == 0
    assert main([*order, f"--out={tmp_path / 'set'}", "--num_pairs=4", "--stage=render"]) == 0
    monkeypatch.setenv("FAKE_WORKER", json.dumps({"log": str(log)}))
    assert run_beam(order, tmp_path / "set").returncode == 0
    rendered = {line.split()[1] for line in log.read_text().splitlines() if line.startswith("picture")}
    assert rendered == {f"tiny-11-train-00000{index}" for index in (4, 5, 6)}


def test_a_pair_that_kills_every_worker_is_skipped_and_reported(order, tmp_path, monkeypatch):
    log = tmp_path / "log"
    log.touch()
    monkeypatch.setenv("FAKE_WORKER", json.dumps({"log": str(log), "die": "train-000003"}))
    result = run_beam(order, tmp_path / "set")
    assert result.returncode == 1 and "8 of 9 pairs are in" in result.stdout
    (skipped,) = tmp_path.glob("set.staging/shard-*/skipped.jsonl")
    line = json.loads(skipped.read_text())
    assert (line["seed"], line["split"], line["index"]) == (11, "train", 3)
    assert log.read_text().count("start") == 3 + 1  # tried three times, then a fresh one for the rest


def test_a_bad_value_is_named(order, tmp_path):
    result = run_beam(order, tmp_path / "set", "--kinds=colour")
    assert result.returncode == 2 and "unknown kind of change 'colour'" in result.stderr
