"""Finished pairs on disk, before they are packed: three files per pair, so that a stopped run can go on.

    STAGING/spec.json               what the pairs are made from; a different spec is refused
    STAGING/train/000123.a.png      the pictures
    STAGING/train/000123.b.png
    STAGING/train/000123.json       the rest of the record; written last, so it marks the pair as done

Every file is written under a temporary name and renamed: a file that exists is whole.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


class Staging:
    """The staging folder of one dataset. Raises ValueError when `root` holds pairs of another spec."""

    def __init__(self, root: Path, spec: dict[str, Any]) -> None:
        self.root = root
        path = root / "spec.json"
        if path.exists():
            found = json.loads(path.read_text())
            if found != spec:
                raise ValueError(
                    f"{root} holds pairs of an unfinished dataset ({differing_keys(found, spec)}); "
                    "repeat the command that began it, name another --out, or delete the folder"
                )
        else:
            root.mkdir(parents=True, exist_ok=True)
            write_file(path, json.dumps(spec, indent=2).encode())

    def picture_path(self, split: str, index: int, which: str) -> Path:
        """Where picture `which` ("a" or "b") of a pair lies."""
        return self.root / split / f"{index:06d}.{which}.png"

    def record_path(self, split: str, index: int) -> Path:
        return self.root / split / f"{index:06d}.json"

    def is_done(self, split: str, index: int) -> bool:
        return self.record_path(split, index).exists()

    def write(self, split: str, index: int, pictures: tuple[bytes, bytes], record: dict[str, Any]) -> None:
        """Stores a finished pair: its two PNG files, then its record."""
        self.record_path(split, index).parent.mkdir(exist_ok=True)
        for which, data in zip("ab", pictures, strict=True):
            write_file(self.picture_path(split, index, which), data)
        write_file(self.record_path(split, index), json.dumps(record, separators=(",", ":")).encode())

    def read_record(self, split: str, index: int) -> dict[str, Any]:
        """The record of a finished pair, without its pictures."""
        return json.loads(self.record_path(split, index).read_text())


def write_file(path: Path, data: bytes) -> None:
    """Writes a file that is either absent or whole, whenever the process dies."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_bytes(data)
    os.replace(temporary, path)


def differing_keys(found: dict[str, Any], wanted: dict[str, Any]) -> str:
    """Names the settings in which two specs differ, with both values, for an error message."""
    lines = []
    for key in sorted({*found, *wanted}):
        a, b = found.get(key), wanted.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            lines += [differing_keys(a, b)] if a != b else []
        elif a != b:
            lines.append(f"{key}: {a} there, {b} here")
    return "; ".join(lines)
