"""`python -m dig_jax.export`: a folder that transformers takes for one of its own, whole or not there."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath
from flax import nnx
from safetensors.numpy import load_file

from configs import base
from dig_jax import export
from dig_jax.data.tokenizer import load_tokenizer
from dig_jax.machines.folder import write_json
from dig_jax.models import families
from dig_jax.models.hf.checkpoint import load_model, load_params
from dig_jax.run import checkpoint, model_folder
from tests.helpers.folder_logits import assert_same_logits
from tests.helpers.paths import ROOT


@flax.struct.dataclass
class State:
    """What is needed of a training state."""

    params: nnx.State
    skipped: jax.Array


def make_workdir(model: Path, workdir: Path, steps: tuple[int, ...] = (3,)) -> Path:
    """The workdir of a run that started from `model`. Step 1 doubled its parameters, later ones did not."""
    folder = epath.Path(workdir)
    model_folder.copy_model_files(epath.Path(model), folder / "model")
    config = base.get_config()
    write_json(folder / "config.json", config.to_dict())
    params = load_params(model, families.load_config(model))
    checkpoints = checkpoint.Checkpoints(folder, keep=len(steps))
    for step in steps:
        scaled = jax.tree.map(lambda x: 2 * x, params) if step == 1 else params
        checkpoints.save(step, State(scaled, jnp.int32(0)), {})
    checkpoints.close()
    return workdir


@pytest.fixture(scope="module")
def workdir(tiny_qwen3vl: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_workdir(tiny_qwen3vl, tmp_path_factory.mktemp("runs") / "run", steps=(1, 3))


def run(workdir: Path, out: Path | str, *flags: str) -> Path:
    export.main([f"--workdir={workdir}", f"--out={out}", *flags])
    return Path(out)


def tensors(folder: Path) -> dict[str, np.ndarray]:
    return {name: array for file in folder.glob("*.safetensors") for name, array in load_file(file).items()}


def assert_same_bits(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> None:
    assert ours.keys() == theirs.keys()
    for name, array in theirs.items():
        assert ours[name].dtype == array.dtype and ours[name].tobytes() == array.tobytes(), name


@pytest.mark.parametrize("tied", [False, True], ids=["untied, one file", "tied, several files"])
def test_transformers_loads_an_export_and_gives_the_same_logits(tied, request, tmp_path):
    model = request.getfixturevalue("tiny_qwen3vl_thinking" if tied else "tiny_qwen3vl")
    started = make_workdir(model, tmp_path / "run")
    out = run(started, tmp_path / "out", *(["--max_shard_bytes=100000"] if tied else []))
    assert_same_bits(tensors(out), tensors(model))
    assert (out / "model.safetensors").exists() != tied

    assert_same_logits(out, 64, 96, atol=1e-5)


def test_the_files_beside_the_weights_are_those_of_the_original(workdir, tiny_qwen3vl, tmp_path):
    out = run(workdir, tmp_path / "out")
    weights = {path.name for path in tiny_qwen3vl.iterdir() if "safetensors" in path.name}
    names = {path.name for path in tiny_qwen3vl.iterdir()} - weights
    assert {"generation_config.json", "tokenizer.json", "processor_config.json"} < names
    assert {path.name for path in out.iterdir()} == names | {"model.safetensors", "dig_jax.json"}
    for name in names:
        assert (out / name).read_text() == (tiny_qwen3vl / name).read_text(), name


def test_the_dtype_is_converted_where_asked_and_the_config_says_so_everywhere(
    workdir, tiny_qwen3vl, tmp_path
):
    hub_layout = json.loads((tiny_qwen3vl / "config.json").read_text())
    hub_layout["text_config"]["dtype"] = hub_layout["vision_config"]["torch_dtype"] = "float32"
    changed = shutil.copytree(workdir, tmp_path / "run")
    (changed / "model" / "config.json").write_text(json.dumps(hub_layout))
    out = run(changed, tmp_path / "out", "--dtype=bfloat16")
    assert_same_bits(tensors(out), {k: a.astype(jnp.bfloat16) for k, a in tensors(tiny_qwen3vl).items()})
    config = json.loads((out / "config.json").read_text())
    assert config["dtype"] == config["text_config"]["dtype"] == "bfloat16"
    assert config["vision_config"]["torch_dtype"] == "bfloat16"


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        ({"dtype": "bfloat16"}, "bfloat16"),
        ({"torch_dtype": "float16"}, "float16"),
        ({"text_config": {"dtype": "bfloat16"}}, "bfloat16"),
        ({}, "float32"),  # that of the run's parameters
    ],
)
def test_an_export_has_the_dtype_of_the_model_that_the_run_started_from(named, expected, workdir, tmp_path):
    changed = shutil.copytree(workdir, tmp_path / "run")
    settings = json.loads((changed / "model" / "config.json").read_text())
    settings.pop("dtype")
    settings["text_config"] |= named.get("text_config", {})
    settings |= {key: value for key, value in named.items() if key != "text_config"}
    (changed / "model" / "config.json").write_text(json.dumps(settings))
    out = run(changed, tmp_path / "out")
    assert {array.dtype.name for array in tensors(out).values()} == {expected}
    assert json.loads((out / "config.json").read_text())["dtype"] == expected


def test_any_kept_checkpoint_can_be_exported_and_others_are_named(workdir, tiny_qwen3vl, tmp_path, capsys):
    doubled = {name: 2 * array for name, array in tensors(tiny_qwen3vl).items()}
    assert_same_bits(tensors(run(workdir, tmp_path / "out", "--step=1")), doubled)
    with pytest.raises(SystemExit, match="2"):
        run(workdir, tmp_path / "other", "--step=2")
    assert "run has no checkpoint of step 2; it has 1, 3" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--max_shard_bytes=0"], "--max_shard_bytes=0: expected at least 1"),
        (["--dtype=int8"], "invalid choice: 'int8'"),
        (["--out=/etc"], "/etc exists and is not empty; remove it or choose another name"),
        (["--workdir=/etc"], "--workdir=/etc is not the workdir of a run with a checkpoint"),
    ],
)
def test_mistakes_end_with_code_2_and_the_reason(workdir, tmp_path, capsys, flags, message):
    with pytest.raises(SystemExit, match="2"):
        run(workdir, tmp_path / "out", *flags)
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


KILLED_IN_THE_SECOND_FILE = """
import os, signal, sys
from dig_jax import export
from dig_jax.run import model_folder
from dig_jax.models.hf import safetensors_io
write_file = safetensors_io.write_file

