"""Yes or no in any dress, and what is neither."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dig_jax.tasks.yes_no.reading import REASONS, read_yes_no


@pytest.mark.parametrize(
    "text",
    [
        *(
            "Yes",
            "yes.",
            "YES!",
            "**Yes**",
            "__Yes__",
            "`yes`",
            "'Yes'",
            '"yes"',
            "“Yes”",
            "(Yes)",
            "[yes]",
            "Ｙｅｓ",
        ),
        *(
            "Yes:",
            "Yes。",
            "Yes — it is",
            "Yes, it is.",
            "是 Yes",
            "答案是Yes",
            "\\boxed{Yes}",
            '{"answer": "yes"}',
        ),
        *(
            "<answer>Yes</answer>",
            "<think> no? </think> <answer>Yes</answer>",
            "Yes</s>",
            "Yes,there are 1,000",
        ),
        *("The answer is yes.", "Answer:\n\nYes", "yes yes yes", "Please answer yes or no.\nYes"),
    ],
)
def test_yes_is_read_in_any_dress(text):
    assert read_yes_no(text)[0] == "Yes"
    swapped = text.replace("no?", "yes?") if "think" in text else text
    for yes, no in (("Yes", "No"), ("yes", "no"), ("YES", "NO"), ("Ｙｅｓ", "Ｎｏ")):
        if "or no" not in text:
            swapped = swapped.replace(yes, no)
    if "or no" not in text:
        assert read_yes_no(swapped)[0] == "No"


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Yes, no doubt about it.", "Yes"),
        ("No, I would not say yes.", "No"),
        ("No - yes would be wrong", "No"),
        ("Yes—no doubt", "Yes"),
        ("Yes、no doubt", "Yes"),
        ("**Yes**, there is no other", "Yes"),
        ("Yes (no other)", "Yes"),
        ("Yes.\nThere is no cat.", "Yes"),
        ("Yes there is no doubt", ""),  # no punctuation after it
        ("It might be yes, it might be no. Answer: yes", "Yes"),
        ("There is no dog", "No"),
    ],
)
def test_of_both_words_the_leading_one_decides_where_punctuation_follows(text, answer):
    assert read_yes_no(text)[0] == answer


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Yes\n\nNo", "both"),
        ("Yes. No.", "both"),
        ("yes-no", "both"),
        ("Yes? No.", "both"),
        ("Yes/No", "neither"),
        ("I cannot say yes or no.", "neither"),
        ("None", "neither"),
        ("It cannot be seen here.", "neither"),
        ("I am not sure. Nobody knows. Yesterday.", "neither"),
        ("<think>No seems", "cut_off"),
        ("", "empty"),
        ("Failed to obtain answer via API.", "failed"),
    ],
)
def test_contradictions_and_other_words_are_no_answer(text, reason):
    assert read_yes_no(text) == ("", reason)


@settings(deadline=None)
@given(st.text(max_size=200) | st.text(alphabet="yesno/|.,-:!()'\n ", max_size=60))
def test_any_text_is_read_without_an_error(text):
    answer, reason = read_yes_no(text)
    assert answer in ("Yes", "No", "") and reason in REASONS


@pytest.mark.parametrize(
    "unit", ["yes ", "no, ", "answer is ", "yes or ", "(", "***", "<answer>yes</answer>"]
)
def test_a_policy_that_repeats_itself_is_read_in_time(unit):
    """200,000 characters; were the time to grow with their square, none of these would end."""
    read_yes_no(unit * (200_000 // len(unit)))
