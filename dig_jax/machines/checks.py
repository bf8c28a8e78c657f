"""Checks of single settings, for the dataclasses that parts build from a config."""

import math
from collections.abc import Collection, Mapping
from typing import Any


def one_of(name: str, value: Any, allowed: Collection[Any]) -> None:
    """Refuses a value that is none of these.

    Raises:
        ValueError: names the setting, its value and the choice; so do the others here.
    """
    if value not in allowed:
        raise ValueError(f"config.{name}={value!r}: expected one of {', '.join(map(str, allowed))}")


def at_least(name: str, value: float, least: float, meaning: str = "") -> None:
    """Refuses what is less, not a number or infinite; `meaning` says what the bound itself does."""
    if not (value >= least and math.isfinite(value)):
        also = f" ({meaning})" if meaning else ""
        raise ValueError(f"config.{name}={value}: must be at least {least}{also}")


def within(name: str, value: float, low: float, high: float, of: str = "", meaning: str = "") -> None:
    """Refuses what is not in low..high.

    Args:
        name: of the setting.
        value: to check.
        low, high: bounds, both allowed.
        of: the setting whose value `high` is.
        meaning: what `low` does.
    """
    if not low <= value <= high:
        least = f"{low} ({meaning})" if meaning else f"{low}"
        most = f"config.{of}={high}" if of else f"{high}"
        raise ValueError(f"config.{name}={value}: expected {least} to {most}")


def above(name: str, value: float, low: float) -> None:
    """Refuses what is not a finite number above `low`."""
    if not (low < value < math.inf):
        raise ValueError(f"config.{name}={value}: expected a finite number above {low}")


def whole_numbers(name: str, values: Collection[Any], least: int, what: str) -> None:
    """Refuses a tuple of anything but whole numbers of at least `least`; `what` says what they are."""
    if any(isinstance(value, bool) or not isinstance(value, int) or value < least for value in values):
        raise ValueError(f"config.{name}={tuple(values)}: expected {what}")


def mesh_sizes(name: str, sizes: Mapping[str, int]) -> str:
    """Refuses what is no mesh on any number of devices; returns the sizes of its axes in words."""
    described = ", ".join(f"{name}.{axis}={size}" for axis, size in sizes.items())
    sizes_given = list(sizes.values())
    if sizes_given.count(-1) > 1 or any(size < 1 and size != -1 for size in sizes_given):
        raise ValueError(f"{described}: sizes must be positive, and at most one may be -1 (what is left)")
    return described
