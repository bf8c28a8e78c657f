"""Compiles a step of a run, GRPO or supervised, for a TPU slice or GPUs, without any, by the real compiler.

    python -m dig_jax.compile --config=configs/stage3.py --topology=v5p:2x2x4 [--model=4B] [--config.x.y=z]
    python -m dig_jax.compile --config=configs/stage3_gpu.py --topology=h100:8
    python -m dig_jax.compile --config=configs/tiny_grounding_3b.py --stage=local --topology=h100:8 \
        --model=TinyGroundingGPT-3B --images=1 --objects=4

A slice of TPUs is named by its chips (v5e:4x4), GPUs by those of one host (a100:8, h100:8, h200:8, b200:8) or
by hosts and GPUs of each (h100:2x8).

The programs are those that training runs: same functions, shardings and donation, with shapes in place of
arrays. Prints the memory of a chip by kind, FLOPs, traffic and collectives of every phase, and the least time
of a step that the hardware allows (a roofline: each phase takes the largest of its times for compute, memory
and interconnect, as if they overlapped perfectly; measured times are longer). FLOPs are counted from the
architecture, without what rematerialisation repeats; traffic and collectives are read from the compiled
program with the trip counts of its loops. Above the table is which hosts hold which rows of a batch; --hosts
prints that alone, at once. Needs the `tpu` extra (libtpu, for Linux on x86-64) or `aot-gpu`
(the CUDA plug-in and cuDNN), which is best kept in an environment of its own: `make setup-aot-gpu`.
Exit codes: 0 the step fits in 95% of the memory (90% of a GPU's), 1 it does not, 2 a flag or setting is
wrong.
"""

import contextlib
import dataclasses
import importlib.util
import json
import logging
import os
import sys
from collections.abc import Iterator
from typing import Any

import jax
from absl import app, flags
from jax.experimental import topologies
from ml_collections import ConfigDict, config_flags

from dig_jax import settings
from dig_jax.aot import gpus, hosts, report
from dig_jax.aot.chips import CHIPS, Chip
from dig_jax.aot.inputs import Workload, prompt_bucket
from dig_jax.aot.phases import make_plan, phases
from dig_jax.aot.roofline import measure, summary
from dig_jax.data.buckets import Bucket
from dig_jax.models import families
from dig_jax.models.architecture import Architecture
from dig_jax.run import cli, curriculum, model_folder

SIZE = (448, 448)  # of images, where neither a flag nor the model says another

logger = logging.getLogger("dig_jax")


def main(argv: list[str]) -> None:
    """Entry point behind the flags."""
    del argv
    given = flags.FLAGS
    cli.log_to_terminal()
    jax.config.update("jax_enable_compilation_cache", False)  # what is not for this machine is not read back
    with cli.user_errors():
        settings.check(given.config)
        stage = stage_of(given.config, given.stage)
        config = stage.config
        chip, devices = topology(given.topology, given.num_slices)
        architecture = with_layers(architecture_of(given.model, config), given.layers)
        shown = {"images": given.images, "objects": given.objects}
        size = size_of(given.image_size, architecture)
        work = workload(
            config, prompt_bucket(architecture, size, given.text_tokens, **shown), sum(shown.values())
        )
        plan = make_plan(config, architecture, work, devices, stage.freezing)
        if given.hosts:
            print(hosts.describe(plan))
            return
        chosen = [phase for phase in phases(plan) if not given.phases or phase.name in given.phases]
    host_of = [device.process_index for device in plan.mesh.devices.flat] if chip.is_gpu else []
    measured = []
    for phase in chosen:
        with quiet():
            measured.append(measure(phase, chip, len(devices), host_of))
        logger.info("%s", report.progress(measured[-1]))
    result = summary(measured, chip, len(devices))
    if given.json:
        result["verdict"] = report.verdict(plan, measured, result, chip)
        print(json.dumps(result | {"phases": [dataclasses.asdict(phase) for phase in measured]}))
    else:
        print(report.table(plan, measured, result, chip, given.topology))
    sys.exit(0 if result["fits"] else 1)


def stage_of(config: ConfigDict, name: str) -> curriculum.Stage:
    """The stage called `name`; without one the first that samples, or the first of all where none does.

    Raises:
        ValueError: there is no such stage.
    """
    stages = curriculum.stages(config)
    sampling = [stage for stage in stages if stage.config.algorithm != "sft"]
    for stage in stages if name else [*sampling, *stages]:
        if name in ("", stage.name):
            return stage
    have = ", ".join(f"{stage.name or 'the run'} ({stage.config.algorithm})" for stage in stages)
    raise ValueError(f"--stage={name}: there is no such stage; --config has {have}")


def workload(config: ConfigDict, bucket: Bucket, images: int) -> Workload:
    """What the prompts of a stage come with: completions to draw, or answers to learn.

    Args:
        config: of the stage.
        bucket: what prompts are padded to.
        images: per prompt, objects among them.
    """
    if config.algorithm == "sft":
        return Workload(bucket, images, 1, config.sft.max_answer_tokens, config.sft.max_earlier_tokens)
    return Workload(bucket, images, config.rollout.group_size, config.rollout.max_new_tokens)


