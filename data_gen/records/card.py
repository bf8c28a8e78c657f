"""The dataset card: a README.md beside the records, for whoever finds the folder."""

from __future__ import annotations

import string
from collections.abc import Mapping
from pathlib import Path
from typing import Any

TEMPLATE = Path(__file__).with_name("templates") / "card.md"
IMPORTED_TEMPLATE = TEMPLATE.with_name("card_imported.md")

# Of the preset, what a reader asks for first; all of it is in metadata.json.
SHOWN_SETTINGS = ("width", "height", "samples", "shapes", "materials", "textures", "lighting", "kinds")


def write_card(folder: Path, metadata: Mapping[str, Any]) -> None:
    """Writes README.md, from the metadata alone."""
    text = imported_card(metadata) if "imported" in metadata else card(metadata)
    (folder / "README.md").write_text(text, encoding="utf-8")


def imported_card(metadata: Mapping[str, Any]) -> str:
    """The text of the card of a user's own pairs (data_gen.import_pairs)."""
    imported, statistics = metadata["imported"], metadata["statistics"]
    rows = [
        row(
            "pairs", ", ".join(f"{number} {split}" for split, number in metadata["counts"].items() if number)
        ),
        table("differences of a pair", statistics["differences"]),
        table("kinds of difference", statistics["kinds"]),
        row("pixels", imported["pixels"]),
        row("imported from", f"{imported['file']}, SHA-256 {imported['sha256'][:16]}"),
        row("git revision", metadata["git_revision"]),
    ]
    return string.Template(IMPORTED_TEMPLATE.read_text()).substitute(
        title=one_cell(imported["file"]), size=size_category(statistics["pairs"]), rows="\n".join(rows)
    )


def one_cell(text: Any) -> str:
    """A text that cannot end a cell of a table: names of kinds and files are the user's."""
    return str(text).replace("|", "\\|").replace("\n", " ")


def card(metadata: Mapping[str, Any]) -> str:
    """The text of the card. See docs/dig_pairs.md for what holds for every dataset of this kind."""
    preset, counts, statistics = metadata["preset"], metadata["counts"], metadata["statistics"]
    renderer = "Blender {blender}, Cycles on {device}".format(**metadata["renderer"])
    settings = [
        row(key, ", ".join(map(str, value)) if isinstance(value, list) else value)
        for key in SHOWN_SETTINGS
        if (value := preset.get(key))
    ]
    rows = [
        row("pairs", ", ".join(f"{number} {split}" for split, number in counts.items() if number)),
        table("differences of a pair", statistics["differences"]),
        table("objects of a pair", statistics["objects"]),
        table("kinds of difference", statistics["kinds"]),
        row("rendered by", renderer),
        row("git revision", metadata["git_revision"]),
        *settings,
    ]
    return string.Template(TEMPLATE.read_text()).substitute(
        title=f"{preset['name']}, seed {metadata['seed']}",
        size=size_category(statistics["pairs"]),
        rows="\n".join(rows),
        rejected=rejected_text(metadata["rejected_attempts"]),
        skipped=skipped_text(metadata["skipped_pairs"]),
        command=command(metadata["flags"]),
    )


def row(name: str, value: Any) -> str:
    return f"| {name} | {one_cell(value)} |"


def table(name: str, counts: Mapping[str, int]) -> str:
    """A row that lists counts: "1: 40, 2: 60"."""
    return row(name, ", ".join(f"{key}: {number}" for key, number in counts.items()) or "none")


def rejected_text(rejected: Mapping[str, int]) -> str:
    """How many attempts were turned down, and the three most frequent reasons."""
    shown = ", ".join(f"{reason} {number}" for reason, number in list(rejected.items())[:3])
    most = f" (most often: {shown})" if shown else ""
    return f"{sum(rejected.values())} attempts at scenes were rejected on the way{most}."


def skipped_text(skipped: Mapping[str, str]) -> str:
    if not skipped:
        return ""
    return f"\n{len(skipped)} pairs could not be made and are missing: {', '.join(skipped)}.\n"


def size_category(pairs: int) -> str:
    """The size as Hugging Face names it."""
    for limit, name in (
        (1000, "n<1K"),
        (10_000, "1K<n<10K"),
        (100_000, "10K<n<100K"),
        (1_000_000, "100K<n<1M"),
    ):
        if pairs < limit:
            return name
    return "n>1M"


# Flags that say how, where and in what order the work is done, and not what comes out.
WORKING_FLAGS = {
    "out",
    "stage",
    "shard_index",
    "num_shards",
    "workers",
    "threads",
    "blender",
    "blender_python",
}
WORKING_FLAGS |= {"blender", "blender_python", "time_limit", "max_skipped", "dry_run", "preview"}


def command(flags: Mapping[str, Any]) -> str:
    """The command line that makes the same pairs."""
    kept = {key: value for key, value in flags.items() if key not in WORKING_FLAGS}
    words = [f"--{key}={value}" for key, value in kept.items() if value not in (None, False, True)]
    words += [f"--{key}" for key, value in kept.items() if value is True]
    return " ".join(["python -m data_gen", *words, "--out=DIR"])
