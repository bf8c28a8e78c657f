"""An HTML page of items, a few of each kind: pictures with the boxes of the text, crops in their places."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from data_gen.alignment.audit import Balance
from data_gen.alignment.crops import CLOSEUP, IMAGE, RERENDER
from data_gen.alignment.items import KINDS, Item
from data_gen.alignment.records import Aligned, AlignedDataset
from data_gen.alignment.things import View
from data_gen.records.dataset import decode_png
from data_gen.records.gallery import data_uri, write_page

TEMPLATE = Path(__file__).with_name("templates") / "alignment.html"
PER_KIND = 12  # items shown; the balance sheet counts all
_BOX = re.compile(r"\[\d\.\d{3}(?:,\d\.\d{3}){3}\]")


def write_gallery(dataset: AlignedDataset, path: Path, per_kind: int = PER_KIND) -> None:
    """Writes the page: items of each kind, spread over the pictures. Raises NoDataset."""
    total = sum(dataset.splits.values())
    step = max(1, total // (2 * per_kind))
    balance, shown = Balance(), {kind: [] for kind in KINDS}  # type: ignore[var-annotated]
    number = 0
    for split in sorted(dataset.splits, reverse=True):
        for record in dataset.records(split):
            balance.add(record, split)
            if number % step == 0:
                _choose(record, shown, per_kind)
            number += 1
    data = {
        "sheet": balance.to_json_values(),
        "facts": facts(dataset),
        "items": [each for kind in KINDS for each in shown[kind]],
    }
    title = f"dig_align: {dataset.metadata['source'].get('preset') or dataset.folder.name}"
    write_page(TEMPLATE, path, title, data)


def facts(dataset: AlignedDataset) -> list[tuple[str, str]]:
    """What the line under the title says: (value, what it is)."""
    splits = [(str(number), f"{name} pictures") for name, number in dataset.splits.items()]
    side = dataset.metadata["crop_side"]
    view = dataset.metadata.get("crop", {"view": IMAGE})["view"]  # older datasets have cut ones alone
    crops = {IMAGE: "cut from the picture", CLOSEUP: "rendered", RERENDER: "rendered from beside"}[view]
    return [
        *splits,
        (f"{side}×{side}", f"crops, {crops}"),
        (str(dataset.metadata["git_revision"])[:9], "revision"),
    ]


def _choose(record: Aligned, shown: dict[str, list[dict[str, Any]]], per_kind: int) -> None:
    """Takes one item of each kind that has too few yet, another one of the kind in every picture."""
    picture = None
    for kind, chosen in shown.items():
        found = [(row, item) for row, (_, item) in enumerate(record.items) if item.kind == kind]
        if not found or len(chosen) >= per_kind:
            continue
        row, item = found[len(chosen) % len(found)]
        picture = picture or data_uri(decode_png(record.picture, record.view.id))
        crops = [data_uri(decode_png(crop, record.items[row][0])) for crop in record.crops[row]]
        chosen.append(describe(record.view, item, record.items[row][0], picture, crops))


def describe(view: View, item: Item, id: str, picture: str, crops: list[str]) -> dict[str, Any]:
    """An item as the page takes it; boxes are in shares of the picture's width and height."""
    texts = [text for each in item.rounds for text in (each.user, each.assistant)]
    said = dict.fromkeys(box for text in texts for box in _BOX.findall(text))
    own = [view.box_text(view.by_id[target].box) for target in item.targets]
    said.update(dict.fromkeys(own))  # where the answer is a letter or a word, its object is boxed too
    return {
        "id": id,
        "kind": item.kind,
        "style": item.style,
        "part": item.part,
        "picture": picture,
        "ratio": view.width / view.height,
        "crops": crops,
        "boxes": [{"text": text, "box": _unpadded(view, text), "target": text in own} for text in said],
        "rounds": [{"user": each.user, "assistant": each.assistant} for each in item.rounds],
        "programs": [each.ask for each in item.rounds],
        "facts": dict(item.facts),
    }


def _unpadded(view: View, text: str) -> list[float]:
    """The text of a box -> shares of the picture itself."""
    x0, y0, x1, y1 = (float(number) * view.side for number in text[1:-1].split(","))
    left, top = (view.side - view.width) // 2, (view.side - view.height) // 2
    return [
        (x0 - left) / view.width,
        (y0 - top) / view.height,
        (x1 - left) / view.width,
        (y1 - top) / view.height,
    ]