def topology(name: str, num_slices: int) -> tuple[Chip, list[jax.Device]]:
    """The chips of a TPU slice by name, such as v5e:4x4, or of several alike; or GPUs. None of them is there.

    Raises:
        ValueError: there is no such kind of chip, no such slice, or no compiler for it.
    """
    kind, _, shape = name.partition(":")
    if kind not in CHIPS or not shape:
        raise ValueError(
            f"--topology={name}: expected a kind of {', '.join(CHIPS)} and a shape, as in v5e:4x4 or h100:8"
        )
    jax.config.update("jax_platforms", "cpu")  # nothing looks for the chips that are not there
    if CHIPS[kind].is_gpu:
        if num_slices > 1:
            raise ValueError(
                f"--num_slices={num_slices} is for TPUs; several hosts of GPUs are --topology={kind}:2x8"
            )
        with quiet():
            return CHIPS[kind], gpus.devices(kind, shape)
    return CHIPS[kind], _tpus(name, shape, num_slices)


def _tpus(name: str, shape: str, num_slices: int) -> list[jax.Device]:
    if importlib.util.find_spec("libtpu") is None:
        raise ValueError("the TPU compiler is missing: pip install 'dig_jax[tpu]' (Linux on x86-64 only)")
    # libtpu looks for the metadata of a TPU VM, and lets one process at a time use the chips, if it may.
    os.environ.update(TPU_SKIP_MDS_QUERY="1", ALLOW_MULTIPLE_LIBTPU_LOAD="1")
    options: dict[str, Any] = {"num_slices": num_slices} if num_slices > 1 else {}
    if set(shape.split("x")) == {"1"}:  # libtpu assumes hosts of four chips, which these do not have
        options["chips_per_host_bounds"] = [1, 1, 1]
    try:
        with quiet():
            found = topologies.get_topology_desc(platform="tpu", topology_name=name, **options)
    except Exception as error:  # the plug-in raises errors of its own kinds
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"--topology={name}, --num_slices={num_slices}: {reason}") from error
    return list(found.devices)


def architecture_of(model: str, config: ConfigDict) -> Architecture:
    """The architecture called `model`, or of the model the config names if that is empty."""
    if model:
        return families.published(model)
    hub_name = f"{config.model_path.rpartition('/')[2]}-"
    names = [name for name in families.published_names() if hub_name.startswith(f"{name}-")]
    if names and not os.path.isdir(config.model_path):
        return families.published(names[0])
    return families.load_config(model_folder.hf_files(model_folder.find_model(config.model_path)))


def with_layers(architecture: Architecture, layers: int) -> Architecture:
    """The architecture at full width with fewer layers in decoder and vision tower; 0 keeps all."""
    if not layers:
        return architecture
    try:
        return architecture.with_layers(layers)
    except ValueError as error:
        raise ValueError(f"--layers={layers}: {error}") from error


def size_of(text: str, architecture: Architecture | None = None) -> tuple[int, int]:
    """Height and width of "448x448"; of "", those of all images where the model has one size, or `SIZE`."""
    if not text:
        side = architecture.vision.fixed_side if architecture else None
        return (side, side) if side else SIZE
    try:
        height, width = (int(side) for side in text.split("x"))
    except ValueError:
        raise ValueError(f"--image_size={text}: expected HEIGHTxWIDTH in pixels, as in 448x448") from None
    return height, width


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Drops what libraries write to the standard error: libtpu looks for a TPU and tells at length."""
    kept = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def run() -> None:
    """Defines the flags and compiles."""
    config_flags.DEFINE_config_file("config", None, "Config file.", lock_config=True)
    flags.DEFINE_string(
        "topology", None, "TPU slice (v5e:4x4, v5p:2x2x4, ...) or GPUs (h100:8, 2 hosts: h100:2x8)."
    )
    flags.DEFINE_integer("num_slices", 1, "Slices of that shape, joined by the data-centre network.", 1)
    flags.DEFINE_string(
        "model",
        "",
        f"Published architecture ({', '.join(families.published_names())}); default that of"
        " config.model_path.",
    )
    flags.DEFINE_string(
        "stage",
        "",
        "Stage of the curriculum, where --config has one; default the first that samples, if any.",
    )
    flags.DEFINE_integer("layers", 0, "Keep this many layers of the decoder and the tower; 0 = all.", 0)
    flags.DEFINE_string(
        "image_size",
        "",
        "Height and width of images, in pixels; default 448x448, or all that the model sees.",
    )
    flags.DEFINE_integer("images", 2, "Whole images of a prompt.", 1)
    flags.DEFINE_integer("objects", 0, "Images of a prompt that are shown as objects.", 0)
    flags.DEFINE_integer("text_tokens", 150, "Tokens of the prompt besides its images.", 1)
    flags.DEFINE_list("phases", [], "Compile only these phases, by the names that the table has.")
    flags.DEFINE_bool("hosts", False, "Print which hosts hold which rows of a batch, and compile nothing.")
    flags.DEFINE_bool("json", False, "Print one line of JSON instead of a table.")
    flags.mark_flags_as_required(["config", "topology"])
    app.run(main, flags_parser=cli.parse_flags)


if __name__ == "__main__":
    run()
