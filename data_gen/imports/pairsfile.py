"""Reads a file of pairs, whichever of the two forms it has."""

from __future__ import annotations

from pathlib import Path

from data_gen.files.userfiles import read_lines
from data_gen.imports import coco, lines
from data_gen.imports.entry import Entry, Source
from data_gen.imports.report import Report
from data_gen.scenes.schema import SceneError, load_json, shown

LINE_SUFFIXES = (".jsonl", ".ndjson")


def read(path: Path, source: Source, report: Report) -> list[Entry]:
    """The pairs of JSON lines or of a COCO file; what is wrong with some of them goes to the report.

    An entry with problems is returned all the same where its pictures are known, to be looked at.

    Raises ValueError for a file that is neither, or holds no pairs.
    """
    text = read_lines(path)
    if not any(line.strip() for line in text):
        raise ValueError(f"{path} is empty; expected one pair per line")
    if is_lines(text) or (path.suffix.lower() in LINE_SUFFIXES and not is_json("\n".join(text))):
        if source.folders:
            raise ValueError(f"--folders is for COCO files; each line of {path} names image_a and image_b")
        return lines.read(text, str(path), source, report)
    try:
        data = load_json("\n".join(text), nan=True)
    except SceneError as error:
        raise ValueError(f"{path}: {error}") from None
    if not isinstance(data, dict) or not isinstance(data.get("images"), list):
        raise ValueError(
            f"{path}: expected JSON lines, a pair on each, or COCO JSON with a list of images, got "
            f"{shown(data)}"
        )
    if not data["images"]:
        raise ValueError(f"{path} has no images")
    return coco.read(data, str(path), source, report)


def is_lines(text: list[str]) -> bool:
    """Whether a file holds one JSON object per line, by its first line."""
    try:
        first = load_json(next(line for line in text if line.strip()), nan=True)
    except SceneError:
        return False  # the first line alone is no JSON: one object over many lines
    return isinstance(first, dict) and "images" not in first


def is_json(text: str) -> bool:
    """Whether the whole of a text is one JSON value."""
    try:
        load_json(text, nan=True)
    except SceneError:
        return False
    return True
