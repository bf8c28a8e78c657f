"""The sheet of answers: fixed ranks of the reward, for each number of differences."""

import json

from PIL import Image

from dig_jax.data.records import Pair
from dig_jax.tasks.boxes import pictures
from study.jobs import Place
from study.pictures import choose, draw
from tests.helpers.drawn_pairs import draw_pair, write_pairs


def draw_pair_picture(pair: Pair) -> Image.Image:
    return pictures.draw_boxes((pair.image_a, pair.image_b), pair.boxes, pair.boxes, ["one line"])


def answer(id: str, count: int, reward: float) -> dict:
    return {"id": id, "num_true": float(count), "reward": reward, "f1": 0.0, "text": "[]", "boxes": []}


def test_good_and_bad_answers_are_at_fixed_ranks_of_the_reward():
    answers = [answer(f"one-{n:02}", 1, n / 10) for n in (7, 0, 10, 3, 2, 9, 4, 1, 8, 5, 6)]
    rows = choose([*answers, answer("none", 0, 0.5)])
    assert [[chosen["id"] for chosen in row] for row in rows] == [["none", "none"], ["one-09", "one-01"]]


def test_the_sheet_has_a_row_per_number_of_differences(tmp_path):
    place = Place(tmp_path, tmp_path)
    assert draw(place, "full", 0) is None  # not scored yet
    pairs = [draw_pair(number, num_differences=number % 2) for number in range(4)]
    write_pairs(tmp_path / "final", {"train": pairs[:1], "test": pairs})
    scored = place.answers("full", 0)
    scored.parent.mkdir()
    answers = [answer(pair.id, len(pair.boxes), 0.1) for pair in pairs]
    answers[1] |= {"boxes": [[0.1, 0.1, 0.4, 0.4]], "text": "[[100,100,400,400]]"}
    scored.write_text(json.dumps({"answers": answers}))
    path = draw(place, "full", 0)
    width, height = Image.open(path).size
    picture = draw_pair_picture(pairs[0])
    assert width == round(2 * picture.width * 0.6)
    assert height >= round(2 * picture.height * 0.6)
