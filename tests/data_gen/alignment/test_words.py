"""Phrases say their programs, and reading them gives the programs back."""

import pytest

from data_gen.alignment.logic import SUPERLATIVES
from data_gen.alignment.words import all_of, indefinite, parse, phrase, plural, vocabulary_of
from data_gen.scenes.presets import PRESETS
from tests.data_gen.alignment.scenes import WORDS

CUBE, RED = all_of({"shape": "cube"}), all_of({"color": "red"})
HEAD = all_of({"shape": "monkey head", "color": "red", "size": "small", "texture": "striped"})


@pytest.mark.parametrize(
    ("program", "text"),
    [
        (CUBE, "the cube"),
        (RED, "the red object"),
        (HEAD, "the small red striped monkey head"),
        (["most", "leftmost", RED], "the leftmost red object"),
        (["most", "closest", HEAD], "the small red striped monkey head closest to the camera"),
        (["nearest", HEAD, CUBE], "the cube nearest to the small red striped monkey head"),
        (["and", [*CUBE[1], ["rel", "left of", RED]]], "the cube that is left of the red object"),
        (
            ["and", [*CUBE[1], ["rel", "behind", ["and", [*RED[1], ["rel", "in front of", HEAD]]]]]],
            "the cube that is behind the red object that is in front of the small red striped monkey head",
        ),
    ],
)
def test_a_phrase_reads_as_the_program_it_was_made_from(program, text):
    assert phrase(program) == text
    assert parse(text, WORDS) == program


@pytest.mark.parametrize("superlative", SUPERLATIVES)
def test_every_superlative_reads_back(superlative):
    program = ["most", superlative, all_of({"shape": "cube", "color": "red"})]
    assert parse(phrase(program), WORDS) == program


@pytest.mark.parametrize("text", ["the heavy cube", "the red blue cube", "cube thing", "the leftmost"])
def test_words_that_no_program_says_are_errors(text):
    with pytest.raises(ValueError):
        parse(text, WORDS)


def test_articles_and_plurals():
    assert indefinite(all_of({"shape": "L-shaped block"})) == "an L-shaped block"
    assert parse("a red cube", WORDS) == all_of({"color": "red", "shape": "cube"})
    assert plural(all_of({"shape": "arch", "color": "red"})) == "red arches"
    assert plural(RED) == "red objects"


@pytest.mark.parametrize("name", PRESETS)
def test_no_word_of_a_preset_is_of_two_attributes(name):
    preset = PRESETS[name]
    words = vocabulary_of({"preset": vars(preset)})
    assert len(words.attribute_of) == sum(map(len, words.words.values()))
    assert "object" not in words.attribute_of
