"""A sheet of good and bad answers: per number of differences, at fixed ranks of the reward, not chosen."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dig_jax.data.records import open_pairs
from dig_jax.tasks.boxes.pictures import draw_boxes
from study.arms import FINAL
from study.jobs import Place

RANKS = {"good": 0.9, "bad": 0.1}  # columns: quantiles of the reward among pairs with as many differences
_SCALE = 0.6


def draw(place: Place, name: str, seed: int) -> Path | None:
    """Draws OUT/answers.png from the scored answers of a run; None if they are not there yet."""
    scored = place.answers(name, seed)
    if not scored.exists():
        return None
    source = open_pairs(place.data / FINAL, "test")
    pairs = {pair.id: pair for pair in (source[index] for index in range(len(source)))}
    rows = []
    for chosen in choose(json.loads(scored.read_text())["answers"]):
        row = []
        for word, answer in zip(RANKS, chosen, strict=True):
            pair = pairs[answer["id"]]
            caption = [f"{word}: reward {answer['reward']:.2f}, F1 {answer['f1']:.2f}", answer["text"]]
            images, answered = (pair.image_a, pair.image_b), np.array(answer["boxes"])
            row.append(draw_boxes(images, pair.boxes, answered, caption))
        rows.append(row)
    path = place.out / "answers.png"
    _sheet(rows).save(path)
    return path


def choose(answers: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """For each number of differences, the answers at `RANKS` of the reward; of equal rewards, by id."""
    chosen = []
    for count in sorted({answer["num_true"] for answer in answers}):
        group = [answer for answer in answers if answer["num_true"] == count]
        group.sort(key=lambda answer: (answer["reward"], answer["id"]))
        chosen.append([group[round(rank * (len(group) - 1))] for rank in RANKS.values()])
    return chosen


def _sheet(rows: list[list[Image.Image]]) -> Image.Image:
    width = sum(picture.width for picture in rows[0])
    heights = [max(picture.height for picture in row) for row in rows]
    sheet = Image.new("RGB", (width, sum(heights)))
    top = 0
    for row, height in zip(rows, heights, strict=True):
        left = 0
        for picture in row:
            sheet.paste(picture, (left, top))
            left += picture.width
        top += height
    return sheet.resize((round(sheet.width * _SCALE), round(sheet.height * _SCALE)), Image.Resampling.LANCZOS)
