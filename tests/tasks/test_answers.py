"""The end of a completion: thoughts removed, answers unwrapped, dress taken off."""

import pytest

from dig_jax.tasks.answers import CUT_OFF, EMPTY, FAILED, boxed, final_answer, plain


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("B", "B"),
        ("<think>A</think>\nB", "B"),
        ("so it is A</think>B", "B"),  # the template opened the thought
        ("<think>A</think>C</think>B", "B"),
        ("<think><think>A</think>C</think>B", "B"),
        ("<answer>B</answer>", "B"),
        ("<answer>A</answer>, no: <ANSWER> B </ANSWER>.", "B"),
        ("<think><answer>A</answer></think>B", "B"),
        ("<answer>B", "B"),
        ("<answer>B</answer> <answer>A", "B"),
        ("</answer>B", "</answer>B"),
    ],
)
def test_what_follows_the_last_thought_is_unwrapped(text, answer):
    assert final_answer(text).text == answer


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("<think>The best so far is A", CUT_OFF),
        ("<think>A</think>B<think>or", CUT_OFF),
        ("<think>A</think> \n", EMPTY),
        ("<answer> </answer>B", EMPTY),
        ("", EMPTY),
        ("Failed to obtain answer via API.", FAILED),
    ],
)
def test_a_text_without_an_answer_says_why(text, reason):
    assert final_answer(text).reason == reason and not final_answer(text).text


def test_a_thought_that_the_prompt_opened_was_cut_off_where_the_text_does_not_close_it():
    assert final_answer("B", opens_thought=True).reason == CUT_OFF
    assert final_answer("A</think>B", opens_thought=True).text == "B"


def test_dress_is_taken_off_and_brackets_and_punctuation_stay():
    assert plain('**B**. `blue`,  "it\'s"\n\n\u201cred\u201d') == "B . blue , it's\nred"
    assert plain("答案是Ｂ。") == "答案是 B 。" and plain("\\boxed{\\text{B}}") == "\\boxed{B}"
    assert plain("a\u200bb") == "ab"
    long = plain("first" + " x" * 100_000 + " last")
    assert len(long) < 9000 and long.startswith("first") and long.endswith("last")


def test_the_last_box_is_read_to_its_own_brace():
    assert boxed("\\boxed{A} \\boxed{\\text{B}}.") == "\\text{B}"
    assert boxed("\\boxed{A") is None and boxed("A") is None
