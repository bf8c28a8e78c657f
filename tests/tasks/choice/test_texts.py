"""Options' texts that are like one another, hold letters, numbers or signs, and where an answer says them."""

import pytest

from dig_jax.tasks.choice.reading import read_choice

OPTIONS = {
    "missing": {"A": "None", "B": "N/A", "C": "red", "D": "NA"},
    "signs": {"A": "0.5", "B": "-5", "C": "5", "D": "1/2"},
    "sums": {"A": "x = 5", "B": "x = -5", "C": "1,000", "D": "45°"},
    "above": {"A": "All of the above", "B": "None of the above", "C": "I and II", "D": "Only I"},
    "bears": {"A": "panda bear", "B": "bear", "C": "a banana on the table", "D": "sea lion"},
    "letters": {"A": "B is above C", "B": "Vitamin C", "C": "A is above B", "D": "between A and C"},
    "animals": {"A": "cat", "B": "dogs", "C": "horse", "D": "bird"},
    "colors": {"A": "红色", "B": "深红色", "C": "绿色"},
    "romans": {"A": "IV", "B": "V", "C": "XI", "D": "X"},
    "marks": {"A": "+", "B": "*", "C": "#", "D": "blue"},
}


@pytest.mark.parametrize(
    ("kind", "text", "letter"),
    [
        ("missing", "B. N/A", "B"),
        ("missing", "It looks like it is N/A to me.", "B"),
        ("missing", "**N/A**", "B"),
        ("missing", "A photo showing NA", "D"),
        ("missing", "A. None", "A"),
        ("signs", "0.5 or 5? So it is 5.", "C"),
        ("signs", "5", "C"),
        ("signs", "-5", "B"),
        ("signs", "\u22125", "B"),
        ("signs", "The answer is 0.5.", "A"),
        ("signs", "-50", ""),
        ("signs", "\\boxed{\\frac{1}{2}}", "D"),
        ("sums", "x=5", "A"),
        ("sums", "It must be x=-5.", "B"),
        ("sums", "1000", "C"),
        ("sums", "$45^\\circ$", "D"),
        ("above", "The answer is None of the above.", "B"),
        ("above", "It is I and II.", "C"),
        ("bears", "It is a panda bear.", "A"),
        ("bears", "There is a banana on the table here.", "C"),
        ("bears", "A photo showing a sea lion", "D"),
        ("bears", "A bear", "B"),
        ("letters", "I think that A is above B.", "C"),
        ("letters", "The answer is A is above B", "C"),
        ("letters", "The answer is A.", "A"),
        ("letters", "It lies between A and C.", "D"),
        ("letters", "A photo showing vitamin C", "B"),
        ("letters", "C. A is above B", "C"),
        ("animals", "There is no cat, but a bird.", "D"),
        ("animals", "All but A", ""),
        ("animals", "~~A~~ B", "B"),
        ("animals", "I pick b", "B"),
        ("animals", "<p>B</p>", "B"),
        ("colors", "答案是深红色", "B"),
        ("colors", "这是红色", "A"),
        ("romans", "D. X", "D"),
        ("romans", "B: V", "B"),
        ("romans", "The answer is V.", "B"),
        ("romans", "A photo showing X", "D"),
        ("romans", "A or B", ""),
        ("marks", "The answer is +", "A"),
        ("marks", "It is blue", "D"),
        ("marks", "It is none of these", ""),
    ],
)
def test_the_text_that_is_said_is_chosen_and_no_other(kind, text, letter):
    assert read_choice(text, OPTIONS[kind])[0] == letter
