"""Which option an answer chooses: letters in any dress, texts, what is ruled out, and what is no answer."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dig_jax.tasks.choice.reading import REASONS, read_choice

COLORS = {"A": "red", "B": "blue", "C": "dark red", "D": "green"}
NUMBERS = {"A": "1", "B": "12", "C": "2", "D": "21"}
THINGS = {"A": "a wooden chair", "B": "a long bench", "C": "None", "D": "N/A"}
FRUIT = {"A": "apple", "B": "pear", "C": "banana", "D": "lemon", "E": "fig"}
SIDES = {"A": "left", "B": "right"}
YES_NO = {"A": "Yes", "B": "No"}


def read(text: str, options: dict[str, str] = COLORS) -> str:
    letter, reason = read_choice(text, options)
    assert reason in REASONS
    return letter


@pytest.mark.parametrize(
    "text",
    [
        *(
            "B",
            "b",
            "B.",
            "b.",
            "(B)",
            "(b)",
            "[B]",
            "<B>",
            "{B}",
            "B)",
            '"B"',
            "'b'",
            "`B`",
            "**B**",
            "__B__",
        ),
        *("“B”", "‘b’", "«B»", "「B」", "$B$", "\\(B\\)", "\\boxed{B}", "\\boxed{\\text{b}}", "$\\boxed{B}$"),
        *(
            "Ｂ",
            "（B）",
            "B。",
            "答案是B",
            "答案：B",
            "选B",
            "答えはBです",
            "정답은 B입니다",
            "B</s>",
            "B<|im_end|>",
        ),
        *('{"answer": "B"}', '```json\n{"answer": "b"}\n```', "{'choice': 'B'}", "answer=B", "1. B"),
        *('{"choice": "b"}', "【B】", "(**B**)", "选b", "答案应该是B", "B选项", "B?", "Definitely B."),
        *("<answer>B</answer>", "<answer>(b)</answer>", "<think>A</think>B", "option b", "Choice (B)"),
    ],
)
def test_a_lone_letter_is_read_in_any_dress(text):
    assert read(text) == "B"


@pytest.mark.parametrize(
    "text",
    [
        *("B. blue", "B.blue", "B) blue", "(B) blue", "B: blue", "B - blue", "B – blue", "B\nblue", "B blue"),
        *("B because it is blue", "b because it is blue", "option b is right, since A is red", "B it is."),
        *("B. The dog is brown, so A and C are wrong", "B. Since it is a dog, A, C and D do not match"),
        *("B. The dog is bigger, so A can be excluded", "B\n\nExplanation: A is a red car."),
        *("**B.** It is blue.", "B, since A is not", "B. It has the color of the sky; A is out of place."),
        *(
            "B (blue)",
            "blue (B)",
            "B, not A",
            "Option B is right, since the others do not fit the picture at all.",
        ),
    ],
)
def test_a_leading_or_named_letter_counts_wherever_it_stands(text):
    assert read(text) == "B"


@pytest.mark.parametrize(
    "text",
    [
        *("The answer is B. The other answers A and C are wrong.", "b is correct", "The answer could be B"),
        *("The answer to this is clearly the second option, B.", "Answer: blue (B)", "My answer: b)"),
        *("The answer is B", "The answer is (B).", "Answer: B", "Answer:\nB", "**Answer:** B", "answer - b"),
        *(
            "The correct answer is **B**. Here is why: A is red.",
            "Final answer: B.",
            "The final answer is: (B)",
        ),
        *(
            "The answer is option B",
            "The correct option is B.",
            "Correct choice: B",
            "The answer to it is B.",
        ),
        *(
            "The best answer would be (B).",
            "The answer is therefore B",
            "La respuesta es B",
            "Die Antwort ist B.",
        ),
        *("La réponse est (b)", "Ответ: B", "正确答案是 (B)。", "The answer is A. Wait: the answer is B."),
        *(
            "B is the correct answer.",
            "(B) is correct",
            "I think B",
            "I'd say B",
            "I choose B",
            "So it must be B.",
        ),
        *(
            "It is B",
            "Therefore, B.",
            "My choice is B",
            "I believe it's B because A is red",
            "A or B? I say B.",
        ),
        *("The image shows a car.\n\nB", "Looks like B to me", "It could be A, but B fits best"),
    ],
)
def test_what_an_answer_states_is_read(text):
    assert read(text) == "B"


@pytest.mark.parametrize(
    ("text", "options", "letter"),
    [
        ("blue", COLORS, "B"),
        ("BLUE!", COLORS, "B"),
        ("The answer is blue", COLORS, "B"),  # not the letter b of "blue"
        ("the correct answer is apple", FRUIT, "A"),
        ("The answer is a blue one", COLORS, "B"),
        ('{"answer": "blue"}', COLORS, "B"),
        ("It looks like it is blue to me, after a long second look at it.", COLORS, "B"),
        ("red", COLORS, "A"),
        ("dark red", COLORS, "C"),  # the longest text wins
        ("It is dark red.", COLORS, "C"),
        ("It's the red one", COLORS, "A"),
        ("12", NUMBERS, "B"),
        ("1", NUMBERS, "A"),
        ("There are 21 of them", NUMBERS, "D"),
        ("1.5", NUMBERS, ""),
        ("reddish, red-brown", COLORS, ""),
        ("None", THINGS, "C"),
        ("The answer is N/A", THINGS, "D"),
        ("n/a.", THINGS, "D"),
        ("a wooden chair.", THINGS, "A"),
        ("The answer is a wooden chair", THINGS, "A"),
        ("NA", {"A": "NA", "B": "USA"}, "A"),
        ("wooden chair", THINGS, "A"),  # articles may be left out
        ("It is the long bench.", THINGS, "B"),
        ("the", {"A": "a", "B": "the"}, "B"),
        ("The answer is none of the above.", {"A": "cat", "B": "none of the above"}, "B"),
        ("它是深红色的", {"A": "红色", "B": "深红色", "C": "蓝色"}, "B"),
        ("una casa", {"A": "NA", "B": "house"}, ""),
        ("It is on the left side, not on the right", SIDES, "A"),
        ("The answer is right.", SIDES, "B"),
        ("Yes, no doubt", YES_NO, "A"),
        ("No.", YES_NO, "B"),
    ],
)
def test_an_options_text_is_an_answer(text, options, letter):
    assert read(text, options) == letter


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("A photo showing blue", "B"),
        ("A blue car", "B"),
        ("A Blue", "B"),
        ("a green and a yellow dog", "D"),
        ("A is correct", "A"),
        ("A because it is red", "A"),
        ("A", "A"),
        ("The answer is a.", "A"),
        ("I see the blue one", "B"),
        ("I cannot tell this from the picture.", ""),
        ("Vitamin C is in the blue one", "B"),
        ("The object at point C is blue", "B"),
        ("U.S. cars in T-shirts are blue", "B"),
    ],
)
def test_articles_pronouns_and_labels_are_no_options(text, letter):
    assert read(text, dict.fromkeys("EFGHI", "x") | COLORS) == letter


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("It is not B but C", "C"),
        ("The answer is not B but C.", "C"),
        ("not red but blue", "B"),
        ("red, not blue", "A"),
        ("A is wrong, B is right", "B"),
        ("A and B are wrong; C", "C"),
        ("The options A, C and D are wrong, leaving B.", "B"),
        ("It can't be A, it must be B.", "B"),
        ("Neither A nor B, so D", "D"),
        ("B is not correct, C is", "C"),
        ("A, B and D are wrong. C", "C"),
        ("C or D? C.", "C"),
        ("The answer cannot be A; it is B", "B"),
        ("Neither A nor B", ""),
        ("None of A, B, C and D is right", ""),
        ("neither red nor blue", ""),
        ("The answer isn't A", ""),
        ("It is not red", ""),
    ],
)
def test_what_is_ruled_out_is_not_chosen(text, letter):
    assert read(text) == letter


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("B or A", "several"),
        ("A, B", "several"),
        ("A/B", "several"),
        ("Both A and C", "several"),
        ("Both A and C are correct", "several"),
        ("E or B", "several"),
        ("The answer is A or B.", "several"),
        ("blue or green", "several"),
        ("Z", "no_such_option"),
        ("The answer is E", "no_such_option"),
        ("None of the above", "no_choice"),
        ("<think>It is B", "cut_off"),
        (" ", "empty"),
        ("Failed to obtain answer via API.", "failed"),
        ("A. red\nB. blue\nC. dark red\nD. green", "no_choice"),  # the question again
    ],
)
def test_what_is_no_answer_says_why(text, reason):
    assert read_choice(text, COLORS) == ("", reason)


def test_a_list_of_all_options_is_the_question_again():
    options = "A. red\nB. blue\nC. dark red\nD. green\n"
    assert read(options + "B") == "B" and read(options + "Answer: B") == "B"


def test_letters_go_as_far_as_the_options():
    assert read("The answer is E", FRUIT) == read("e", FRUIT) == read("fig", FRUIT) == "E"
    assert read("The answer is (H)", {}) == "H"
    assert read("D", {"A": "x", "B": "y", "C": "z", "D": ""}) == ""


@settings(deadline=None)
@given(st.text(max_size=400))
def test_any_text_is_read_without_an_error(text):
    assert read(text) in ("", *COLORS)


@settings(deadline=None)
@given(
    st.lists(st.sampled_from(["A", "B", "a", " or ", " is ", "not ", "(", ")", ". ", "\n", "red", "answer"]))
)
def test_texts_made_of_letters_and_cues_are_read_without_an_error(words):
    assert read("".join(words)) in ("", *COLORS)


@pytest.mark.parametrize(
    "unit", ["A or ", "answer is ", "(", "red ", "not ", "\\boxed{", "<answer>", "B is "]
)
def test_a_policy_that_repeats_itself_is_read_in_time(unit):
    """200,000 characters; were the time to grow with their square, none of these would end."""
    read(unit * (200_000 // len(unit)))
