"""The flags that say what is made of pairs, shared by the command and its Beam pipeline."""

from __future__ import annotations

import argparse
from typing import Any

from data_gen.alignment.closeups import Rendering
from data_gen.alignment.crops import IMAGE, SOURCES
from data_gen.alignment.items import KINDS
from data_gen.alignment.make import DEFAULT_SHARES, PLACES, Recipe
from data_gen.alignment.records import PICTURES, Maker
from data_gen.alignment.refer import STYLES
from data_gen.alignment.rules import rules_for
from data_gen.alignment.words import vocabulary_of
from data_gen.files.userfiles import home_expanded, user_path
from data_gen.records.dataset import Dataset, NoDataset
from data_gen.render.interpreter import find_blender

DEVICES = ("cpu", "cuda", "optix")  # of render/worker.py


def argument_parser(prog: str) -> argparse.ArgumentParser:
    """A parser with the flags of both commands."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {prog}",
        description="Turns the pictures of a dig_pairs dataset into the six kinds of TinyGroundingGPT (T-C, "
        "C-T, I-C, C-I, T-I, I-T: text, coordinate, object image), questions of yes and no, conversations "
        "and grounded descriptions, whose every label follows from the scene.",
    )
    add = parser.add_argument
    add("--data", type=user_path, help="folder that `python -m data_gen` wrote")
    add("--out", type=user_path, help="folder to write, which does not exist yet")
    add("--seed", type=int, default=0, help="decides, with a picture's id, all that is drawn (default 0)")
    shares = ",".join(f"{kind}:{share:g}" for kind, share in DEFAULT_SHARES.items())
    text = f"items of each kind per picture, such as T-C:4,I-C:0.2 (default {shares})"
    add("--items", default=shares, help=text)
    text = "share of the pairs of shape and colour that training never asks for (default 0.05)"
    add("--held_out", type=float, default=0.05, help=text)
    text = (
        "what phrases say: attributes or a superlative (ref), attributes alone (ref+), a relation to another"
        " object (refg); equally many of each (default ref,ref+,refg)"
    )
    add("--styles", default=",".join(STYLES), help=text)
    text = (
        "where the picture stands in the first question: before its words, as models expect that were trained"
        " on it so, or behind them, which a model from nothing learns far sooner (default first)"
    )
    add("--picture", choices=PLACES, default=PLACES[0], help=text)
    text = "pixels of the square as the model sees it, which says what is too small (default 336)"
    add("--model_side", type=int, default=336, help=text)
    text = "pixels of a crop (default: half of the picture's shorter side)"
    add("--crop_side", type=int, default=0, help=text)
    add("--pictures", choices=("both", *PICTURES), default="both", help="of every pair (default both)")
    add("--max_pairs", type=int, default=0, help="of every split, from the first (default all)")
    text = (
        "where the pixels of crops are from: cut from the picture (default); a closeup of the same window, "
        "rendered; or the object rendered again from 15 to 30 degrees beside (docs/alignment.md)"
    )
    add("--crop", choices=SOURCES, default=IMAGE, help=text)
    add = parser.add_argument_group("crops that are rendered").add_argument
    text = "interpreter that can import bpy (default: .venv-bpy/bin/python)"
    add("--blender_python", type=home_expanded, help=text)
    add("--blender", type=home_expanded, help="an installed Blender, instead of bpy")
    add("--device", choices=DEVICES, default="cpu", help="what Cycles renders on (default: cpu)")
    add("--assets", type=user_path, help="folder of the meshes, textures and skies that scenes name")
    return parser


def rendering_of(args: argparse.Namespace) -> Rendering | None:
    """How crops are rendered; None where they are cut from the pictures.

    Raises:
      ValueError: a flag has no use, or contradicts another one.
      NoBlender: nothing here can render.
    """
    if args.crop == IMAGE:
        return None
    if args.blender and args.blender_python:
        raise ValueError("--blender and --blender_python: name one of them")
    if args.assets and not args.assets.is_dir():
        raise ValueError(f"--assets={args.assets}: no such folder")
    blender = find_blender(args.blender_python, args.blender)
    return Rendering(args.crop, args.seed, blender, args.device, args.assets)


def read_items(text: str) -> dict[str, float]:
    """ "T-C:4,I-C:0.2" -> shares. Raises ValueError, naming the part."""
    shares = {}
    for part in text.split(","):
        kind, _, share = part.strip().partition(":")
        try:
            shares[kind] = float(share)
        except ValueError:
            known = ", ".join(KINDS)
            raise ValueError(f"--items: {part!r}: expected KIND:NUMBER, with a kind of {known}") from None
    return shares


def maker_of(
    args: argparse.Namespace,
    metadata: dict[str, Any],
    size: tuple[int, int],
    rendering: Rendering | None = None,
) -> Maker:
    """What turns pairs into records, whose pictures have this width and height.

    Raises:
      ValueError: settings out of bounds; names the flag.
    """
    side = args.crop_side or min(size) // 2
    if not 16 <= side <= 1024:
        raise ValueError(f"--crop_side={args.crop_side}: expected 16 to 1024 pixels, got {side}")
    styles = tuple(style.strip() for style in args.styles.split(","))
    recipe = Recipe(args.seed, read_items(args.items), args.held_out, styles, args.picture)
    pictures = PICTURES if args.pictures == "both" else (args.pictures,)
    rendered = rendering.facts() if rendering else None
    return Maker(recipe, rules_for(args.model_side), vocabulary_of(metadata), pictures, side, rendered)


def counts_of(args: argparse.Namespace, source: Dataset) -> dict[str, int]:
    """Pairs taken of every split that has any. Raises NoDataset where none has."""
    if args.max_pairs < 0:
        raise ValueError(f"--max_pairs={args.max_pairs}: expected a number from 1, or 0 for all")
    counts = {name: min(number, args.max_pairs or number) for name, number in source.splits.items() if number}
    if not counts:
        raise NoDataset(f"{source.folder} holds no pairs")
    return counts


def picture_size(source: Dataset, counts: dict[str, int]) -> tuple[int, int]:
    """Width and height of the pictures, which are those of the first one."""
    height, width = source.pair(next(iter(counts)), 0).decoded()[0].shape[:2]
    return width, height
