"""Exported adapters, put onto their model by `peft` itself: it computes what we do."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath
from flax import nnx

from configs import base
from dig_jax import export
from dig_jax.data.images import ImageConfig, preprocess
from dig_jax.machines import parallel
from dig_jax.machines.folder import write_json
from dig_jax.models import families
from dig_jax.models.inputs import make_prompts
from dig_jax.models.nn import freeze
from dig_jax.run import loading, model_folder
from dig_jax.run.checkpoint import Checkpoints
from tests.commands.test_export import State
from tests.helpers.paths import HELPERS, ROOT

PEFT_PYTHON = ROOT / ".venv-peft" / "bin" / "python"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not PEFT_PYTHON.exists() and not importlib.util.find_spec("peft"), reason="needs `make setup-peft`"
    ),
]
# The linear layers of the model: fused ones, stacked ones, and one that is a convolution in the checkpoint.
ALL = "(text|vision)/.*"


def make_run(model: Path, workdir: epath.Path, targets: str) -> tuple[nnx.GraphDef, nnx.State]:
    """A workdir with adapters that change much, and the model that it holds."""
    config = base.get_config()
    config.model_path, config.model.dtype = str(model), "float32"
    config.model.lora.update({"rank": 3, "alpha": 4.5, "targets": targets})
    mesh = parallel.make_mesh(config.mesh, jax.devices()[:1])
    plain = loading.load_params(config, loading.open_model(epath.Path(model)), mesh)
    graphdef, params = loading.with_adapters(config, *plain, mesh)
    adapters, others = freeze.split_adapters(params)
    keys = iter(jax.random.split(jax.random.key(0), 1000))
    adapters = jax.tree.map(lambda x: x + 0.1 * jax.random.normal(next(keys), x.shape), adapters)
    params = nnx.merge_state(others, adapters)
    model_folder.copy_model_files(epath.Path(model), workdir / "model")
    write_json(workdir / "config.json", config.to_dict())
    checkpoints = Checkpoints(workdir, keep=1)
    checkpoints.save(1, State(params, jnp.int32(0)), {})
    checkpoints.close()
    return graphdef, params


def modules_under(params: nnx.State, model: str) -> list[str]:
    """Names that transformers gives the modules with adapters."""
    paths = {path[:-2]: variable for path, variable in nnx.to_flat_state(params) if path[-1] == "a"}
    config = families.load_config(model)
    family = families.of(config)
    names = {
        weight.path: family.module_name(weight.name).removesuffix(".weight")
        for weight in family.weights(config)
    }
    found = []
    for path, variable in paths.items():
        name = names[".".join([*path, "kernel"])]
        found += [name.format(i) for i in range(variable.shape[0])] if "{}" in name else [name]
    return found


@pytest.mark.parametrize(
    ("kind", "targets"),
    [
        ("tiny_qwen3vl", ALL),
        ("tiny_qwen2_5_vl", ALL),
        ("tiny_qwen2_5_vl", "text/.*_proj"),  # whose names are those of layers of its tower, too
    ],
)
def test_peft_puts_exported_adapters_where_they_were_trained_and_computes_the_same(
    kind, targets, request, tmp_path
):
    tiny = request.getfixturevalue(kind)
    workdir = epath.Path(tmp_path / "run")
    graphdef, params = make_run(tiny, workdir, targets)
    export.main([f"--workdir={workdir}", f"--out={tmp_path / 'adapters'}", "--adapters"])

    model = nnx.merge(graphdef, params)
    settings = ImageConfig.from_folder(epath.Path(tiny))
    pixels = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    patches, grid = preprocess(pixels, settings)
    image = [model.config.vision_start_token_id, *[model.config.image_token_id] * (len(patches) // 4)]
    ids = np.array([5, 6, *image, model.config.vision_end_token_id, 7, 8])
    prompts = make_prompts(
        [ids], [[(patches, grid)]], model.config, prompt_length=len(ids), num_patches=len(patches)
    )
    ours = np.asarray(jax.jit(lambda model: model.logits(model(prompts)[0])[0])(model))

    given, out = tmp_path / "in.npz", tmp_path / "out.npy"
    inputs = {"ids": ids, "pixel_values": patches, "image_grid_thw": np.array([[1, *grid]])}
    np.savez(given, **inputs, modules=np.array(modules_under(params, tiny)))
    python = PEFT_PYTHON if PEFT_PYTHON.exists() else sys.executable
    command = [python, HELPERS / "peft_logits.py", tiny, tmp_path / "adapters", given, out]
    run = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr[-3000:]
    np.testing.assert_allclose(ours, np.load(out), atol=1e-4)
