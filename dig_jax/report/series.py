"""Lines of charts from lines of files: the values of a metric, and the spread around it."""

from __future__ import annotations

import math
from typing import Any, TypeGuard

Records = list[dict[str, Any]]


def points(records: Records, key: str) -> list[tuple[float, float]]:
    """(step, value) wherever there is a finite one."""
    values = ((record["step"], record.get(key)) for record in records)
    return [(step, y) for step, y in values if _is_number(y)]


def band(records: Records, key: str) -> list[tuple[float, float, float]]:
    """(step, lowest, highest): one standard deviation of a reward in its group, else 95 % of a mean.

    Of values that are all in 0..1 the spread stays there.
    """
    spread, times = f"{key}_se", 1.96
    if key.endswith("reward/reward"):
        spread, times = key.removesuffix("reward") + "std_in_group", 1.0
    known = [
        (record["step"], value, times * width)
        for record in records
        if _is_number(value := record.get(key)) and _is_number(width := record.get(spread))
    ]
    shares = all(0 <= value <= 1 for _, value, _ in known)
    low, high = (0.0, 1.0) if shares else (-math.inf, math.inf)
    return [(step, max(low, value - width), min(high, value + width)) for step, value, width in known]


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and math.isfinite(value)
