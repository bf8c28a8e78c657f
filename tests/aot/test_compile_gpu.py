"""The ahead-of-time compile for GPUs: descriptions, reading their programs, and (slow) XLA's GPU compiler."""

import importlib
import json

import pytest

from dig_jax import compile as command
from dig_jax import settings
from dig_jax.aot import gpus, groups, hlo
from dig_jax.aot.chips import CHIPS, GIB
from tests.commands.test_compile import compile_command
from tests.helpers.paths import ROOT

ENVIRONMENT = ROOT / ".venv-aot-gpu"
needs_compiler = pytest.mark.skipif(
    not (ENVIRONMENT / ".stamp").exists(),
    reason="XLA's GPU compiler has an environment of its own: make setup-aot-gpu",
)

# In the words of XLA:GPU, cut down: a loop of 36 turns that copies one layer out of a stack of 36, begun by
# one operation and awaited by another; and two weights of a layer gathered together.
PROGRAM = """\
%copy_layer (p0: bf16[36,64,8], p1: s32[]) -> bf16[64,8] {
  %p0 = bf16[36,64,8]{2,1,0} parameter(0)
  %p1 = s32[] parameter(1)
  %zero = s32[] constant(0)
  %cut = bf16[1,64,8]{2,1,0} dynamic-slice(%p0, %p1, %zero, %zero), dynamic_slice_sizes={1,64,8}
  ROOT %whole = bf16[64,8]{1,0} bitcast(%cut)
}

%body (b: (s32[], bf16[36,64,8])) -> (s32[], bf16[36,64,8]) {
  %b = (s32[], bf16[36,64,8]{2,1,0}) parameter(0)
  %i = s32[] get-tuple-element(%b), index=0
  %stack = bf16[36,64,8]{2,1,0} get-tuple-element(%b), index=1
  %begun = ((bf16[36,64,8]{2,1,0}, s32[]), bf16[64,8]{1,0}) fusion-start(%stack, %i), calls=%copy_layer
  %layer = bf16[64,8]{1,0} fusion-done(%begun), calls=%copy_layer
  ROOT %next = (s32[], bf16[36,64,8]{2,1,0}) tuple(%i, %stack)
}

%condition (c: (s32[], bf16[36,64,8])) -> pred[] {
  %c = (s32[], bf16[36,64,8]{2,1,0}) parameter(0)
  ROOT %going = pred[] constant(true)
}

ENTRY %main (w: bf16[36,64,8], x: bf16[16,8], y: bf16[4,8]) -> bf16[64,8] {
  %w = bf16[36,64,8]{2,1,0} parameter(0)
  %x = bf16[16,8]{1,0} parameter(1)
  %y = bf16[4,8]{1,0} parameter(2)
  %zero = s32[] constant(0)
  %carry = (s32[], bf16[36,64,8]{2,1,0}) tuple(%zero, %w)
  %loop = (s32[], bf16[36,64,8]{2,1,0}) while(%carry), condition=%condition, body=%body, \
backend_config={"known_trip_count":{"n":"36"}}
  %gathering = ((bf16[16,8]{1,0}, bf16[4,8]{1,0}), (bf16[64,8]{1,0}, bf16[16,8]{1,0})) \
all-gather-start(%x, %y), replica_groups=[2,4]<=[4,2]T(1,0), dimensions={0}
  %gathered = (bf16[64,8]{1,0}, bf16[16,8]{1,0}) all-gather-done(%gathering)
  ROOT %first = bf16[64,8]{1,0} get-tuple-element(%gathered), index=0
}
"""
LAYER, SHARD = 64 * 8 * 2, (16 + 4) * 8 * 2  # bytes


def test_a_fusion_begun_and_awaited_counts_once_and_by_the_slice_that_it_reads():
    layers = 36 * (LAYER + 4 + LAYER)  # in, with the number of the layer, and out
    assert hlo.read_traffic(PROGRAM).hbm == layers + SHARD + 4 * SHARD  # and the gather: in and out


