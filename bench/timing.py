"""How the benchmarks measure: two sides take turns on the same CPUs, and ratios are taken turn by turn.

What else the machine does then falls on both sides, and the median of the ratios is worth more than the ratio
of the medians.
"""

import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

IDLE_S = 0.05  # between runs, so that one side's waiting threads are asleep when the other starts


class Seconds(NamedTuple):
    """A point in time, or the time between two.

    On a machine that does other work too, `cpu` says more than `wall`: it is the processor time of this
    process alone, over all its threads, those that wait in a loop included.
    """

    wall: float
    cpu: float

    @classmethod
    def now(cls) -> "Seconds":
        return cls(time.perf_counter(), time.process_time())

    def since(self, begin: "Seconds") -> "Seconds":
        return Seconds(self.wall - begin.wall, self.cpu - begin.cpu)


def bind(threads: int) -> list[int]:
    """Binds this process to some CPUs, before JAX starts its thread pool: that is as large as they are.

    Returns:
      The CPUs. Processes started from here inherit them.
    """
    if not hasattr(os, "sched_setaffinity"):
        sys.exit("error: this benchmark binds both sides to the same CPUs, which only Linux lets it do")
    cpus = sorted(os.sched_getaffinity(0))[:threads]
    if len(cpus) < threads:
        sys.exit(f"error: --threads={threads}, but this process may use {len(cpus)} CPUs only")
    os.sched_setaffinity(0, cpus)
    return cpus


def take_turns(
    sides: Mapping[str, Callable[[], object]], rounds: int, warmup: int = 1
) -> dict[str, list[Seconds]]:
    """Runs every side once a round, in order; the first `warmup` rounds do not count."""
    taken: dict[str, list[Seconds]] = {name: [] for name in sides}
    for turn in range(warmup + rounds):
        for name, side in sides.items():
            time.sleep(IDLE_S)
            begin = Seconds.now()
            side()
            if turn >= warmup:
                taken[name].append(Seconds.now().since(begin))
    return taken


def median(taken: Sequence[Seconds]) -> float:
    """Median of the wall seconds."""
    return statistics.median(seconds.wall for seconds in taken)


def ratio(ours: Sequence[Seconds], peer: Sequence[Seconds]) -> Seconds:
    """How many times as long the peer took: medians over the rounds, of wall and of CPU time."""
    pairs = list(zip(ours, peer, strict=True))
    return Seconds(*(statistics.median(b[i] / a[i] for a, b in pairs) for i in range(2)))


def profile(folder: str, *runs: Callable[[], object]) -> None:
    """Runs them once more, traced to a folder for TensorBoard; does nothing when the name is empty."""
    if folder:
        import jax

        with jax.profiler.trace(folder):
            for run in runs:
                run()
