"""Phrases and boxes of files that others publish: REC jsonl, refer JSON, and TFDS's `ref_coco`.

- REC jsonl, as released with Qwen-VL: a line per phrase, `{"image": path, "sent": phrase, "bbox": [x0, y0,
  x1, y1] in pixels, "height": ..., "width": ...}`; a `bbox` of `[]` or null says that nothing fits.
- refer JSON (github.com/lichengunc/refer): a folder with `instances.json` as of COCO and one `refs*.json`,
  the list of `refs(...).p`. Pickled files run code when they are read and are refused. To convert one that
  you trust: `python -c "import json, pickle; json.dump(pickle.load(open('refs(unc).p', 'rb'),
  encoding='latin1'), open('refs.json', 'w'))"`
- Visual Genome (`visual_genome`) and Flickr30K Entities (`flickr30k`), as published.
- `ref_coco` of TensorFlow Datasets, written with file_format=array_record: a record per image.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from etils import epath

from dig_jax.data import images
from dig_jax.data.example import BadRecord, Example, Shape, Size
from dig_jax.data.image_files import ImageSizes
from dig_jax.data.records import Records
from dig_jax.machines import textfile
from dig_jax.tasks.published import SIZES, check_count, phrases_of
from dig_jax.tasks.referring import flickr30k, visual_genome
from dig_jax.tasks.referring.records import Ask
from dig_jax.tasks.referring.target import Entry, Target, box_in, say_left_out
from dig_jax.tasks.splits import lines_file, named_and_part

_REF_COCO = ("image", "objects")


class FileSource:
    """Phrases whose images are files of their own.

    Raises:
      ValueError: none of them is of the wanted split.
    """

    def __init__(self, name: str, entries: list[Entry], ask: Ask, task: str):
        self.name = name
        self.unusable: tuple[tuple[int, BadRecord], ...] = ()
        self._entries = entries
        self._ask = ask
        self._task = task
        self._sizes = ImageSizes()

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index: int) -> Example:
        """Phrase number `index` with its image. Raises BadRecord."""
        entry = self._entries[index]
        try:
            image = images.decode_image(entry.image.read_bytes(), str(entry.image))
            size = (image.shape[0], image.shape[1])
            if entry.size not in (None, size):
                raise ValueError(f"{entry.image} has (height, width) {size}, and the file says {entry.size}")
            target = Target(entry.phrase, box_in(entry, size))
        except Exception as error:  # a damaged image can make its reader raise anything
            raise BadRecord(f"{self.name}, {entry.id}: {error}") from error
        return Example(entry.id, self._ask(entry.phrase, (size,)).messages, (image,), target, self._task)

    def shapes(self) -> list[Shape | None]:
        """The shape of every example; the headers of images are read where the file does not tell a size."""
        return [
            size and self._ask(entry.phrase, (size,))
            for entry, size in ((entry, entry.size or self._sizes[entry.image]) for entry in self._entries)
        ]


def open_file(path: epath.Path, split: str, root: str, ask: Ask, task: str) -> FileSource | None:
    """Opens the phrases of `entries`; None for a folder that holds none of them.

    Args:
      path, split, root: as of `entries`.
      ask: makes the question.
      task: name of the task.

    Raises:
      ValueError: as `entries`.
    """
    found = entries(path, split, epath.Path(root) if root else None)
    return None if found is None else FileSource(f"{path}, split {split!r}", found, ask, task)


def entries(path: epath.Path, split: str, root: epath.Path | None) -> list[Entry] | None:
    """The phrases of REC jsonl, refer JSON, Visual Genome or Flickr30K Entities; None for another folder.

    Args:
      path: a `.jsonl` file, or one of Visual Genome's, which holds one split, whatever `split` says; or a
        folder.
      split: which of a folder: its file NAME_SPLIT.jsonl or SPLIT.jsonl, or the refs with that `split`; with
        a slice, such as "val[:100]", a part of it.
      root: folder of the images; None for that of the file.

    Raises:
      ValueError: lines or entries are of another form, all of them counted and the first one named; or the
        folder has no or several files of the split; or more than were published under its name.
    """
    name, part = named_and_part(split)
    if visual_genome.is_there(path):
        return visual_genome.read(path, root)[part]
    if flickr30k.is_there(path):
        return flickr30k.read(path, name, root)[part]
    if path.is_dir() and (path / "instances.json").exists():
        return list(_read_refer(path, name, root or path / "images"))[part]
    file = lines_file(path, name)
    if file is None:
        return None
    found = _read_jsonl(file, root or file.parent)
    check_count(file.stem if file.stem in SIZES else "", len(found), file)
    return found[part]


def _read_jsonl(path: epath.Path, root: epath.Path) -> list[Entry]:
    entries, wrong = [], []
    for number, line in enumerate(textfile.read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            entries.append(_entry(json.loads(line), f"{path.stem}-{number}", root))
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            wrong.append(f"line {number}: {error!r}")
    if wrong:
        raise ValueError(
            f'{path}: {len(wrong)} lines are not {{"image": ..., "sent": ..., "bbox": [x0, y0, x1, y1],'
            f' "height": ..., "width": ...}}; the first is {wrong[0]}'
        )
    return entries


def _entry(line: dict[str, Any], id: str, root: epath.Path) -> Entry:
    image, phrase, corners = line["image"], line["sent"], line["bbox"] or None
    if not (isinstance(image, str) and isinstance(phrase, str) and phrase.strip()):
        raise ValueError("image and sent must be texts")
    size = None
    if "height" in line or "width" in line:
        size = int(line["height"]), int(line["width"])
    entry = Entry(id, root / image, size, phrase.strip(), corners and _four(corners))
    if size:
        box_in(entry, size)
    return entry


def _four(numbers: Any) -> tuple[float, ...]:
    if len(numbers) != 4 or not all(np.isfinite(float(number)) for number in numbers):
        raise ValueError(f"bbox {numbers} is not four numbers")
    return tuple(float(number) for number in numbers)


def _read_refer(folder: epath.Path, split: str, root: epath.Path) -> Iterator[Entry]:
    found = sorted(folder.glob("refs*.json"))
    if len(found) != 1:
        pickled = "; refs*.p run code when they are read: convert one that you trust to JSON"
        raise ValueError(
            f"{folder} has {len(found)} files refs*.json, expected one{pickled if not found else ''}"
        )
    instances, refs = textfile.read_json(folder / "instances.json"), json.loads(textfile.read_text(found[0]))
    try:
        files = {image["id"]: image for image in instances["images"]}
        boxes = {annotation["id"]: annotation["bbox"] for annotation in instances["annotations"]}
        chosen = [ref for ref in refs if ref["split"] == split]
        if not chosen:
            known = ", ".join(sorted({ref["split"] for ref in refs}))
            raise ValueError(f"{found[0]} has no split {split!r}; it has {known}")
        release = phrases_of(folder.name, split, {ref["split"] for ref in refs})
        check_count(release, sum(len(ref["sentences"]) for ref in chosen), found[0])
        wrong = []
        for ref in chosen:
            image = files[ref["image_id"]]
            x, y, width, height = boxes[ref["ann_id"]]
            size = int(image["height"]), int(image["width"])
            corners = x, y, x + width, y + height
            said = [
                Entry(
                    f"{ref['ref_id']}-{one['sent_id']}", root / image["file_name"], size, one["sent"], corners
                )
                for one in ref["sentences"]
            ]
            try:
                box_in(Entry("", root, size, "", corners), size)
                yield from said
            except ValueError as error:
                wrong.append(f"ref {ref['ref_id']}: {error}")
        say_left_out(wrong, len(chosen), found[0])
    except (KeyError, TypeError) as error:
        raise ValueError(f"{folder}: instances.json or {found[0].name} lacks {error!r}") from error


class RefCocoSource:
    """The phrases of TFDS's `ref_coco`, all of those of an image in one record.

    Its boxes are y0, x0, y1, x1 in 0..1.
    """

    def __init__(self, records: Records, ask: Ask, task: str):
        self.name = records.name
        self._records = records
        self._ask = ask
        self._task = task
        self.unusable: list[tuple[int, BadRecord]] = []
        self._asked: list[tuple[int, Size, str, Target]] = []
        for record in range(len(records)):
            try:
                self._asked += list(self._phrases(record))  # all of a record or none
            except Exception as error:  # damaged bytes can make any of the readers raise anything
                self.unusable.append((record, BadRecord(f"{self.name}, record {record}: {error}")))

    def _phrases(self, record: int) -> Iterator[tuple[int, Size, str, Target]]:
        read = self._records.read(record, _REF_COCO)
        size = images.image_size(read["image"], f"{self.name}, record {record}")
        objects = read["objects"]
        said = objects["refexp"]  # a sequence of sequences is read column by column
        for box, ids, texts in zip(objects["bbox"], said["refexp_id"], said["raw"], strict=True):
            top, left, bottom, right = np.asarray(box, np.float32)
            boxes = np.array([[left, top, right, bottom]], np.float32)
            for id, text in zip(ids, texts, strict=True):
                yield record, size, f"refexp-{int(id)}", Target(text.decode(), boxes)

    def __len__(self) -> int:
        return len(self._asked)

    def __getitem__(self, index: int) -> Example:
        """Phrase number `index` with its image. Raises BadRecord."""
        record, size, id, target = self._asked[index]
        try:
            image = self._records.decode(self.image_file(record), id)
        except Exception as error:
            raise BadRecord(f"{self.name}, record {record}: {error}") from error
        return Example(id, self._ask(target.phrase, (size,)).messages, (image,), target, self._task)

    def shapes(self) -> list[Shape | None]:
        """The shape of every example."""
        return [self._ask(target.phrase, (size,)) for _, size, _, target in self._asked]

    def phrases(self) -> Sequence[tuple[int, Size, str, Target]]:
        """Of every example: its record, the size of its image, its id, and what is right."""
        return self._asked

    def image_file(self, record: int) -> bytes:
        """The file of the image of a record. Damaged bytes can make any of the readers raise anything."""
        # With the objects: TFDS's parser stumbles over nested sequences that are not asked for.
        data: bytes = self._records.read(record, _REF_COCO)["image"]
        return data
