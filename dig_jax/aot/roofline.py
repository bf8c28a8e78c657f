"""What the compiled phases of a step take: memory per chip, and the least time the hardware allows."""

import dataclasses
import re
import time
from collections.abc import Sequence
from typing import Any

from dig_jax.aot.chips import Chip
from dig_jax.aot.hlo import NOTHING, Traffic, read_traffic
from dig_jax.aot.phases import Phase

_OUT_OF_MEMORY = re.compile(r"required for HLO temporaries \(([\d.]+)([KMGT])\)|Used ([\d.]+)([KMGT]) of")
_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


@dataclasses.dataclass(frozen=True)
class Measured:
    """A compiled phase, per chip.

    Attributes:
        name: of the phase.
        memory: bytes by kind while it runs: `Phase.resident`, what it makes, the `code` of the program, and
            its temporaries: `gradients`, and `activations` for all others.
        on_host: bytes of the host's memory, for this chip: an optimizer that waits there.
        fits: whether they stay below the usable memory and the compiler agrees.
        runs: per step.
        flops: of one run, on one chip.
        traffic: of one run; nothing when the compiler refused the program for the memory it needs.
        seconds: of one run, by what bounds it: `compute`, `hbm`, `ici`, `dcn`; empty when refused.
        compile_seconds: how long the compiler took.
    """

    name: str
    memory: dict[str, int]
    on_host: int
    fits: bool
    runs: float
    flops: float
    traffic: Traffic
    seconds: dict[str, float]
    compile_seconds: float

    @property
    def total(self) -> int:
        return sum(self.memory.values())

    @property
    def bound(self) -> str:
        return max(self.seconds, key=lambda kind: self.seconds[kind]) if self.seconds else "-"

    @property
    def mfu(self) -> float:
        """Share of the chip's arithmetic that a run uses at its least time."""
        return self.seconds["compute"] / max(self.seconds.values()) if self.seconds else 0.0

    @property
    def step_seconds(self) -> float:
        """Of all runs of a step; the largest of the bounds, as if everything overlapped."""
        return self.runs * max(self.seconds.values(), default=0.0)


def measure(phase: Phase, chip: Chip, num_chips: int, hosts: Sequence[int] = ()) -> Measured:
    """Compiles a phase and reads what came out.

    Args:
        phase: to compile.
        chip: that it is for.
        num_chips: how many take part.
        hosts: see `read_traffic`.
    """
    lowered = phase.lower()
    start = time.perf_counter()
    try:
        compiled = lowered.compile()
    except Exception as error:
        needed = _needed(str(error))
        if needed is None:
            raise
        memory = _memory(phase, {"activations": needed})
        seconds = time.perf_counter() - start
        return Measured(phase.name, memory, phase.on_host, False, phase.runs, 0.0, NOTHING, {}, seconds)
    seconds = time.perf_counter() - start
    sizes = compiled.memory_analysis()
    memory = _memory(
        phase,
        {
            phase.makes: sizes.output_size_in_bytes - sizes.alias_size_in_bytes,
            "activations": sizes.temp_size_in_bytes,
            "code": sizes.generated_code_size_in_bytes,
        },
    )
    traffic = read_traffic(compiled.as_text(), one_turn=phase.counts_turns, hosts=hosts)
    flops = phase.flops / num_chips
    return Measured(
        name=phase.name,
        memory=memory,
        on_host=phase.on_host,
        fits=sum(memory.values()) <= chip.usable * chip.hbm,
        runs=phase.runs,
        flops=flops,
        traffic=traffic,
        seconds={
            "compute": flops / chip.flops,
            "hbm": traffic.hbm / chip.hbm_bandwidth,
            "ici": sum(traffic.collectives.values()) / chip.ici,
            "dcn": traffic.across_slices / chip.dcn,
        },
        compile_seconds=seconds,
    )


def _memory(phase: Phase, program: dict[str, int]) -> dict[str, int]:
    """Bytes by kind: what exists while a program runs, and what it makes and needs itself."""
    gradients = min(phase.gradients, program["activations"])
    program = program | {"gradients": gradients, "activations": program["activations"] - gradients}
    kinds = phase.resident.keys() | program.keys()
    return {kind: phase.resident.get(kind, 0) + program.get(kind, 0) for kind in kinds}


def _needed(message: str) -> int | None:
    """Bytes that a program which the compiler refused wanted; None when it was refused for another reason."""
    if "RESOURCE_EXHAUSTED" not in message:
        return None
    found = _OUT_OF_MEMORY.search(message)
    if found is None:
        return 0
    number, unit = (part for part in found.groups() if part is not None)
    return int(float(number) * _UNITS[unit])


def summary(measured: list[Measured], chip: Chip, num_chips: int) -> dict[str, Any]:
    """Figures of the whole step."""
    seconds = sum(phase.step_seconds for phase in measured)
    flops = sum(phase.flops * phase.runs for phase in measured)
    peak = max(measured, key=lambda phase: phase.total)
    return {
        "fits": all(phase.fits for phase in measured),
        "peak_bytes": peak.total,
        "peak_phase": peak.name,
        "limit_bytes": int(chip.usable * chip.hbm),
        "chips": num_chips,
        "step_seconds": seconds,
        "model_flops_per_chip": flops,
        "mfu": flops / chip.flops / seconds if seconds else 0.0,
    }
