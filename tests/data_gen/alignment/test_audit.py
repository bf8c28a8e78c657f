"""Audits: at chance on what the generator makes, and well above it on options that give themselves away."""

import random

import pytest

from data_gen.alignment.audit import Guessable, audit, design_effect, wilson


def questions(give_away, count=400):
    rng = random.Random(0)
    made = []
    for number in range(count):
        right = rng.randrange(4)
        answers = [{f"place {place}", f"color {rng.choice('rgb')}"} for place in range(4)]
        if give_away and rng.random() < 0.5:
            answers[right].add("window 3")
        made.append(Guessable(f"pair {number}", tuple(map(frozenset, answers)), right))
    return made


def test_options_that_say_nothing_are_guessed_at_chance():
    found = audit(questions(give_away=False))
    assert found["at_chance"] and found["chance"] == 0.25
    assert found["interval"][0] < 0.25 < found["interval"][1]


def test_an_option_that_gives_itself_away_in_half_of_the_cases_is_found():
    found = audit(questions(give_away=True))
    assert not found["at_chance"] and found["right"] > 0.5


def test_the_place_of_the_right_answer_is_found():
    biased = [
        Guessable(f"pair {number}", tuple(frozenset({f"place {p}"}) for p in range(4)), 2)
        for number in range(50)
    ]
    assert audit(biased)["right"] == 1.0


def test_answers_that_look_alike_count_as_their_share():
    same = [Guessable(f"pair {number}", (frozenset(),) * 4, 0) for number in range(40)]
    assert audit(same)["right"] == 0.25


def test_questions_of_one_pair_count_as_one_where_they_agree():
    hits, pairs = [1.0] * 10 + [0.0] * 10, ["a"] * 5 + ["b"] * 5 + ["c"] * 5 + ["d"] * 5
    # Sums of hits less half of five: 2.5, 2.5, -2.5, -2.5; 25 * 4/3 over 20/4.
    assert design_effect(hits, pairs) == pytest.approx(25 * 4 / 3 / 5)
    assert design_effect([1.0, 0.0] * 10, pairs) == 1.0
    assert wilson(10, 20, effect=2.0) == wilson(5, 10)


def test_the_interval_of_wilson():
    low, high = wilson(5, 10)  # 0.2366 to 0.7634, from the formula by hand
    assert (low, high) == pytest.approx((0.2366, 0.7634), abs=1e-4)
    assert wilson(0, 0) == (0.0, 1.0)
