"""Names of settings: whole ones such as "grpo.kl", groups of them, and those that a stage changes."""

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict


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


def leaves(changes: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Changed settings by their whole names, with their values."""
    for key, value in changes.items():
        if isinstance(value, ConfigDict):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def change(config: ConfigDict, path: str, value: Any, where: str) -> None:
    """Gives a setting of a locked config another value.

    Args:
        config: is changed.
        path: whole name of the setting.
        value: of the type that it has.
        where: what asks for it, for errors.

    Raises:
        ValueError: there is no such setting, or the value is of another type.
    """
    try:
        config.update_from_flattened_dict({path: value})
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{where}.{path}={value!r}: {' '.join(map(str, error.args))}") from error
