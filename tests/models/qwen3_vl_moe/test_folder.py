"""A folder of Qwen3-VL with experts goes in and out bit for bit, in the layouts of transformers 4 and 5."""

import json
import shutil

import jax
import numpy as np
import pytest
from etils import epath
from flax import nnx

from dig_jax.machines import parallel
from dig_jax.models import families
from dig_jax.models.hf import checkpoint, peft
from dig_jax.models.nn import freeze, lora
from dig_jax.models.qwen3_vl_moe.published import architecture
from tests.models.conftest import load_reference
from tests.models.hf.test_checkpoint import assert_same_bits, tensors
from tests.models.parity import random_model
from tests.models.qwen3_vl_moe.configs import small_config

EXPERTS = "model.language_model.layers.1.mlp.experts"


def assert_same_model(a, b):
    for x, y in zip(jax.tree.leaves(nnx.state(a)), jax.tree.leaves(nnx.state(b)), strict=True):
        np.testing.assert_array_equal(x, y)


def test_load_and_save_keep_every_bit_in_the_layout_of_the_hub(tiny, model, tmp_path):
    checkpoint.save_model(tmp_path / "copy", model)
    copied = tensors(tmp_path / "copy")
    assert_same_bits(copied, tensors(tiny))
    assert families.load_config(tmp_path / "copy") == families.load_config(tiny)
    assert copied[f"{EXPERTS}.gate_up_proj"].shape == (8, 64, 48)  # experts, width, gate and up
    assert copied[f"{EXPERTS}.down_proj"].shape == (8, 24, 64)
    np.testing.assert_array_equal(copied[f"{EXPERTS}.down_proj"], model.text.layers.mlp.down[...][1])


def test_what_transformers_5_saves_is_read_bit_for_bit_and_goes_back(tiny, model, tmp_path):
    reference = load_reference(tiny)
    reference.model.save_pretrained(tmp_path / "saved")
    saved = tensors(tmp_path / "saved")
    assert saved[f"{EXPERTS}.gate_up_proj"].shape == (8, 48, 64)
    again = checkpoint.load_model(tmp_path / "saved")
    assert_same_model(again, model)
    checkpoint.save_model(tmp_path / "back", again)
    assert_same_bits(tensors(tmp_path / "back"), tensors(tiny))


@pytest.mark.parametrize("inner", [32, 64])  # 2I == D, I == D
def test_square_matrices_are_written_as_transformers_5_reads_them_and_read_by_the_version(inner, tmp_path):
    model = random_model(small_config(inner=inner, layers=2))
    folder = tmp_path / "square"
    checkpoint.save_model(folder, model)
    assert_same_model(checkpoint.load_model(folder), model)
    theirs = load_reference(folder).model.state_dict()
    for name, ours in (
        ("gate_up_proj", model.text.layers.mlp.gate_up),
        ("down_proj", model.text.layers.mlp.down),
    ):
        np.testing.assert_array_equal(theirs[f"{EXPERTS}.{name}"], ours[...][1].swapaxes(1, 2))

    settings = json.loads((folder / "config.json").read_text())

    def with_version(version: str | None) -> None:
        changed = {key: value for key, value in settings.items() if key != "transformers_version"}
        changed |= {"transformers_version": version} if version else {}
        (folder / "config.json").write_text(json.dumps(changed))

    with_version("4.57.1")
    mlp = checkpoint.load_model(folder).text.layers.mlp
    square = "gate_up" if inner == 32 else "down"
    as_stored = np.asarray(getattr(model.text.layers.mlp, square)[...]).swapaxes(2, 3)
    np.testing.assert_array_equal(getattr(mlp, square)[...], as_stored)
    for version in (None, "unknown"):
        with_version(version)
        with pytest.raises(
            ValueError, match=r"transformers_version is (None|'unknown'), and the experts model.*square"
        ):
            checkpoint.load_model(folder)


def test_experts_of_another_shape_are_named(tiny, tmp_path):
    folder = shutil.copytree(tiny, tmp_path / "other")
    settings = json.loads((folder / "config.json").read_text())
    settings["text_config"]["moe_intermediate_size"] = 40
    (folder / "config.json").write_text(json.dumps(settings))
    with pytest.raises(
        ValueError, match=r"wrong shape: .*experts.down_proj is \[8, 24, 64\], expected \[8, 40, 64\]"
    ):
        checkpoint.load_model(folder)


def test_adapters_are_of_attention_alone(tiny, tmp_path):
    """As PEFT's are, since the experts of transformers 5 are no linear modules."""
    model = checkpoint.load_model(tiny)
    lora.add(model, lora.LoRAConfig(2, 4.0, "text/.*_proj"), frozenset(), nnx.Rngs(0))
    params = nnx.state(model, nnx.Param)
    adapted = {path[-3] for path, _ in nnx.to_flat_state(params) if "adapter" in path}
    assert adapted == {"q_proj", "k_proj", "v_proj", "o_proj"}
    peft.check_base(epath.Path(tiny), params, model.config)
    options = {"rank": 2, "alpha": 4.0, "base": "base", "dtype": np.float32}
    peft.write_adapters(epath.Path(tmp_path), params, model.config, **options)
    endings = json.loads((tmp_path / "adapter_config.json").read_text())["target_modules"]
    assert endings == ["k_proj", "o_proj", "q_proj", "v_proj"]


@pytest.mark.parametrize(
    "targets", ["text/layers/mlp/.*", "text/layers/mlp/router", "text/layers/mlp/gate_up"]
)
def test_adapters_of_experts_and_routers_are_refused(model, targets):
    with pytest.raises(ValueError, match="is the path of no layer that is not frozen; there are .*q_proj"):
        lora.add(model, lora.LoRAConfig(2, 4.0, targets), frozenset(), nnx.Rngs(0))


@pytest.mark.parametrize(
    ("frozen", "held"),
    [({"router"}, {"router"}), ({"text"}, {"router", "text"}), ({"vision", "router"}, {"router", "vision"})],
)
def test_routers_are_frozen_alone_or_with_the_text(model, frozen, held):
    trained, rest = freeze.split(nnx.state(model, nnx.Param), frozenset(frozen))
    assert set(freeze.by_part(rest)) == held
    assert set(freeze.by_part(trained)) == {"vision", "projector", "text", "router"} - held


def test_sampling_takes_kernels_in_its_dtype_but_routers_in_theirs(model):
    half = nnx.eval_shape(
        lambda: families.make(model.config, rngs=nnx.Rngs(0), dtype=jax.numpy.bfloat16).in_compute_dtype()
    )
    mlp = half.text.layers.mlp
    assert mlp.gate_up.dtype == mlp.down.dtype == jax.numpy.bfloat16
    assert mlp.router.kernel.dtype == jax.numpy.float32


def test_every_parameter_has_a_place_on_a_mesh():
    """Of 30B-A3B on two by two by four devices: experts over `tensor`, their width over `fsdp`."""
    shapes = nnx.state(families.abstract_model(architecture("30B-A3B")), nnx.Param)

    class Sizes:
        shape = {"data": 2, "fsdp": 2, "tensor": 4}

    specs = {
        "/".join(map(str, path)): tuple(
            parallel.mesh_axes(variable.get_metadata()["out_sharding"], variable.shape, Sizes, str(path))
        )
        for path, variable in nnx.to_flat_state(shapes)
    }
    assert specs["text/layers/mlp/gate_up"] == (None, "tensor", "fsdp", None)
    assert specs["text/layers/mlp/down"] == (None, "tensor", None, "fsdp")
    assert specs["text/layers/mlp/router/kernel"] == (None, "fsdp", None)
