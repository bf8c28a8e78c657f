"""What a model of the family with objects can do on rendered scenes: figures beside floors, and pictures.

    make quickstart-align
    python -m study.align_page --model=runs/quickstart_align --data=data/quickstart_align --out=runs/page

asks the held-out questions greedily (`align_phrases` and its kin; answers are kept, and a run that was
stopped goes on), prints each score with its interval and what is scored without looking, and writes
page.html: answers at fixed ranks, not chosen, with a map of where the last layer looks (`measure.attention`).
"""

from __future__ import annotations

import argparse
import base64
import dataclasses
import html
import io
import json
from collections.abc import Sequence

import numpy as np
from etils import epath
from PIL import Image

from dig_jax.benchmarks import opening
from dig_jax.benchmarks.row import Mark, Row
from dig_jax.machines.folder import to_path, write_json, write_result
from dig_jax.measure import attention, command, folder
from dig_jax.report.style import STYLE
from dig_jax.session import Session, load_model
from dig_jax.tasks.boxes.pictures import TRUE_COLOR, draw_boxes
from dig_jax.tasks.questions import pixels
from study import align_floors

# Benchmark -> what it is called, its score, and what scores of it are divided by.
ASKED = {
    "align_phrases": ("phrase to box (T-C), IoU at least 0.5", "Average/Precision@1", 100.0),
    "align_crops": ("crop to box (I-C), IoU at least 0.5", "Average/Precision@1", 100.0),
    "align_choices": ("which crop (C-I, T-I)", "Overall", 1.0),
    "align_objects": ("is there, accuracy", "Overall/acc", 100.0),
}
CHANCE = {"align_choices": 0.25, "align_objects": 0.5}
SHOWN = {"align_phrases": 6, "align_crops": 4, "align_choices": 6}  # answers on the page


@dataclasses.dataclass(frozen=True)
class Line:
    """A score, 0 to 1.

    Attributes:
      words: what was asked.
      rows: how many questions.
      score: of the model.
      ends: of its 95 % interval.
      floors: what does not look -> its score; "chance" of letters and words.
      seeing: what sees all objects and does not read the question -> its score.
    """

    words: str
    rows: int
    score: float
    ends: tuple[float, float]
    floors: dict[str, float]
    seeing: dict[str, float]

    @property
    def above(self) -> bool:
        """Whether the whole interval is above all that does not look."""
        return self.ends[0] > max(self.floors.values())

    def __str__(self) -> str:
        """As it is printed."""
        verdict = "above" if self.above else "NOT above"
        ends = f"{self.ends[0]:.1%} to {self.ends[1]:.1%}"
        told = (
            f"{self.words}: {self.score:.1%} ({ends}, {self.rows} questions), {verdict} {_told(self.floors)}"
        )
        return told + (f"; with eyes alone {_told(self.seeing)}" if self.seeing else "")


def _told(scores: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.1%}" for name, value in scores.items())


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m study.align_page", description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="workdir, or Hugging Face folder")
    parser.add_argument("--data", required=True, help="dataset of data_gen.align, with a split test")
    parser.add_argument("--out", required=True, help="folder for answers, scores and the page")
    parser.add_argument("--config", default="", help="how the model is asked (default: the workdir's)")
    args = parser.parse_args(argv)
    out = to_path(args.out)
    flags = [f"--model={args.model}", f"--data_root={args.data}", "--greedy", f"--out={out}"]
    flags += [f"--config={args.config}"] if args.config else []
    command.main([*flags, f"--benchmarks={','.join(ASKED)}"])
    found = lines(out, args.data)
    page = _page(args.model, found, pictures(load_model(args.model), out, args.data))
    write_json(out / "lines.json", [dataclasses.asdict(line) for line in found])
    write_result(out / "page.html", page)
    print("\n".join(map(str, found)))
    print(f"pictures of answers: {out / 'page.html'}")


def lines(out: epath.Path, data: epath.PathLike) -> list[Line]:
    """The scores in a folder of results, with what is scored without looking."""
    _, marked = folder.read(out, [*ASKED])
    summaries = {name: json.loads((out / f"{name}.json").read_text()) for name in ASKED}
    found = []
    for name, (words, score, top) in ASKED.items():
        _, rows, _ = marked[name]
        summary = summaries[name]
        low, high = summary["intervals"][score]
        floors, seeing = {"chance": CHANCE.get(name, 0.0)}, dict[str, float]()
        if name not in CHANCE:
            floors, seeing = align_floors.of_rows(data, rows)
        found.append(
            Line(words, len(rows), summary["scores"][score] / top, (low / top, high / top), floors, seeing)
        )
    return found


