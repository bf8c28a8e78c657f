"""Which hosts hold which rows of a batch, as a run would lay them out."""

import numpy as np

from dig_jax.aot.phases import Plan
from dig_jax.machines import parallel
from dig_jax.machines.parallel import RowLayout


def describe(plan: Plan) -> str:
    """A line for the prompts of an update, and one for those that are sampled together where any are."""
    batch = plan.config.batch
    update = parallel.row_layout(plan.mesh, batch.update_prompts)
    lines = [f"rows of an update by host: {by_host(update)}"]
    if not plan.supervised:
        rollout = parallel.row_layout(plan.rollout_mesh, batch.rollout_prompts)
        lines.append(f"rows sampled together by host: {by_host(rollout)}")
    return "\n".join(lines)


def by_host(layout: RowLayout) -> str:
    """Rows and their holders, as in "0: 0-31; 1+2: 32-95": hosts 1 and 2 both have all rows from 32 on."""
    rows: dict[tuple[int, ...], list[int]] = {}
    for row, holders in enumerate(layout.holders):
        rows.setdefault(holders, []).append(row)
    return "; ".join(f"{'+'.join(map(str, holders))}: {_ranges(own)}" for holders, own in rows.items())


def _ranges(rows: list[int]) -> str:
    """Ascending numbers, those without a gap as first-last."""
    runs = np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1)
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)