def killed(path, specs, arrays):
    if "model-00002" in path.name:
        arrays = (os.kill(os.getpid(), signal.SIGKILL) if i else array for i, array in enumerate(arrays))
    write_file(path, specs, arrays)

safetensors_io.write_file = killed
export.main(sys.argv[1:])
"""


def test_a_killed_export_leaves_nothing_that_looks_whole_and_the_next_one_tidies_up(
    workdir, tiny_qwen3vl, tmp_path
):
    flags = [f"--workdir={workdir}", f"--out={tmp_path / 'out'}", "--max_shard_bytes=100000"]
    killed = subprocess.run([sys.executable, "-c", KILLED_IN_THE_SECOND_FILE, *flags], cwd=ROOT)
    assert killed.returncode == -9
    assert not (tmp_path / "out").exists()
    left = {path.name for path in (tmp_path / ".out.incomplete").iterdir()}
    assert "model-00002-of-00024.safetensors" in left and "config.json" not in left
    out = run(workdir, tmp_path / "out", "--max_shard_bytes=100000")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert_same_bits(tensors(out), tensors(tiny_qwen3vl))


def test_an_export_to_a_bucket_is_a_model_that_loads(workdir, tiny_qwen3vl, bucket, tmp_path):
    run(workdir, f"{bucket}/models/out", "--max_shard_bytes=100000")
    assert_same_bits(tensors(tmp_path / "bucket" / "models" / "out"), tensors(tiny_qwen3vl))
    found = model_folder.find_model(f"{bucket}/models/out")
    assert load_tokenizer(found).decode(load_tokenizer(tiny_qwen3vl).encode("two images")) == "two images"
    ours = load_model(found)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(load_model(tiny_qwen3vl)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_run_of_many_devices_is_exported_on_those_that_are_there():
    sizes = base.get_config().mesh
    sizes.data, sizes.fsdp, sizes.tensor = 2, 4, 2
    mesh = export.mesh_for(sizes)
    assert dict(mesh.shape) == {"data": 1, "fsdp": jax.device_count(), "tensor": 1}