def pictures(session: Session, out: epath.Path, data: epath.PathLike) -> dict[str, list[Image.Image]]:
    """By benchmark, pictures of answers at even ranks of how right they are; of equal ones by index."""
    _, marked = folder.read(out, [*SHOWN])
    found: dict[str, list[Image.Image]] = {}
    for name, count in SHOWN.items():
        benchmark, _, marks = marked[name]
        rows = {row.index: row for row in opening.open_rows(benchmark, data).rows}
        ranked = sorted(marks, key=lambda mark: (-mark.values.get("iou", mark.hit), mark.index))
        chosen = [ranked[place] for place in np.linspace(0, len(ranked) - 1, count).round().astype(int)]
        found[name] = [_picture(session, rows[mark.index], mark) for mark in chosen]
    return found


def _picture(session: Session, row: Row, mark: Mark) -> Image.Image:
    """The picture with boxes, where the last layer looks, and the crops, the right one framed."""
    shown = [pixels(picture) for picture in row.images]
    height, width = shown[0].shape[:2]
    true = np.array(row.boxes, np.float64).reshape(-1, 4)
    said = json.loads(mark.answer) if row.boxes and mark.answer else []
    answered = np.array(said, np.float64).reshape(-1, 4) / [width, height, width, height]
    words = mark.answer if not row.boxes else session.desk.boxes.write(answered, (height, width))[1:-1]
    caption = [row.question.replace("<image>", "").strip(), f"answer: {words or 'none could be read'}"]
    maps = [] if not words else [_map(session, row, shown, words)]
    if row.answer:
        right = [*row.options].index(row.answer)
        caption.append(f"right: {row.answer}")
        shown = [shown[0], *(_framed(crop, number == right) for number, crop in enumerate(shown[1:]))]
    else:
        caption.append(f"IoU {mark.values['iou']:.2f}")
    panel = draw_boxes([shown[0]], true, answered, caption)
    return _beside(panel, [*maps, *map(Image.fromarray, shown[1:])])


def _map(session: Session, row: Row, shown: Sequence[np.ndarray], words: str) -> Image.Image:
    """Where the last layer looks: from the letter's crop, where that sees the picture, or from the answer."""
    request = session.request(shown, row.question)
    looked = attention.look(session.policy, session.desk, request, session.desk.tokenizer.encode(words))
    chosen = looked.crops[[*row.options].index(words)] if words in row.options else looked.answer
    heat = chosen if chosen.any() else looked.answer
    return attention.overlay(shown[0], heat, session.desk.image_config)


def _framed(crop: np.ndarray, right: bool) -> np.ndarray:
    framed = np.pad(crop, ((4, 4), (4, 4), (0, 0)))
    if right:
        framed[np.pad(np.zeros(crop.shape[:2], bool), 4, constant_values=True)] = TRUE_COLOR
    return framed


def _beside(panel: Image.Image, others: Sequence[Image.Image], side: int = 190) -> Image.Image:
    """A picture with others in two columns to its right."""
    sized = [other.resize((side, round(side * other.height / other.width))) for other in others]
    rows = (len(sized) + 1) // 2
    sheet = Image.new(
        "RGB",
        (panel.width + min(2, len(sized)) * (side + 8), max(panel.height, rows * (side + 8))),
        (24, 24, 27),
    )
    sheet.paste(panel, (0, 0))
    for number, other in enumerate(sized):
        sheet.paste(other, (panel.width + number % 2 * (side + 8), 12 + number // 2 * (side + 8)))
    return sheet


def _page(model: str, found: Sequence[Line], shown: dict[str, list[Image.Image]]) -> str:
    cells = "".join(
        f"<tr><th>{html.escape(line.words)}<br>{line.rows} questions</th><td><b>{line.score:.1%}</b><br>"
        f'{line.ends[0]:.1%} to {line.ends[1]:.1%}</td><td class="{"better" if line.above else "worse"}">'
        f"{html.escape(_told(line.floors))}</td><td>{html.escape(_told(line.seeing))}</td></tr>"
        for line in found
    )
    figures = "".join(
        f'<section><h2>{html.escape(ASKED[name][0])}</h2><div class="samples">'
        + "".join(f'<figure><img alt="an answer" src="{_data(picture)}"></figure>' for picture in some)
        + "</div></section>"
        for name, some in shown.items()
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" '
        f'content="width=device-width, initial-scale=1"><title>{html.escape(model)}</title>'
        f"<style>{STYLE}</style></head><body><main><header><h1>{html.escape(model)}</h1>"
        "<p>held-out scenes, greedy answers; green: what is true, red: what was answered. Beside a"
        " picture: where the last layer looks, from the answer or from the crop chosen, summed over"
        ' heads.</p></header><section><div class="wide"><table><thead><tr><th></th><td>score, 95 % interval'
        "</td><td>without looking</td><td>seeing objects, not reading</td></tr></thead>"
        f"<tbody>{cells}</tbody></table></div></section>"
        f"{figures}</main></body></html>\n"
    )


def _data(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


if __name__ == "__main__":
    main()