def test_what_leaves_the_host_is_counted_apart():
    """Groups 0, 2, 4, 6 and 1, 3, 5, 7 of 8 GPUs: on a ring one of the two of a host sends to the other."""
    one_host = hlo.read_traffic(PROGRAM)
    assert (one_host.collectives, one_host.across_slices) == ({"all-gather": 3 * SHARD}, 0)
    two_hosts = hlo.read_traffic(PROGRAM, hosts=[0, 0, 0, 0, 1, 1, 1, 1])
    assert two_hosts.collectives == {"all-gather": 1.5 * SHARD}
    assert two_hosts.across_slices == 1.5 * SHARD
    eight = hlo.read_traffic(PROGRAM, hosts=list(range(8)))
    assert (eight.collectives, eight.across_slices) == ({"all-gather": 0}, 3 * SHARD)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("replica_groups={{0,1},{2,3}}, x={1}", [[0, 1], [2, 3]]),
        ("source_target_pairs={{0,1},{1,0}}", [[0, 1], [1, 0]]),
        ("replica_groups=[2,3]<=[6]", [[0, 1, 2], [3, 4, 5]]),
        ("replica_groups=[3,2]<=[2,3]T(1,0)", [[0, 3], [1, 4], [2, 5]]),
        ("replica_groups=mesh['a'=2,'b'=3] {'a'}", [[0, 3], [1, 4], [2, 5]]),
        ("replica_groups=mesh['a'=2,'b'=1,'c'=2] {'a','c'}", [[0, 1, 2, 3]]),
        ("channel_id=1", []),
    ],
)
def test_groups_are_read_in_every_form(text, expected):
    assert groups.groups(text) == expected


def test_a_missing_compiler_is_an_error_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setattr(gpus, "_found", lambda module: module == "nvidia.cudnn")
    with pytest.raises(ValueError, match=r"missing \(jax-cuda13-plugin\): pip install 'dig_jax\[aot-gpu\]'"):
        command.topology("h100:8", 1)


@pytest.mark.parametrize(
    ("name", "shards"), [("stage1_gpu", 8), ("stage2_gpu", 8), ("stage3_gpu", 8), ("stage1_gpu1_lora", 1)]
)
def test_the_layouts_for_gpus_divide_their_batches(name, shards):
    config = importlib.import_module(f"configs.{name}").get_config()
    assert (config.mesh.fsdp, config.mesh.tensor, config.rollout.mesh.tensor) == (-1, 1, 1)
    settings.check(config)
    settings.check_batches(config, shards, shards)


def compile_for(topology, *arguments):
    """Runs `python -m dig_jax.compile` in the compiler's environment."""
    return compile_command(f"--topology={topology}", *arguments, python=ENVIRONMENT / "bin/python")


@pytest.mark.slow
@needs_compiler
def test_a_step_with_cudnn_attention_compiles_for_two_hosts_of_gpus():
    """Full width, 3 layers: parameters, gradients and moments are gathered and summed over both hosts."""
    run = compile_for(
        "h100:2x4",
        *("--config=configs/stage3.py", "--model=4B", "--layers=3", "--image_size=224x224", "--json"),
        *("--phases=decode,update", "--config.model.attention=cudnn", "--config.rollout.max_new_tokens=256"),
        *(
            "--config.mesh.tensor=1",
            "--config.rollout.mesh.tensor=1",
            "--config.batch.response_buckets=(256,)",
        ),
        *("--config.batch.prompts=8", "--config.batch.update_prompts=8", "--config.batch.micro_prompts=8"),
        *("--config.batch.rollout_prompts=8", "--config.rollout.rows=8", "--config.eval.batch_prompts=8"),
    )
    assert run.returncode == 0, run.stderr[-3000:]
    result = json.loads(run.stdout)
    decode, update = result["phases"]
    # An eighth of 0.84 billion parameters in float32, and two moments of each.
    assert update["memory"]["parameters"] == pytest.approx(0.42e9, rel=0.01)
    assert update["memory"]["optimizer"] == pytest.approx(2 * update["memory"]["parameters"], rel=1e-3)
    traffic = update["traffic"]
    # All 8 take part in each ring, one in four of them sends to the other host.
    assert traffic["across_slices"] == pytest.approx(sum(traffic["collectives"].values()) / 3, rel=0.01)
    # A token reads the weights and the caches, and copies the latter: no more than a few times all there is.
    resident = decode["memory"]["sampling weights"] + decode["memory"]["caches"]
    assert 0.5 * resident < decode["traffic"]["hbm"] < 4 * resident


@pytest.mark.slow
@needs_compiler
def test_the_command_compares_with_the_memory_of_the_gpu_which_the_compiler_does_not():
    arguments = ("--config=configs/stage3.py", "--phases=reshard", "--config.rollout.mesh.tensor=1")
    single = ("--config.mesh.tensor=1", "--config.batch.micro_prompts=1", "--model=8B")
    run = compile_for("h100:1", *arguments, *single)
    assert run.returncode == 1, run.stderr[-3000:]
    assert f"of {0.9 * CHIPS['h100'].hbm / GIB:.2f} (90% of the memory)" in run.stdout
    run = compile_for("b200:1", *arguments, *single)
    assert run.returncode == 0, run.stderr[-3000:]
    assert "XLA_CLIENT_MEM_FRACTION" in run.stdout
