"""Answers as VLMEvalKit reads them: each expected value was given by its own functions at commit e8e78f05."""

import pytest

from dig_jax.benchmarks import vlmevalkit
from dig_jax.benchmarks.row import Row

PLACES = {"A": "left", "B": "below", "C": "right", "D": "above"}
LETTERS = [
    ("The answer  is B, said she, and went away", "B"),  # any white space
    ("The answer is (B), since it is plain to see", ""),  # a bracket is none
    ("The answer is: B, since it is plain to see", ""),
    ("THE ANSWER IS **b** as one can see at first sight", "B"),
    ("answer isB, and that is all there is to say", ""),
    ("Sorry, I can't help with images of people yet. B", "Z"),
    ("I can't process this file.", "Z"),
    ("Cannot determine the answer", "Z"),
    ("Failed to obtain answer via API. B", ""),
    ("Failed to obtain answer via API: left", "A"),  # letters are not looked for, texts are
    ("A B A", ""),
    ("B B one two three four", ""),  # the first of the same letters counts
    ("I think that it is B.", "B"),
]
WORDS = [
    ("It is so. " * 33 + "Yes.", ""),  # 32 periods are taken out, and no more
    ("It is so. " * 31 + "Yes.", "Yes"),
    ("Yes,there are 1,000", ""),  # digits around a comma join all words
    ("Yes,there are 1000", "Yes"),
    ("(yes) -no", ""),
    ("<think> x </think> <answer>Yes</answer>", ""),  # a space beside a sign joins too
    ("yes- no", ""),
    ("Yes/No", ""),
    ("3.5 yes", "Yes"),
    ("nan", ""),
]
BOXES = [
    ("[1, 2, 3, 4", (0.64, 0.96, 1.92, 1.92)),  # no bracket behind: any numbers
    ("(900, 900, 1, 1) [100, 100, 200, 200]", (64.0, 48.0, 128.0, 96.0)),  # square brackets come first
    ("x1 0.5 .5 1e0", (320.0, 240.0, 640.0, 480.0)),
    ("[+0.1, .2, 3e-1, 1.5]", (64.0, 96.0, 192.0, 480.0)),
    ("[0.1, 0.2, 0.3, 1.6]", (0.064, 0.096, 0.192, 0.768)),
    ("[-1200, 10, 20, 30]", (0.0, 10.0, 20.0, 30.0)),  # far from 0 on either side: pixels
    ("[1.2.3.4]", None),
    ("10-20-30-40", (0.0, 0.0, 6.4, 0.0)),  # a dash is a sign
    ("[1, 2, 3]", None),
]


@pytest.mark.parametrize(("text", "letter"), LETTERS)
def test_letters_are_the_toolkits(text, letter):
    assert vlmevalkit.read_choice(text, PLACES) == letter


@pytest.mark.parametrize(("text", "word"), WORDS)
def test_words_are_the_toolkits(text, word):
    assert vlmevalkit.read_yes_no(text) == word


@pytest.mark.parametrize(("text", "box"), BOXES)
def test_boxes_are_the_toolkits(text, box):
    found = vlmevalkit.read_box(text, (480, 640))
    assert found == (None if box is None else pytest.approx(box))


def test_a_column_of_numbers_with_gaps_has_decimals_in_pandas():
    rows = [
        Row("1", (), "", {"A": "1", "B": "2", "C": "03", "D": "x", "E": "5."}),
        Row("2", (), "", {"A": "4", "B": "None", "C": "5", "E": "6"}),
    ]
    shown = [row.options for row in vlmevalkit.as_loaded(rows)]
    assert shown == [
        {"A": "1", "B": "2.0", "C": "3", "D": "x", "E": "5.0"},
        {"A": "4", "B": "None", "C": "5", "E": "6.0"},
    ]
