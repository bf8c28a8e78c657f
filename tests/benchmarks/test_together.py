"""Groups of rows that are not whole are counted before they are scored."""

from dig_jax.benchmarks import together
from dig_jax.benchmarks.row import Row

OPTIONS = {"A": "1", "B": "2", "C": "3"}


def test_every_rotation_of_a_question_must_be_there():
    rows = [Row(str(i + k * 1_000_000), (), "", options=OPTIONS) for i in (1, 2) for k in range(3)]
    assert together.rotations(rows) == []
    assert together.rotations(rows[:-1]) == [
        "1 of 2 questions lack all its rotations, the first is question 2"
    ]
    assert len(together.rotations([row for row in rows if int(row.index) < 1_000_000])) == 1


def test_every_cycle_must_be_there():
    orders = ({"A": "x", "B": "y"}, {"A": "y", "B": "x"})
    rows = [
        Row(str(i), (), f"Which? ({question})", orders[i % 2], fields={"cycle_category": str(i % 4)})
        for i, question in enumerate("aaaabbbb")
    ]
    assert together.cycles(rows) == together.cycles([*rows, *rows[4:]]) == []  # two pictures, one question
    said = ["1 of 2 questions lack its four cycles, the first is question Which? (a) | x | y"]
    assert together.cycles(rows[1:]) == together.cycles([*rows, rows[0]]) == said


def test_both_rows_of_a_pair_must_be_there():
    rows = [Row(str(number), (), "") for number in range(1, 7)]
    assert together.pairs(rows) == []
    assert together.pairs(rows[1:5]) == ["2 of 3 pairs lack both its rows, the first is pair 1"]


def test_a_picture_of_mme_needs_a_yes_and_a_no():
    rows = [
        Row(
            str(number),
            (),
            "",
            answer=answer,
            category="OCR",
            fields={"image_path": f"OCR/{number // 2}.png"},
        )
        for number, answer in enumerate(("Yes", "No", "No", "Yes"))
    ]
    assert together.one_yes_one_no(rows) == []
    assert together.one_yes_one_no(rows[:3]) == [
        "1 of 2 pictures lack one yes and one no, the first is picture OCR, OCR/1.png"
    ]
