"""Datasets of the study of object crops, of one of `data_gen.align`: some kinds, with other crops.

    python -m study.align_data --data=DIR --out=DIR --kinds=I-C,C-I,T-I,I-T --crops=noise

`noise` puts even noise in the place of every crop and leaves the answers (control E3); `words` puts in the
place of every `<object>` what the object is called, all of its attributes, and shows no crop (control E4).
The folder appears when it is complete.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_gen.alignment.records import features, write_records
from data_gen.files import png
from data_gen.files.userfiles import user_path
from dig_jax.data.records import Records, open_records

CROPS = ("image", "noise", "words")
_ATTRIBUTES = ("size", "color", "texture", "material", "shape")
_FEATURES = ("id", "image", "scene", "things", "items", "crops")


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m study.align_data", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=user_path, required=True, help="dataset of data_gen.align")
    parser.add_argument("--out", type=user_path, required=True, help="the new one; must not exist yet")
    parser.add_argument("--kinds", required=True, help="of items to keep, with commas between")
    parser.add_argument("--crops", choices=CROPS, default="image")
    args = parser.parse_args(argv)
    derive(args.data, args.out, args.kinds.split(","), args.crops)


def derive(source: Path, out: Path, kinds: Collection[str], crops: str) -> None:
    """Writes the items of some kinds as a dataset of their own; see the module for `crops`.

    Raises:
      FileExistsError: `out` is there already.
      FileNotFoundError, ValueError: `source` holds no such dataset.
    """
    if out.exists():
        raise FileExistsError(f"--out={out} exists already: name a new folder, or delete it")
    metadata = json.loads((source / "metadata.json").read_text())
    staged = out.with_name(out.name + ".packing")
    shutil.rmtree(staged, ignore_errors=True)  # of a command that was killed
    staged.mkdir(parents=True)
    splits = {split: open_records(source, split) for split in ("train", "test")}
    height, width = next(iter(splits.values())).declared_size("image") or (None, None)
    made = {split: _examples(records, kinds, crops) for split, records in splits.items()}
    facts = metadata | {"derived": {"kinds": [*kinds], "crops": crops}}
    write_records(made, features(width, height, metadata["crop_side"]), facts, staged)
    (staged / "metadata.json").write_text(json.dumps(facts) + "\n")
    os.replace(staged, out)


def _examples(records: Records, kinds: Collection[str], crops: str) -> Iterator[dict[str, Any]]:
    for number in range(len(records)):
        read = records.read(number, _FEATURES)
        things = {thing["id"]: thing for thing in json.loads(read["things"])["things"]}
        rows: list[dict[str, Any]] = []
        kept: list[bytes] = []
        columns = {name: read["items"][name] for name in ("id", "kind", "style", "part", "item")}
        for place in range(len(columns["id"])):
            row = {name: column[place].decode() for name, column in columns.items()}
            if row["kind"] not in kinds:
                continue
            first, count = (int(read["items"][name][place]) for name in ("first_crop", "crops"))
            own = list(read["crops"][first : first + count])
            if crops == "words":
                row["item"], own = json.dumps(_in_words(json.loads(row["item"]), things)), []
            elif crops == "noise":
                own = [_noise(crop, (number, len(kept) + place)) for place, crop in enumerate(own)]
            rows.append({**row, "first_crop": len(kept), "crops": len(own)})
            kept += own
        texts = {name: read[name].decode() for name in ("id", "scene", "things")}
        if rows:
            yield {**texts, "image": read["image"], "items": rows, "crops": kept}


def _in_words(item: Mapping[str, Any], things: Mapping[int, Mapping[str, str]]) -> dict[str, Any]:
    """The item with the objects of its crops in words where they stood."""
    names = iter(called(things[cut["thing"]]) for cut in item["cuts"])
    rounds = []
    for said in item["rounds"]:
        first, *others = said["user"].split("<object>")
        rounds.append({**said, "user": first + "".join(next(names) + text for text in others)})
    return {**item, "rounds": rounds, "cuts": []}


def called(thing: Mapping[str, str]) -> str:
    """An object by all of its attributes: "the small red rubber cube"; a plain texture is not told."""
    words = (thing[name].replace("_", " ") for name in _ATTRIBUTES if thing[name] != "plain")
    return " ".join(("the", *words))


def _noise(crop: bytes, seed: Sequence[int]) -> bytes:
    """A picture of the size of a crop with nothing to see: every value of every pixel is drawn evenly."""
    size = png.decode(crop).shape
    return png.encode(np.random.default_rng(seed).integers(0, 256, size, np.uint8))


if __name__ == "__main__":
    main()
