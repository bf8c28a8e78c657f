"""The ahead-of-time compile: reading compiled programs, FLOPs, errors, and (slow) the real compiler."""

import dataclasses
import importlib
import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec

from configs import base
from dig_jax import compile as command
from dig_jax.aot import advice, flops, hlo, roofline
from dig_jax.aot.chips import CHIPS, GIB
from dig_jax.aot.inputs import Workload, pair_bucket, prompt_bucket
from dig_jax.aot.phases import Phase, make_plan, phases
from dig_jax.aot.roofline import Measured
from dig_jax.data.buckets import Bucket
from dig_jax.machines import parallel
from dig_jax.models import families
from dig_jax.models.qwen3_vl import published
from tests.helpers.paths import ROOT

needs_compiler = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="libtpu (the TPU compiler) exists for Linux x86-64 only",
)


@pytest.mark.parametrize(
    ("size", "parameters"),
    [
        ("Qwen3-VL-2B", 2_127_532_032),
        ("Qwen3-VL-4B", 4_437_815_808),
        ("Qwen3-VL-8B", 8_767_123_696),
        ("Qwen3-VL-32B", 33_357_390_064),
        ("Qwen2.5-VL-3B", 3_754_622_976),
        ("Qwen2.5-VL-7B", 8_292_166_656),
        ("Qwen2.5-VL-32B", 33_452_718_336),
        ("Qwen2.5-VL-72B", 73_410_777_344),
    ],
)
def test_published_architectures_have_the_published_number_of_parameters(size, parameters):
    model = families.abstract_model(families.published(size))
    assert sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model))) == parameters


def test_flops_are_those_of_the_arithmetic_on_paper():
    model = published.architecture("4B")
    # 36 layers of 2560 x (4096 + 2 x 1024 + 4096) and 3 x 2560 x 9728 weights; a head of 2560 x 151936.
    weights = 36 * (2560 * (2 * 4096 + 2 * 1024) + 3 * 2560 * 9728)
    assert flops.decode(model, context=0) == 2 * (weights + 2560 * 151936)
    # Every visible token costs a product with its key and one with its value, in 32 heads of 128.
    assert flops.decode(model, context=1) - flops.decode(model, context=0) == 36 * 2 * 2 * 32 * 128
    assert flops.vision_forward(model, patches=1568, images=2) == pytest.approx(1.2e12, rel=0.1)
    work = Workload(pair_bucket(model, 448, 448, 150), images=2, group=8, response=2048)
    per_token = flops.forward(model, work) / (8 * 2048 + work.bucket.prompt_length)
    assert per_token == pytest.approx(8.03e9 + 0.78e9, rel=0.05)


def test_no_flops_are_counted_for_gradients_of_weights_that_stay_as_they_are():
    model = published.architecture("4B")
    work = Workload(pair_bucket(model, 448, 448, 150), images=2, group=8, response=2048)
    forward = flops.forward(model, work)
    images = flops.vision_forward(model, work.bucket.num_patches, work.images)
    attention = flops.seen(model, 576 * 577 / 2 + 8 * (2048 * 576 + 2048 * 2049 / 2))
    everything = {"text", "vision", "projector"}
    assert flops.update(model, work, everything, adapters=False) == pytest.approx(3 * forward)
    frozen_vision = flops.update(model, work, {"text"}, adapters=False)
    assert frozen_vision == pytest.approx(3 * forward - 2 * images)
    adapters = flops.update(model, work, {"text"}, adapters=True)
    assert adapters == pytest.approx(2 * forward - images + 2 * attention)


