"""The table of `dig_jax.compile`."""

from collections.abc import Sequence
from typing import Any

from dig_jax.aot.chips import GIB, Chip
from dig_jax.aot.hlo import COLLECTIVES
from dig_jax.aot.phases import Plan
from dig_jax.aot.roofline import USABLE, Measured

MEMORY = (
    *("parameters", "optimizer", "reference", "sampling weights", "caches", "batch"),
    *("temporaries", "code"),
)


def progress(phase: Measured) -> str:
    """One line when a phase is compiled."""
    verdict = "fits" if phase.fits else "DOES NOT FIT"
    seconds = f"compiled in {phase.compile_seconds:.0f} s"
    return f"{phase.name}: {phase.total / GIB:.2f} GiB per chip, {verdict}; {seconds}"


def table(plan: Plan, measured: list[Measured], result: dict[str, Any], chip: Chip, topology: str) -> str:
    """The whole report; a column per phase."""
    names = [phase.name for phase in measured]
    lines = [_heading(plan, result, topology), ""]
    rows = [["memory per chip, GiB", *names]]
    rows += [
        [kind, *(f"{phase.memory.get(kind, 0) / GIB:.2f}" for phase in measured)]
        for kind in MEMORY
        if any(phase.memory.get(kind) for phase in measured)
    ]
    rows.append(["total", *(f"{phase.total / GIB:.2f}" for phase in measured)])
    rows.append(
        [f"share of {chip.hbm / GIB:.2f} GiB", *(f"{phase.total / chip.hbm:.0%}" for phase in measured)]
    )
    lines += _aligned(rows) + [""]
    done = [phase for phase in measured if phase.traffic is not None]
    rows = [["one run, per chip", *(phase.name for phase in done)]]
    rows.append(["runs per step", *(f"{phase.runs:,.0f}" for phase in done)])
    rows.append(["model TFLOP", *(f"{phase.flops / 1e12:.3f}" for phase in done)])
    rows.append(["HBM traffic, GB", *(f"{_traffic(phase).hbm / 1e9:.3f}" for phase in done)])
    for kind in COLLECTIVES:
        sent = [_traffic(phase).collectives.get(kind, 0.0) for phase in done]
        if any(sent):
            rows.append([f"{kind}, GB", *(f"{x / 1e9:.3f}" for x in sent)])
    if any(_traffic(phase).across_slices for phase in done):
        rows.append(["across slices, GB", *(f"{_traffic(phase).across_slices / 1e9:.3f}" for phase in done)])
    for kind in ("compute", "hbm", "ici", "dcn"):
        times = [phase.seconds.get(kind, 0.0) for phase in done]
        if any(times):
            rows.append([f"{kind}, ms", *(f"{x * 1e3:.2f}" for x in times)])
    rows.append(["bound by", *(phase.bound for phase in done)])
    rows.append(["seconds per step", *(f"{phase.step_seconds:.2f}" for phase in done)])
    lines += _aligned(rows) + ["", _verdict(result)]
    return "\n".join(lines)


def _traffic(phase: Measured) -> Any:
    return phase.traffic


def _heading(plan: Plan, result: dict[str, Any], topology: str) -> str:
    text, work, batch, rollout = plan.architecture.text, plan.work, plan.config.batch, plan.config.rollout
    mesh, sampling = (" x ".join(str(n) for n in m.shape.values()) for m in (plan.mesh, plan.rollout_mesh))
    rows = rollout.rows or batch.rollout_prompts
    return "\n".join(
        [
            f"{topology}: {result['chips']} chips; data x fsdp x tensor {mesh}, sampling {sampling}",
            f"decoder of {text.num_hidden_layers} layers, width {text.hidden_size}; prompts of {work.bucket},"
            f" G = {work.group}, responses of {work.response} tokens",
            f"a step: {batch.prompts} prompts, {batch.update_prompts} per update, {batch.micro_prompts} per"
            f" micro-batch; {batch.rollout_prompts} sampled together, {rows} rows of"
            f" {rollout.slots or work.group} slots",
        ]
    )


def _verdict(result: dict[str, Any]) -> str:
    peak, limit = result["peak_bytes"] / GIB, result["limit_bytes"] / GIB
    needs = f"{result['peak_phase']} needs {peak:.2f} GiB of {limit:.2f} ({USABLE:.0%} of the memory)"
    if not result["fits"]:
        return f"DOES NOT FIT: {needs}"
    return (
        f"fits: {needs}\n"
        f"roofline: {result['step_seconds']:.1f} s per step at least, an MFU of {result['mfu']:.0%} at most"
    )


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
