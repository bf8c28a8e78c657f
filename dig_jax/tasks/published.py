"""How many examples published annotation files have: a copy that is cut off is noticed before training.

LLaVA's files are counted in conversations, RefCOCO's in phrases, Visual Genome and the splits of Flickr30K
Entities in images. Sources: issue 657 of haotian-liu/LLaVA for the 665K; the rows of the copy
theblackcat102/llava-pretrain on Hugging Face for the 558K; the report of a training on
LLaVA-CC3M-Pretrain-595K (wandb.ai/norikenpi-individual/qwen-vl-mini) for the 595K, whose card says 595K
alone; the lists of the release of Flickr30K Entities, counted; visualgenome.org; for RefCOCO the page on it
at flageval.baai.ac.cn, and for the training split of RefCOCO+ its total of 141,564. That of RefCOCOg (umd)
is as its users report it: TFDS's page on ref_coco has its 42,226 objects, and no document with the number
of its phrases was found.
"""

from __future__ import annotations

import logging
from collections.abc import Collection

from etils import epath

logger = logging.getLogger("dig_jax")

# What stands in the path of a file, or the name of a split -> how many there are, and of what.
SIZES = {
    "595k": (595_375, "conversations"),
    "blip_laion_cc_sbu_558k": (558_128, "conversations"),
    "llava_v1_5_mix665k": (665_298, "conversations"),
    "refcoco_train": (120_624, "phrases"),
    "refcoco_val": (10_834, "phrases"),
    "refcoco_testA": (5_657, "phrases"),
    "refcoco_testB": (5_095, "phrases"),
    "refcoco+_train": (120_191, "phrases"),
    "refcoco+_val": (10_758, "phrases"),
    "refcoco+_testA": (5_726, "phrases"),
    "refcoco+_testB": (4_889, "phrases"),
    "refcocog_train": (80_512, "phrases"),
    "refcocog_val": (4_896, "phrases"),
    "refcocog_test": (9_602, "phrases"),
    "visual_genome": (108_077, "images"),
    "flickr30k/train": (29_783, "images"),
    "flickr30k/val": (1_000, "images"),
    "flickr30k/test": (1_000, "images"),
}


def release_of(file: epath.Path) -> str:
    """The key of `SIZES` for a file of conversations, by names of file and folder; "" for one's own."""
    name = f"{file.parent.name}/{file.stem}".lower()
    return next((key for key, (_, what) in SIZES.items() if what == "conversations" and key in name), "")


def phrases_of(name: str, split: str, splits: Collection[str]) -> str:
    """The key of `SIZES` for a split of RefCOCO, RefCOCO+ or RefCOCOg; "" for others.

    Args:
      name: of the file's folder.
      split: wanted.
      splits: all that there are. Two sets of them were published; counted are those with testA and testB
        (unc), and of RefCOCOg those with a test set (umd), as papers report.
    """
    usual = "test" in splits if name == "refcocog" else "testA" in splits
    key = f"{name}_{split}"
    return key if usual and key in SIZES else ""


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
