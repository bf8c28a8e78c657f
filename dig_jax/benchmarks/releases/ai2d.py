"""AI2D as published: images/, questions/, annotations/ and ai2d_test_ids.csv (allenai.org/data/diagrams).

Some questions ask for labels of the diagram by letters ("abcLabel"); the letters are not in the pictures,
but in the annotations, as what replaces each text. They are drawn over the texts here, so a picture differs
from the ones that VLMEvalKit's table AI2D_TEST holds by the look of its letters.
"""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Iterator, Sequence

from etils import epath
from PIL import Image, ImageDraw

from dig_jax.benchmarks.releases import files
from dig_jax.benchmarks.row import Picture, PictureFile, Row
from dig_jax.data import images
from dig_jax.machines import textfile

_IDS = "ai2d_test_ids.csv"

Label = tuple[tuple[int, int, int, int], str]  # x0, y0, x1, y1 in pixels, and the letter


def rows(root: epath.Path, split: str) -> Sequence[Row]:
    """The questions about the pictures that ai2d_test_ids.csv lists.

    Raises:
      FileNotFoundError: a folder or the list is missing.
      ValueError: a file is of another form; names it.
    """
    base = files.find(root, "folder of questions", "AI2D/questions", "ai2d/questions", "questions/").parent
    listed = files.find(root, f"list {_IDS} of the test pictures", f"AI2D/{_IDS}", f"ai2d/{_IDS}", _IDS)
    wanted = {line.strip().removesuffix(".png") for line in textfile.read_text(listed).split("\n")} - {""}
    return [row for id in sorted(wanted, key=_number) for row in _rows(base, id, split)]


def _number(id: str) -> tuple[int, str]:
    return int(id) if id.isdigit() else -1, id


def _rows(base: epath.Path, id: str, split: str) -> Iterator[Row]:
    path = base / "questions" / f"{id}.png.json"
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing, and {_IDS} lists {id}")
    asked = textfile.field(textfile.read_json(path), "questions", dict, path) or {}
    picture = base / "images" / f"{id}.png"
    for number, (question, values) in enumerate(asked.items()):
        record = files.Record(values if isinstance(values, dict) else {}, f"{path}, question {number + 1}")
        options = files.lettered(record.texts("answerTexts"), record.place)
        right = record.number("correctAnswer")
        if not 0 <= right < len(options):
            raise ValueError(f"{record.place}: correctAnswer is {right} of {len(options)} answers")
        labelled = bool(record.values.get("abcLabel"))
        shown: Picture = PictureFile(picture)
        if labelled:
            shown = LabelledPicture(picture, base / "annotations" / f"{id}.png.json")
        yield Row(
            index=record.text("questionId", default=f"{id}.png-{number}"),
            images=(shown,),
            question=question,
            options=options,
            answer=list(options)[right],
            splits=(split,),
            fields={"abcLabel": json.dumps(labelled)},
        )


@dataclasses.dataclass(frozen=True)
class LabelledPicture(PictureFile):
    """A diagram whose texts are replaced by the letters that its questions speak of.

    Attributes:
      annotations: the JSON file that says which letter stands where.
    """

    annotations: epath.Path

    def read(self) -> bytes:
        """The picture with letters, as PNG. Raises OSError or ValueError."""
        picture = Image.fromarray(images.decode_image(images.read_file(self.path), self.name))
        draw = ImageDraw.Draw(picture)
        for (x0, y0, x1, y1), letter in _labels(self.annotations):
            draw.rectangle((x0, y0, x1, y1), fill="white", outline="black")
            middle, height = ((x0 + x1) / 2, (y0 + y1) / 2), max(8, min(y1 - y0, 40))
            draw.text(middle, letter, fill="black", anchor="mm", font_size=height)
        buffer = io.BytesIO()
        picture.save(buffer, "PNG")
        return buffer.getvalue()


def _labels(path: epath.Path) -> Iterator[Label]:
    texts = textfile.field(textfile.read_json(path), "text", dict, path) or {}
    for name, values in texts.items():
        record = files.Record(values if isinstance(values, dict) else {}, f"{path}, {name}")
        letter = record.text("replacementText", default="")
        if letter:
            corners = record.values.get("rectangle")
            if not isinstance(corners, list) or len(corners) != 2:
                raise ValueError(f"{record.place}: rectangle is {corners!r}; expected [[x0, y0], [x1, y1]]")
            flat = files.Record({"rectangle": [*corners[0], *corners[1]]}, record.place)
            x0, y0, x1, y1 = (round(value) for value in flat.numbers("rectangle", 4))
            yield (min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)), letter
