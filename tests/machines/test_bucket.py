"""A run whose model, pairs and workdir are in a bucket, through the clients of real buckets."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from tests.commands.test_train import inputs, small_config  # noqa: F401  (inputs is a fixture)
from tests.helpers.fake_gcs import FakeGCS
from tests.helpers.paths import ROOT

pytestmark = pytest.mark.usefixtures("quick_compiling")


@pytest.mark.slow
def test_a_run_in_a_bucket_stops_goes_on_and_leaves_the_same_as_one_on_a_disk(
    inputs: pathlib.Path,  # noqa: F811
    tmp_path: pathlib.Path,
) -> None:
    pytest.importorskip("gcsfs", reason="needs the gcs extra")
    server = FakeGCS()
    for path in inputs.rglob("*"):
        if path.is_file():
            server.put(f"inputs/{path.relative_to(inputs)}", path.read_bytes())

    def train(place: str, workdir: str, num_steps: int) -> str:
        changes = {
            "data.eval": f"{place}/pairs",
            "model_path": f"{place}/model",
            "data.train": (f"{place}/pairs",),
        }
        changes |= {"eval.group_size": 0, "log.tensorboard": True, "checkpoint.keep": 1}
        settings = small_config(inputs, "sft", num_steps=num_steps, **changes)
        (tmp_path / "config.py").write_text(
            "import json\nfrom ml_collections import ConfigDict\n"
            f"def get_config():\n    return ConfigDict(json.loads({settings.to_json()!r}))\n"
        )
        command = ["-m", "dig_jax.main", f"--config={tmp_path}/config.py", f"--workdir={workdir}"]
        environment = os.environ | server.environment() | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, *command], env=environment, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stderr

    train("gs://bucket/inputs", "gs://bucket/run", 1)
    assert "resumed at step 1 of 2" in train("gs://bucket/inputs", "gs://bucket/run", 2)
    train(str(inputs), str(tmp_path / "run"), 2)

    def kept(name: str) -> list[dict]:
        """Lines without what depends on the clock."""
        both = (server.objects[f"run/{name}"][0].decode(), (tmp_path / "run" / name).read_text())
        timed = ("time/", "tokens_per_second/", "seconds")
        in_bucket, on_disk = (
            [
                {key: x for key, x in json.loads(line).items() if not key.startswith(timed)}
                for line in text.splitlines()
            ]
            for text in both
        )
        assert in_bucket == on_disk
        return in_bucket

    assert [line["step"] for line in kept("metrics.jsonl")] == [1, 2]
    assert [line["step"] for line in kept("evals.jsonl")] == [0, 1, 2]
    kept("samples/samples.jsonl")
    names = {name.removeprefix("run/") for name in server.objects if name.startswith("run/")}
    assert {"config.json", "report.html", "model/config.json", "samples/step000002_00.png"} <= names
    assert any(name.startswith("tensorboard/events") for name in names)
    steps = {name.split("/")[1] for name in names if name.startswith("checkpoints/")}
    assert "2" in steps and "checkpoints/2/commit_success.txt" in names
    local = {path.name for path in (tmp_path / "run" / "checkpoints").iterdir()}
    assert steps == local  # old ones are removed in a bucket as well