def test_448_pixel_pairs_take_576_tokens():
    bucket = pair_bucket(published.architecture("4B"), 448, 448, text_tokens=150)
    assert (bucket.prompt_length, bucket.num_patches) == (576, 1600)  # 546 and 1568, rounded up


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: command.topology("v9:2x2", 1), "--topology=v9:2x2: expected a kind of v5e, v5p, v6e, a100"),
        (lambda: command.topology("v5e", 1), "a shape, as in v5e:4x4 or h100:8"),
        (lambda: command.topology("h100:8", 2), "--num_slices=2 is for TPUs; .* --topology=h100:2x8"),
        (lambda: command.topology("h100:2x2x2", 1), "expected GPUs of one host, as in h100:8, or hosts"),
        (lambda: command.size_of("448"), "--image_size=448: expected HEIGHTxWIDTH"),
        (
            lambda: command.architecture_of("5B", base.get_config()),
            "no published architecture .* '5B'",
        ),
        (lambda: command.with_layers(published.architecture("4B"), 2), "--layers=2: expected at least 3"),
        (lambda: pair_bucket(published.architecture("4B"), 450, 448, 1), "450x448 pixels.*multiples of 32"),
    ],
)
def test_a_wrong_flag_is_an_error_that_names_it(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@needs_compiler
def test_a_slice_may_be_one_chip():
    assert [len(command.topology(name, 1)[1]) for name in ("v5e:1x1", "v5p:1x1x1", "v6e:2x2")] == [1, 1, 4]


def test_a_stage_of_a_curriculum_is_compiled_with_its_own_settings():
    config = importlib.import_module("configs.curriculum").get_config()
    config.curriculum.stages.mixed["rollout"] = {"max_new_tokens": 4096}
    assert command.stage_of(config, "").config.rollout.max_new_tokens == 2048
    assert command.stage_of(config, "mixed").config.rollout.max_new_tokens == 4096
    with pytest.raises(ValueError, match="--stage=last: .* has single .grpo., double .grpo., mixed .grpo."):
        command.stage_of(config, "last")
    config.curriculum.stages.single["algorithm"] = "sft"
    assert command.stage_of(config, "").name == "double"  # the first that samples
    assert command.stage_of(config, "single").config.algorithm == "sft"


def test_a_supervised_stage_is_an_update_of_what_it_trains():
    config = importlib.import_module("configs.tiny_grounding_3b").get_config()
    model = command.with_layers(families.published("TinyGroundingGPT-3B"), 2)
    found = {}
    for name, shown in (
        ("align", {"images": 1}),
        ("local", {"images": 1, "objects": 4}),
        ("detail", {"images": 1}),
    ):
        stage = command.stage_of(config, name)
        bucket = prompt_bucket(model, command.size_of("", model), 60, **shown)
        work = command.workload(stage.config, bucket, sum(shown.values()))
        plan = make_plan(stage.config, model, work, jax.devices()[:1], stage.freezing)
        (phase,) = phases(plan)
        assert (phase.name, phase.runs, plan.work.group) == ("update", 1, 1)
        found[name] = plan.work, phase
    # 576 tokens of an image and 144 of an object, each with its two markers, and 60 words.
    assert found["align"][0].bucket == Bucket(640, 576)
    assert found["local"][0].bucket == Bucket(1280, 5 * 576)  # 1,222, rounded up
    assert (found["detail"][0].response, found["detail"][0].earlier) == (512, 1024)
    projector = 8_392_704  # docs/tiny_grounding.md; the four markers rest with the decoder
    assert found["align"][1].gradients == 4 * projector
    assert found["local"][1].gradients > 4 * (projector + 151_936 * 2048)
    assert found["align"][1].resident["reference"] == 0
    with pytest.raises(ValueError, match="--objects=1: this model takes whole images alone"):
        prompt_bucket(published.architecture("4B"), (448, 448), 60, images=1, objects=1)


@pytest.fixture
def no_compilation_cache():
    """Programs for machines that are not there can not be read back."""
    jax.config.update("jax_enable_compilation_cache", False)
    yield
    jax.config.update("jax_enable_compilation_cache", True)


@needs_compiler
@pytest.mark.usefixtures("no_compilation_cache")
def test_what_is_summed_over_slices_is_summed_inside_them_first():
    _, devices = command.topology("v5e:2x2", num_slices=2)
    config = base.get_config()
    with pytest.raises(ValueError, match="mesh.data=1 is no multiple of the 2 slices"):
        parallel.make_mesh(config.mesh, devices)
    config.mesh.data = 2
    mesh = parallel.make_mesh(config.mesh, devices)
    config.rollout.mesh.data, config.rollout.mesh.tensor = 1, 8
    with pytest.raises(ValueError, match="rollout.mesh.data=1 is no multiple of the 2 slices"):
        parallel.rollout_mesh(config.rollout.mesh, mesh)
    shape = (2, 4, 1024, 1024)  # 4 MiB on each of 2 slices of 4 chips
    x = jax.ShapeDtypeStruct(shape, np.float32, sharding=NamedSharding(mesh, PartitionSpec("data", "fsdp")))
    total = jax.jit(lambda x: x.sum((0, 1)), out_shardings=parallel.replicated(mesh))
    traffic = hlo.read_traffic(total.lower(x).compile().as_text())
    mib = 1 << 20
    assert traffic.across_slices == mib  # a quarter of it, which the chip has the sum of
    assert traffic.collectives == {"reduce-scatter": 3 * mib, "all-gather": 3 * mib}


def test_the_size_is_read_from_the_name_of_a_model_that_is_not_there():
    config = base.get_config()
    config.model_path = "Qwen/Qwen3-VL-8B-Thinking"
    assert command.architecture_of("", config) == published.architecture("8B")
    config.model_path = "Qwen/Qwen3-VL-30B-A3B-Thinking"
    assert command.architecture_of("", config) == families.published("30B-A3B")


@pytest.mark.parametrize(("cap", "runs"), [(0.0, None), (2.0, 4)])
def test_old_logprobs_cost_time_only_where_importance_weights_ask_for_them(cap, runs):
    config = base.get_config()
    config.data.train = ("pairs",)
    config.grpo.importance_cap = cap
    model = command.with_layers(published.architecture("2B"), 3)
    work = Workload(pair_bucket(model, 64, 64, 50), images=2, group=8, response=64)
    found = {phase.name: phase.runs for phase in phases(make_plan(config, model, work, jax.devices()[:1]))}
    assert found.get("old log-probs") == runs
    assert found["reference log-probs"] == found["update"] == 4


def test_an_offloaded_optimizer_is_in_the_memory_of_the_host():
    config = base.get_config()
    config.data.train = ("pairs",)
    config.optimizer.offload = True
    model = command.with_layers(published.architecture("2B"), 3)
    work = Workload(pair_bucket(model, 64, 64, 50), images=2, group=8, response=64)
    phase = next(phases(make_plan(config, model, work, jax.devices()[:1])))
    assert phase.resident["optimizer"] < 100  # two counters
    assert phase.on_host == 2 * phase.resident["parameters"]


def test_the_copy_for_sampling_has_adapters_beside_its_kernels():
    config = base.get_config()
    config.data.train = ("pairs",)
    model = command.with_layers(published.architecture("2B"), 3)
    work = Workload(pair_bucket(model, 64, 64, 50), images=2, group=8, response=64)
    copies = []
    for config.model.lora.rank in (0, 64):
        plan = make_plan(config, model, work, jax.devices()[:1])
        prefill = next(phase for phase in phases(plan) if phase.name == "prefill")
        copies.append(prefill.resident["sampling weights"])
    # Inputs and outputs of q and o, k and v, and the three of the MLP; two bytes each.
    sides = 2 * (2048 + 2048) + 2 * (2048 + 1024) + 3 * (2048 + 6144)
    assert copies[1] - copies[0] == 2 * 3 * 64 * sides


def test_what_bfloat16_parameters_lack_is_shown_beside_the_optimizer():
    config = base.get_config()
    config.data.train = ("pairs",)
    config.model.param_dtype = "bfloat16"
    model = command.with_layers(published.architecture("2B"), 3)
    work = Workload(pair_bucket(model, 64, 64, 50), images=2, group=8, response=64)
    resident = next(phases(make_plan(config, model, work, jax.devices()[:1]))).resident
    assert resident["remainders"] == resident["parameters"]  # 2 bytes each
    assert resident["optimizer"] == pytest.approx(4 * resident["parameters"], abs=100)  # float32 moments


SMALL = dataclasses.replace(CHIPS["v5e"], hbm=4000)


def phase_of(size, **resident):
    """A phase whose program doubles so many floats, and keeps nothing in between."""
    x = jax.ShapeDtypeStruct((size,), np.float32)
    lower = lambda: jax.jit(lambda x: 2 * x).lower(x)  # noqa: E731
    return Phase("double", lower, resident, "batch", runs=3, flops=5.0)


def test_memory_is_what_waits_and_what_the_program_makes():
    measured = roofline.measure(phase_of(100, parameters=500, batch=7), SMALL, num_chips=1)
    assert measured.memory["parameters"] == 500
    assert measured.memory["batch"] == 7 + 400
    assert measured.total == 907 + measured.memory["code"]
    assert measured.fits


def test_a_phase_fits_when_5_percent_of_the_memory_stay_free():
    needed = roofline.measure(phase_of(100), SMALL, num_chips=1).total
    for hbm, fits in ((needed / 0.95 + 1, True), (needed / 0.95 - 1, False)):
        chip = dataclasses.replace(SMALL, hbm=int(hbm))
        assert roofline.measure(phase_of(100), chip, num_chips=1).fits == fits


class Refused:
    """A program that the TPU compiler refuses, in its own words."""

    def compile(self):
        raise RuntimeError(
            "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries "
            "(23.25G) exceeds available HBM (15.75G)."
        )


def test_a_program_that_the_compiler_refuses_does_not_fit_by_as_much_as_it_says():
    phase = Phase("update", Refused, {"parameters": 5 * GIB}, "batch", runs=1, flops=1.0, gradients=4 * GIB)
    measured = roofline.measure(phase, CHIPS["v5e"], num_chips=4)
    assert not measured.fits
    assert {kind: size / GIB for kind, size in measured.memory.items()} == {
        "parameters": 5,
        "gradients": 4,
        "activations": 19.25,
    }


def test_a_step_that_does_not_fit_is_told_which_program_which_memory_and_which_settings():
    config = base.get_config()
    config.data.train = ("pairs",)
    config.model.remat = "dots"
    model = published.architecture("4B")
    work = Workload(pair_bucket(model, 448, 448, 150), images=2, group=8, response=2048)
    plan = make_plan(config, model, work, jax.devices()[:1])
    memory = {"parameters": 4 * GIB, "activations": 12 * GIB, "code": GIB // 10}
    measured = Measured("update", memory, 0, False, 1.0, 0.0, hlo.NOTHING, {}, 1.0)
    chip = dataclasses.replace(CHIPS["v5e"], hbm=15 * GIB, usable=1.0)
    told = advice.explain(plan, measured, chip)
    assert told.splitlines()[0].startswith("DOES NOT FIT: update needs 16.10 GiB per chip of 15.00 ")
    assert told.splitlines()[1:] == [
        "  activations (12.00 GiB): model.remat=full; batch.micro_prompts below 8, down to 1;"
        " batch.micro_completions below 8, down to 1",
        "  parameters (4.00 GiB): model.param_dtype=bfloat16 with optimizer.offload=True (half; the other"
        " half goes to the hosts)",
        "  all of these: a larger slice",
    ]


RECORDED = pathlib.Path(__file__).parent / "compile_memory.json"
STAGE3 = "--config=configs/stage3.py"


def compile_command(*arguments, python=sys.executable):
    """Runs `python -m dig_jax.compile`."""
    return subprocess.run(
        [python, "-m", "dig_jax.compile", *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=1000,
    )


@needs_compiler
def test_the_command_ends_with_1_and_says_what_to_do_when_a_model_does_not_fit():
    run = compile_command(STAGE3, "--model=8B", "--topology=v5e:2x2", "--phases=reshard")
    assert run.returncode == 1, run.stderr[-3000:]
    assert "DOES NOT FIT: reshard needs" in run.stdout
    assert "optimizer (16.36 GiB): " in run.stdout
    assert "a larger slice" in run.stdout


@needs_compiler
@pytest.mark.parametrize("phase", ["decode", pytest.param("update", marks=pytest.mark.slow)])
def test_a_full_width_step_of_few_layers_needs_no_more_memory_than_recorded(phase):
    """After a change that is meant to cost more: DIG_JAX_RECORD=1 pytest -m "" THIS_FILE"""
    batch = {"prompts": 8, "update_prompts": 8, "micro_prompts": 4, "rollout_prompts": 8}
    rollout = {"rows": 4, "slots": 2, "max_new_tokens": 256, "mesh.tensor": 2}
    run = compile_command(
        STAGE3,
        *("--model=4B", "--json", "--topology=v5e:2x2", "--layers=3", f"--phases={phase}"),
        *("--image_size=224x224", "--config.mesh.tensor=1", "--config.eval.batch_prompts=8"),
        *(f"--config.batch.{name}={value}" for name, value in batch.items()),
        *(f"--config.rollout.{name}={value}" for name, value in rollout.items()),
        *("--config.batch.micro_completions=0", "--config.batch.response_buckets=(256,)"),
    )
    assert run.returncode == 0, run.stderr[-3000:]
    (found,) = (compiled["memory"] for compiled in json.loads(run.stdout)["phases"])
    recorded = json.loads(RECORDED.read_text())
    if os.environ.get("DIG_JAX_RECORD"):
        recorded[phase] = found
        RECORDED.write_text(json.dumps(recorded, indent=2, sort_keys=True) + "\n")
    check_growth(phase, found, recorded[phase])


def check_growth(phase, found, recorded):
    """Neither all memory nor that of the program itself may be 5% above what is recorded."""
    for what, kinds in {"all memory": recorded.keys() | found.keys(), "activations": {"activations"}}.items():
        now, before = (sum(memory.get(kind, 0) for kind in kinds) for memory in (found, recorded))
        assert now <= 1.05 * before, f"{phase}, {what}: {now} bytes per chip, {before} recorded"


def test_growth_of_the_whole_or_of_the_activations_alone_is_noticed():
    recorded = {"parameters": 1000, "activations": 100}
    check_growth("update", {"parameters": 1000, "activations": 105}, recorded)
    with pytest.raises(AssertionError, match="update, activations: 106 bytes per chip, 100 recorded"):
        check_growth("update", {"parameters": 1000, "activations": 106}, recorded)
    with pytest.raises(AssertionError, match="update, all memory: 1160 "):
        check_growth("update", {"parameters": 1000, "activations": 100, "copies": 60}, recorded)
