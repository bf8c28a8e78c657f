"""Names of settings: whole ones such as "grpo.kl", groups of them, and those that a stage changes."""

import re
from collections.abc import Collection
from typing import Any


def flat(nested: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Settings by their whole names, such as \"grpo.kl\"."""
    found: dict[str, Any] = {}
    for key, value in nested.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return found


def of_stage(key: str) -> str:
    """The setting that a stage changes, of config.curriculum.stages.<name>.<setting>; others as they are."""
    return re.sub(r"^curriculum\.stages\.[^.]+\.", "", key)


def is_in(key: str, groups: Collection[str]) -> bool:
    """Whether a setting is one of these, or in one of these groups."""
    return any(key == group or key.startswith(group + ".") for group in groups)
