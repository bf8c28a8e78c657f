"""What a dataset will cost, from its plan and the figures of docs/data_gen.md."""

from __future__ import annotations

import collections
import shutil

from data_gen.order.cost import core_seconds, disk_bytes
from data_gen.order.options import Order
from data_gen.order.pipeline import planner
from data_gen.order.progress import clock
from data_gen.plan.stage import PairFailed, plan_next

PLANNED = 50  # pairs that are planned to see how it goes; more would tell the same


def print_estimate(order: Order) -> int:
    """Plans some pairs and prints what all would take; returns 1 when pairs cannot be planned."""
    jobs = order.jobs(order.shard if order.shard.count > 1 else None)
    kinds: collections.Counter[str] = collections.Counter()
    rejected: collections.Counter[str] = collections.Counter()
    failed: dict[str, str] = {}
    objects = []
    step = max(1, len(jobs) // PLANNED)
    sample = jobs[::step][:PLANNED]
    plan_attempt = planner(order)
    for split, index in sample:
        try:
            planned = plan_next(plan_attempt, (split, index))
        except PairFailed as error:
            failed[f"{split} {index}"] = str(error)
            continue
        kinds.update(change.kind for change in planned.plan.changes)
        rejected.update(planned.rejected)
        objects.append(len(planned.plan.scene_a.objects))
    preset, pairs = order.preset, len(jobs)
    seconds = core_seconds(preset, pairs) / order.workers
    disk = disk_bytes(preset, pairs)
    print(
        f"preset {preset.name}, {preset.width}x{preset.height}, {preset.samples} samples, seed {order.seed}"
    )
    print(f"{pairs} pairs; planned {len(sample)} of them:")
    if objects:
        print(
            f"  objects in A  {min(objects)} to {max(objects)}, {sum(objects) / len(objects):.1f} on average"
        )
    print("  differences   " + (", ".join(f"{kind} {kinds[kind]}" for kind in sorted(kinds)) or "none"))
    print("  replanned     " + (", ".join(f"{why} {n}" for why, n in rejected.most_common()) or "none"))
    print(
        f"time  about {clock(seconds)} with {order.workers} workers, on cores like those of docs/data_gen.md"
    )
    folder = next(path for path in [order.out, *order.out.parents] if path.exists())
    print(
        f"disk  about {disk / 1e9:.2f} GB while rendering, {2 * disk / 1e9:.2f} GB while packing, "
        f"{disk / 1e9:.2f} GB in the end; {shutil.disk_usage(folder).free / 1e9:.1f} GB are free"
    )
    for name, reason in list(failed.items())[:5]:
        print(f"cannot be planned: {name}: {reason}")
    return 1 if failed else 0
