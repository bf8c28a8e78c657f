"""Every label is judged again from the scene by a reader that knows the words alone."""

import collections
import dataclasses
import itertools

import pytest

from data_gen.alignment.items import KINDS
from data_gen.alignment.make import DEFAULT_SHARES, Recipe, make_items
from data_gen.alignment.refer import STYLES
from data_gen.alignment.rules import rules_for
from data_gen.alignment.things import view_of
from data_gen.alignment.words import vocabulary_of
from data_gen.records.dataset import Dataset
from tests.data_gen.alignment import oracle
from tests.data_gen.alignment.scenes import SAMPLE


@pytest.fixture(scope="module")
def pictures():
    """(split, view, objects as the oracle reads them) of the sample pairs, and their words."""
    dataset = Dataset(SAMPLE)
    found = []
    for split, count in dataset.splits.items():
        for record in (dataset.record(split, index) for index in range(count)):
            for which in "ab":
                things = oracle.read_scene(record, which)
                found.append((split, view_of(record, which, rules_for(336)), things))
    return found, vocabulary_of(dataset.metadata())


def judged(pictures, seed):
    """(kind, style, verdict) of every round of every item of a seed; a wrong one ends it with its words."""
    found, vocabulary = pictures
    for split, view, things in found:
        for item in make_items(view, split, Recipe(seed, DEFAULT_SHARES, 0.0), vocabulary):
            for name, answer, verdict in oracle.right(item, things):
                assert verdict, (view.id, name, answer, [one.user for one in item.rounds])
            yield item


def test_a_reader_of_the_words_alone_agrees_with_every_label(pictures):
    items = list(judged(pictures, seed=1))
    assert {item.kind for item in items} == set(KINDS)
    assert {item.style for item in items if item.kind == "T-C"} == set(STYLES)
    assert len(items) > 300


@pytest.mark.slow
def test_ten_thousand_labels_have_no_disagreement(pictures):
    counted, seed = collections.Counter(), 100
    while counted.total() < 10_000:
        counted.update(item.kind for item in judged(pictures, seed))
        seed += 1
    assert set(counted) == set(KINDS)


def test_the_reader_finds_answers_that_belong_to_other_questions(pictures):
    """Another item's answer is wrong, in every kind with one right answer."""
    found, vocabulary = pictures
    verdicts = collections.Counter()
    for split, view, things in found:
        shares = {"T-C": 2, "C-T": 2, "I-C": 2, "C-I": 2, "T-I": 2, "I-T": 2}
        items = make_items(view, split, Recipe(2, shares, 0.0), vocabulary)
        for item, other in itertools.permutations(items, 2):
            (one, *more), (two, *_) = item.rounds, other.rounds
            same = (item.kind, item.style) == (other.kind, other.style)
            if same and one.assistant != two.assistant and not more:
                wrong = dataclasses.replace(one, assistant=two.assistant)
                changed = dataclasses.replace(item, rounds=(wrong,))
                verdicts.update((item.kind, verdict) for _, _, verdict in oracle.right(changed, things))
    assert {kind for kind, _ in verdicts} >= {"T-C", "C-T", "I-C", "C-I"}
    assert not [kind for kind, verdict in verdicts if verdict and kind != "I-T"]
