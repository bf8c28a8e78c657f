"""Splits of data sets that are JSON-lines files: "val", or a part of one, "val[:100]"."""

from __future__ import annotations

import re

from etils import epath


def named_and_part(split: str) -> tuple[str, slice]:
    """The name of a split and which part of it is meant.

    Raises:
      ValueError: it is neither a name nor one with a slice.
    """
    match = re.fullmatch(r"(\w+)(?:\[(\d*):(\d*)\])?", split)
    if match is None:
        raise ValueError(f"split {split!r}: expected a name, or one with a slice such as val[:100]")
    first, end = (int(text) if text else None for text in match.groups()[1:])
    return match[1], slice(first, end)


def lines_file(path: epath.Path, name: str) -> epath.Path | None:
    """The JSON-lines file of a split: the path itself, or NAME.jsonl or SET_NAME.jsonl in it.

    Returns:
      The file; None for a folder without JSON-lines files.

    Raises:
      ValueError: the path is a file of another kind, or the folder has no or several files of the split.
    """
    if not path.is_dir():
        if path.suffix != ".jsonl":
            raise ValueError(f"{path}: expected a .jsonl file, or a folder")
        return path
    files = sorted(path.glob("*.jsonl"))
    own = [file for file in files if file.stem == name or file.stem.endswith(f"_{name}")]
    if files and len(own) != 1:
        listed = ", ".join(file.name for file in files)
        raise ValueError(f"{path} has {len(own)} files NAME_{name}.jsonl; it has {listed}")
    return own[0] if own else None
