"""Where the arrays of a run really lie on eight simulated devices, which compute what one device does."""

import json
import os
import pathlib
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from dig_jax.machines import parallel
from dig_jax.models.nn import kernels
from dig_jax.models.qwen3_vl import published
from dig_jax.scratch import ScratchConfig, make_scratch_folder
from tests.helpers.paths import HELPERS, ROOT

pytestmark = pytest.mark.usefixtures("quick_compiling")

STEP = HELPERS / "sharding_step.py"
LAYERS, WIDTH, INNER, HEADS, HEAD_DIM = 3, 128, 64, 4, 32
PROMPTS, ROWS, GROUP, SLOTS, PROMPT, LENGTH = 16, 8, 2, 1, 32, 8


def make_model(folder, family="qwen3_vl"):
    vision = {"vision_depth": 3, "vision_inner": 64, "vision_heads": 4, "vision_width": 128}
    text = {"text_depth": LAYERS, "text_inner": INNER, "text_heads": HEADS, "text_kv_heads": HEADS}
    sizes = {"text_width": WIDTH, "image_size": 64, "family": family}
    make_scratch_folder(folder, ScratchConfig(**vision, **text, **sizes))
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("sharding") / "model")


@pytest.mark.slow  # test_parallel.py has a mesh with all axes
def test_shards_are_what_the_table_says_and_results_those_of_one_device(model):
    data, fsdp, tensor = 2, 2, 2
    step = run_step(model, (data, fsdp, 1, tensor), "sent")
    for kind in ("params", "mu", "nu", "reference"):  # moments and reference lie as the parameters do
        assert step["mlp"][kind] == [LAYERS, WIDTH // fsdp, INNER // tensor], kind
        assert step["k_proj"][kind] == [LAYERS, WIDTH // fsdp, HEADS // tensor, HEAD_DIM], kind
        assert step["embedding"][kind] == [step["vocab"] // tensor, WIDTH // fsdp], kind
    # Sampling has a layout of its own: whole over fsdp, split over tensor.
    assert step["mlp"]["weights"] == [LAYERS, WIDTH, INNER // tensor]
    assert step["embedding"]["weights"] == [step["vocab"] // tensor, WIDTH]
    assert step["moved_bytes"] > 0
    shards = 8 // tensor  # of a batch, in training (data * fsdp) and in sampling (data)
    assert shards == data * fsdp
    assert step["hidden"] == [PROMPTS // shards, GROUP, LENGTH, WIDTH]
    assert step["prompt_cache"] == [LAYERS, ROWS // shards, HEADS // tensor, PROMPT, HEAD_DIM]
    assert step["response_cache"] == [LAYERS, ROWS * SLOTS // shards, 1, HEADS // tensor, LENGTH, HEAD_DIM]
    assert step["slots"] == [1, ROWS * SLOTS // shards]
    # Gradients of two micro-batches cross `data` once; what else does is small.
    sent = step["sent_across_data"]
    assert 0 < sent["update"] < 0.55 * sent["micro_batch"], sent

    assert_same_as_one_device(step)


@pytest.mark.slow
def test_adapters_are_split_as_their_layers_and_compute_what_one_device_does(model):
    rank, tensor = 4, 4
    step = run_step(model, (2, 1, 1, tensor), rank=rank)
    for kind in ("params", "mu", "nu", "reference", "weights"):
        assert step["mlp"][kind] == [LAYERS, rank, INNER // tensor], kind
        assert step["k_proj"][kind] == [LAYERS, rank, HEADS // tensor, HEAD_DIM], kind
    assert_same_as_one_device(step)


@pytest.mark.slow
def test_another_family_is_split_by_the_same_table(tmp_path):
    step = run_step(make_model(tmp_path / "model", "qwen2_5_vl"), (2, 2, 1, 2))
    assert step["mlp"]["params"] == [LAYERS, WIDTH // 2, INNER // 2]
    assert step["k_proj"]["params"] == [LAYERS, WIDTH // 2, HEADS // 2, HEAD_DIM]
    assert_same_as_one_device(step)


@pytest.mark.slow
def test_experts_stay_on_their_devices_and_tokens_travel(tmp_path):
    """With room for an even share alone, which the choices never are. Other meshes: split_experts.py."""
    fsdp = expert = tensor = 2
    step = run_step(make_model(tmp_path / "model", "qwen3_vl_moe"), (1, fsdp, expert, tensor))
    experts = 8 // (expert * tensor)
    for kind in ("params", "mu", "nu", "reference"):
        assert step["mlp"][kind] == [LAYERS, experts, WIDTH // fsdp, INNER], kind
        assert step["k_proj"][kind] == [LAYERS, WIDTH // (fsdp * expert), HEADS // tensor, HEAD_DIM], kind
    assert step["mlp"]["weights"] == [LAYERS, experts, WIDTH, INNER]
    assert step["k_proj"]["weights"] == [LAYERS, WIDTH, HEADS // tensor, HEAD_DIM]
    assert step["hidden"][0] == PROMPTS // (fsdp * expert)
    assert_same_as_one_device(step)


def run_step(
    model: pathlib.Path, mesh: tuple[int, int, int, int], *sent: str, rank: int = 0
) -> dict[str, Any]:
    """What sharding_step.py says of a rollout and an update on this mesh, with adapters of this rank.

    Where it is asked for what is "sent" it counts that, too, which takes a program more.
    """
    run = subprocess.run(
        [sys.executable, str(STEP), str(model), ",".join(map(str, mesh)), str(rank), *sent],
        env=os.environ | {"JAX_NUM_CPU_DEVICES": "8", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return json.loads(run.stdout.splitlines()[-1])


def assert_same_as_one_device(step: dict[str, Any]) -> None:
    assert step["same_tokens"]
    assert step["logprob_distance"] < 1e-5
    assert step["loss"][0] == pytest.approx(step["loss"][1], rel=1e-5)
    assert step["gradient_distance"] < 1e-5
    assert step["supervised"][0] == pytest.approx(step["supervised"][1], rel=1e-5)


class Sizes:
    """A mesh of many devices, as far as sizes go."""

    shape = {"data": 2, "fsdp": 4, "tensor": 16}


def test_a_dimension_that_does_not_divide_is_an_error_that_names_it():
    with pytest.raises(ValueError, match=r"k_proj: dimension 1 \('kv_heads', size 8\).*mesh.tensor=16"):
        parallel.mesh_axes(("embed", "kv_heads", "head_dim"), (4096, 8, 128), Sizes, "k_proj")
    with pytest.raises(ValueError, match=r"size 12\).*mesh.data=2 \* mesh.fsdp=4"):
        parallel.mesh_axes(("activation_batch",), (12,), Sizes, "tokens")


def test_two_dimensions_on_one_mesh_axis_are_an_error():
    with pytest.raises(ValueError, match="more than one dimension to mesh axis 'tensor'"):
        parallel.mesh_axes(("heads", "mlp"), (32, 64), Sizes, "wrong")
    with pytest.raises(ValueError, match="more than one dimension to mesh axis 'fsdp'"):
        parallel.mesh_axes(("activation_batch", "embed"), (8, 64), Sizes, "wrong")


def test_an_unknown_name_is_an_error():
    with pytest.raises(ValueError, match=r"wrong: logical axes \['sideways'\] are not in parallel.RULES"):
        parallel.mesh_axes(("sideways",), (8,), Sizes, "wrong")


class SizesWithExperts:
    """The same with devices that share experts."""

    def __init__(self, fsdp: int):
        self.shape = {"data": 2, "fsdp": fsdp, "expert": 4, "tensor": 2}


def test_experts_stay_on_their_devices_which_are_further_ones_of_fsdp_for_all_else():
    spec = parallel.mesh_axes(("experts", "expert_embed", "expert_mlp"), (8, 32, 6), SizesWithExperts(2), "w")
    assert spec == PartitionSpec(("expert", "tensor"), "fsdp", None)
    spec = parallel.mesh_axes(("embed", "mlp"), (32, 6), SizesWithExperts(2), "kernel")
    assert spec == PartitionSpec(("fsdp", "expert"), "tensor")
    spec = parallel.mesh_axes(("activation_batch",), (16,), SizesWithExperts(2), "x")
    assert spec == PartitionSpec(("data", "fsdp", "expert"))


def test_what_is_not_gathered_over_fsdp_is_not_gathered_over_devices_with_experts():
    """As in sampling."""
    assert parallel.mesh_axes(("embed",), (32,), SizesWithExperts(1), "kernel") == PartitionSpec("fsdp")


def test_experts_that_do_not_divide_are_an_error_that_names_the_axes():
    with pytest.raises(ValueError, match=r"\('experts', size 12\).* mesh.expert=4 \* mesh.tensor=2"):
        parallel.mesh_axes(("experts",), (12,), SizesWithExperts(1), "gate_up")


def test_a_model_without_experts_has_none_to_split():
    mesh = SimpleNamespace(devices=np.array(jax.devices()[:1]), shape={"expert": 2})
    with pytest.raises(ValueError, match="mesh.expert=2: this model has no experts to split"):
        kernels.options(published.architecture("4B"), mesh, jnp.float32, "auto", "auto", 1.5)


def test_names_become_mesh_axes():
    spec = parallel.mesh_axes(("layers", "embed", "mlp", None), (3, 8, 32, 5), Sizes, "kernel")
    assert spec == PartitionSpec(None, "fsdp", "tensor", None)
    assert parallel.mesh_axes(("activation_batch",), (16,), Sizes, "x") == PartitionSpec(("data", "fsdp"))
