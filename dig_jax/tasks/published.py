"""How many examples published annotation files have: a copy that is cut off is noticed before training.

LLaVA's files are counted in conversations, Visual Genome and the splits of Flickr30K Entities in images.
"""

from __future__ import annotations

import logging

from etils import epath

logger = logging.getLogger("dig_jax")

# What stands in the path of a file, or the name of a split -> how many there are, and of what.
SIZES = {
    "595k": (595_375, "conversations"),
    "blip_laion_cc_sbu_558k": (558_128, "conversations"),
    "llava_v1_5_mix665k": (665_298, "conversations"),
    "visual_genome": (108_077, "images"),
    "flickr30k/train": (29_783, "images"),
    "flickr30k/val": (1_000, "images"),
    "flickr30k/test": (1_000, "images"),
}


def release_of(file: epath.Path) -> str:
    """The key of `SIZES` for a file of conversations, by names of file and folder; "" for one's own."""
    name = f"{file.parent.name}/{file.stem}".lower()
    return next((key for key, (_, what) in SIZES.items() if what == "conversations" and key in name), "")


def check_count(release: str, count: int, where: object) -> str:
    """Says how much of a release there is.

    Args:
      release: key of `SIZES`; "" where nothing is known of it.
      count: examples that the files hold, those that cannot be used among them.
      where: the files, for errors.

    Returns:
      "" for all of them, or where nothing is known; else "partial, 12 of 665,298 conversations", which is
      logged as a warning too.

    Raises:
      ValueError: there are more than were published: these are other files under that name.
    """
    if not release:
        return ""
    known, what = SIZES[release]
    if count > known:
        raise ValueError(
            f"{where} holds {count:,} {what}, and {release} has {known:,}: these are other data under that"
            " name;"
            " rename them to have them taken as your own"
        )
    if count == known:
        return ""
    partial = f"partial, {count:,} of {known:,} {what}"
    logger.warning("%s: %s", where, partial)
    return partial
