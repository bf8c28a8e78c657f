"""The table of `dig_jax.compile`."""

from collections.abc import Sequence
from typing import Any

from jax.sharding import Mesh

from dig_jax.aot import advice, hosts
from dig_jax.aot.chips import GIB, Chip
from dig_jax.aot.hlo import COLLECTIVES
from dig_jax.aot.phases import Plan
from dig_jax.aot.roofline import Measured

# Of a GPU's memory, for JAX: a little above `Chip.usable`, for fragmentation.
MEMORY_FRACTION = 0.93

GPU_LINKS = {"ici": "nvlink", "dcn": "network"}

MEMORY = (
    *("parameters", "optimizer", "remainders", "reference", "gradients", "activations"),
    *("sampling weights", "caches", "batch", "code"),
)


def progress(phase: Measured) -> str:
    """One line when a phase is compiled."""
    verdict = "fits" if phase.fits else "DOES NOT FIT"
    seconds = f"compiled in {phase.compile_seconds:.0f} s"
    return f"{phase.name}: {phase.total / GIB:.2f} GiB per chip, {verdict}; {seconds}"


def table(plan: Plan, measured: list[Measured], result: dict[str, Any], chip: Chip, topology: str) -> str:
    """The whole report; a column per phase."""
    done = [phase for phase in measured if phase.seconds]
    parts = [_heading(plan, result, topology), _aligned(_memory_rows(measured, chip))]
    if done:
        parts.append(_aligned(_cost_rows(done, chip)))
    return "\n\n".join([*parts, verdict(plan, measured, result, chip)])


def _memory_rows(measured: list[Measured], chip: Chip) -> list[list[str]]:
    rows = [["memory per chip, GiB", *(phase.name for phase in measured)]]
    rows += [
        [kind, *(f"{phase.memory.get(kind, 0) / GIB:.2f}" for phase in measured)]
        for kind in MEMORY
        if any(phase.memory.get(kind) for phase in measured)
    ]
    rows.append(["total", *(f"{phase.total / GIB:.2f}" for phase in measured)])
    share = [f"{phase.total / chip.hbm:.0%}" for phase in measured]
    rows.append([f"share of {chip.hbm / GIB:.2f} GiB", *share])
    if any(phase.on_host for phase in measured):
        rows.append(["on its host", *(f"{phase.on_host / GIB:.2f}" for phase in measured)])
    return rows


def _cost_rows(done: list[Measured], chip: Chip) -> list[list[str]]:
    """Of the phases that the compiler took."""
    rows = [["one run, per chip", *(phase.name for phase in done)]]
    rows.append(["runs per step", *(f"{phase.runs:,.0f}" for phase in done)])
    rows.append(["model TFLOP", *(f"{phase.flops / 1e12:.3f}" for phase in done)])
    rows.append(["HBM traffic, GB", *(f"{phase.traffic.hbm / 1e9:.3f}" for phase in done)])
    for kind in COLLECTIVES:
        sent = [phase.traffic.collectives.get(kind, 0.0) for phase in done]
        if any(sent):
            rows.append([f"{kind}, GB", *(f"{x / 1e9:.3f}" for x in sent)])
    if any(phase.traffic.across_slices for phase in done):
        parts = "hosts" if chip.is_gpu else "slices"
        rows.append([f"across {parts}, GB", *(f"{phase.traffic.across_slices / 1e9:.3f}" for phase in done)])
    names = GPU_LINKS if chip.is_gpu else {}
    for kind in ("compute", "hbm", "ici", "dcn"):
        times = [phase.seconds.get(kind, 0.0) for phase in done]
        if any(times):
            rows.append([f"{names.get(kind, kind)}, ms", *(f"{x * 1e3:.2f}" for x in times)])
    rows.append(["bound by", *(names.get(phase.bound, phase.bound) for phase in done)])
    rows.append(["MFU at most", *(f"{phase.mfu:.0%}" for phase in done)])
    return [*rows, ["seconds per step", *(f"{phase.step_seconds:.2f}" for phase in done)]]


def _heading(plan: Plan, result: dict[str, Any], topology: str) -> str:
    text, work, batch, rollout = plan.architecture.text, plan.work, plan.config.batch, plan.config.rollout
    mesh, sampling = map(_sizes, (plan.mesh, plan.rollout_mesh))
    rows = rollout.rows or batch.rollout_prompts
    chips = f"{topology}: {result['chips']} chips; {mesh}"
    model = f"decoder of {text.num_hidden_layers} layers, width {text.hidden_size}; prompts of {work.bucket},"
    step = (
        f"a step: {batch.prompts} prompts, {batch.update_prompts} per update, {batch.micro_prompts} per"
        " micro-batch"
    )
    if plan.supervised:
        answers = f" answers of {work.response} tokens, {work.earlier} of earlier ones"
        return "\n".join([chips, model + answers, step, hosts.describe(plan)])
    return "\n".join(
        [
            f"{chips}, sampling {sampling}",
            f"{model} G = {work.group}, responses of {work.response} tokens",
            f"{step}; {batch.rollout_prompts} sampled together, {rows} rows of"
            f" {rollout.slots or work.group} slots",
            hosts.describe(plan),
        ]
    )


def _sizes(mesh: Mesh) -> str:
    return f"{' x '.join(mesh.shape)} {' x '.join(map(str, mesh.shape.values()))}"


def verdict(plan: Plan, measured: list[Measured], result: dict[str, Any], chip: Chip) -> str:
    """That the step fits and its least time; or which programs do not fit, and what to change."""
    if not result["fits"]:
        failed = [phase for phase in measured if not phase.fits]
        return "\n".join(advice.explain(plan, phase, chip) for phase in failed)
    peak, limit = result["peak_bytes"] / GIB, result["limit_bytes"] / GIB
    lines = [
        f"fits: {result['peak_phase']} needs {peak:.2f} GiB of {limit:.2f} ({chip.usable:.0%} of the memory)",
        f"roofline: {result['step_seconds']:.1f} s per step at least, an MFU of {result['mfu']:.0%} at most",
    ]
    return "\n".join([*lines, *_gpu_notes(plan)] if chip.is_gpu else lines)


def _gpu_notes(plan: Plan) -> list[str]:
    """What the figures of a GPU leave out, and what a run needs."""
    notes = [
        f"set XLA_CLIENT_MEM_FRACTION={MEMORY_FRACTION} for the run: JAX would take 0.75 of the"
        " memory; CUDA and NCCL need the rest"
    ]
    if plan.config.optimizer.offload:
        notes.append(
            "optimizer.offload: the moments are counted on the GPU: a compiler without one has no host memory"
        )
    return notes


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )
