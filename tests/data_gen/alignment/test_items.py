"""Items: what may be asked, how options are chosen, and that a seed decides them all."""

import collections
import dataclasses
import itertools
import random

import pytest

from data_gen.alignment import check
from data_gen.alignment.crops import overlap
from data_gen.alignment.items import SIX
from data_gen.alignment.kinds import Draw, box_to_crop, existence, option_set, text_to_box
from data_gen.alignment.make import DEFAULT_SHARES, Recipe, held_out_pairs, make_items
from data_gen.alignment.refer import by_attributes, expression, is_hard
from data_gen.alignment.words import all_of, vocabulary_of
from data_gen.records.dataset import Dataset
from tests.data_gen.alignment.scenes import SAMPLE, WORDS, sample_views, thing, view


@pytest.fixture(scope="module")
def views():
    return list(sample_views()), vocabulary_of(Dataset(SAMPLE).metadata())


def small(id, words, x, y=40, **more):
    return thing(id, f"small {words}", (x, y, x + 12, y + 12), **more)


FIVE = (
    small(1, "red rubber cube", 0),
    small(2, "red metal cube", 20),
    small(3, "blue rubber sphere", 40, depth=12.0),
    small(4, "green rubber cone", 60, depth=14.0),
    small(5, "green metal sphere", 80, depth=16.0),
)


def draw(scene, seed=0, **more):
    rng = random.Random(seed)
    return Draw(scene, scene.eligible, WORDS, rng, None, **more)


def test_the_shortest_phrase_takes_attributes_in_their_order():
    scene = view(*FIVE)
    assert by_attributes(scene, FIVE[3]) == {"shape": "cone"}
    assert by_attributes(scene, FIVE[2]) == {"shape": "sphere", "color": "blue"}
    assert by_attributes(scene, FIVE[0]) == {"shape": "cube", "material": "rubber"}
    assert by_attributes(view(FIVE[0], small(9, "red rubber cube", 60)), FIVE[0]) is None


def test_a_phrase_is_hard_where_another_object_fits_all_of_it_but_one_part():
    scene = view(*FIVE)
    assert is_hard(all_of({"shape": "cube", "material": "metal"}), scene, FIVE[1])
    assert not is_hard(all_of({"shape": "cone"}), scene, FIVE[3])  # one word finds it
    lonely = view(FIVE[3], small(9, "blue metal cube", 80))
    assert not is_hard(all_of({"shape": "cone", "color": "green"}), lonely, FIVE[3])


def test_a_relation_is_said_only_where_the_object_needs_it():
    scene, found = view(*FIVE), 0
    for seed, item in itertools.product(range(20), FIVE):
        if made := expression(scene, item, "refg", random.Random(seed)):
            found += 1
            assert set(made.landmarks).isdisjoint({item.id})
            assert made.program[0] == "nearest" or made.program[1][-1][0] == "rel"
    assert found > 50


def test_options_are_two_pairs_of_objects_alike_and_none_overlap(views):
    seen = 0
    for _split, scene in views[0]:
        options = option_set(Draw(scene, scene.eligible, views[1], random.Random(1), None), even=False)
        for a, b in itertools.combinations(options.things if options else (), 2):
            seen += 1
            union, smaller = overlap(a.box, b.box)
            assert union <= 0.1 and smaller <= 0.3
            assert a.surface != b.surface
    assert seen > 100


def test_even_options_are_as_large_as_each_other(views):
    for _, scene in views[0]:
        options = option_set(Draw(scene, scene.eligible, views[1], random.Random(2), None), even=True)
        if options:
            areas = [item.area for item in options.things]
            assert options.even and max(areas) <= 2 * min(areas)


def test_every_option_of_a_set_is_asked_for_equally_often():
    asked = collections.Counter()
    scene = view(*FIVE[:4])
    for seed in range(400):
        asked[box_to_crop(draw(scene, seed), even=False).targets[0]] += 1
    assert set(asked) == {1, 2, 3, 4}
    assert all(70 <= count <= 130 for count in asked.values()), asked  # 100 each, within 3.5 deviations


def test_existence_is_asked_in_words_that_are_as_frequent_with_yes_as_with_no():
    said = {True: collections.Counter(), False: collections.Counter()}
    for seed in range(1500):
        if item := existence(draw(view(*FIVE), seed)):
            said[item.facts["yes"]].update(word for _, _, word in item.rounds[0].ask[1][1])
            said[item.facts["yes"]]["asked"] += 1
    assert said[True]["asked"] > 300 and said[False]["asked"] > 300
    for word in said[True] | said[False]:
        yes, no = said[True][word], said[False][word]
        assert abs(yes - no) <= 4 * (yes + no) ** 0.5, (word, yes, no)  # four deviations of a fair coin


def test_an_object_that_hides_rejects_phrases_that_it_may_fit():
    hidden = small(6, "green rubber cone", 60, y=70, seen=0.2)
    assert by_attributes(view(*FIVE), FIVE[3])
    assert by_attributes(view(*FIVE, hidden), FIVE[3]) is None


@pytest.mark.parametrize(
    ("item", "allowed"),
    [
        (small(1, "red rubber cube", 0), True),
        (small(1, "red rubber cube", 0, seen=0.49), False),
        (thing(1, "small red rubber cube", (0, 0, 7, 40)), False),  # 7 pixels wide
        (thing(1, "large red rubber cube", (0, 0, 60, 60)), False),  # 36% of the picture
    ],
)
def test_objects_too_small_too_large_or_hidden_are_not_asked_for(item, allowed):
    assert bool(view(item).eligible) == allowed


def test_items_are_decided_by_seed_split_and_picture(views):
    (split, scene), vocabulary = views[0][4], views[1]
    once = make_items(scene, split, Recipe(1, DEFAULT_SHARES, 0.05), vocabulary)
    assert once == make_items(scene, split, Recipe(1, DEFAULT_SHARES, 0.05), vocabulary)
    assert once != make_items(scene, split, Recipe(2, DEFAULT_SHARES, 0.05), vocabulary)
    assert {item.kind for item in once} >= set(SIX)


def test_training_never_shows_a_pair_of_shape_and_colour_that_is_held_out(views):
    recipe = Recipe(1, DEFAULT_SHARES, 0.3)
    apart, parts = held_out_pairs(views[1], 0.3), collections.Counter()
    for split, scene in views[0]:
        for item in make_items(scene, split, recipe, views[1]):
            kept = {(scene.by_id[id].shape, scene.by_id[id].color) for id in item.things} & apart
            parts[item.part, bool(kept)] += 1
            assert item.part == "testB" or not (kept and split == "train")
    assert parts["testB", True] and not parts["testB", False] and not parts["train", True]


def test_the_picture_stands_before_or_behind_the_first_words_and_all_else_is_the_same(views):
    (split, scene), vocabulary = views[0][4], views[1]
    before, behind = (
        make_items(scene, split, Recipe(1, DEFAULT_SHARES, 0.05, picture=place), vocabulary)
        for place in ("first", "last")
    )
    for item, other in zip(before, behind, strict=True):
        (said, *later), (asked, *rest) = item.rounds, other.rounds
        assert said.user == "<image>\n" + asked.user.removesuffix("\n<image>") and later == rest
        assert dataclasses.replace(item, rounds=other.rounds) == other
        assert not [*check._problems(scene, other, vocabulary)]
    with pytest.raises(ValueError, match="--picture=middle: expected one of first, last"):
        Recipe(1, DEFAULT_SHARES, 0.05, picture="middle")


def test_at_least_half_of_the_phrases_of_a_picture_are_hard(views):
    recipe = Recipe(1, {"T-C": 4}, 0.0)
    for split, scene in views[0]:
        hard = [item.facts["hard"] for item in make_items(scene, split, recipe, views[1])]
        assert 2 * sum(hard) >= len(hard)


def test_phrases_have_the_styles_that_were_asked_for(views):
    recipe = Recipe(1, {"T-C": 4, "T-I": 2}, 0.0, ("ref+",))
    styles = {item.style for split, scene in views[0] for item in make_items(scene, split, recipe, views[1])}
    assert styles == {"ref+"}
    for wrong in ((), ("ref", "ref"), ("refer",)):
        with pytest.raises(ValueError, match=r"--styles=.*: expected some of ref, ref\+, refg"):
            Recipe(1, {"T-C": 4}, 0.0, wrong)


def test_evaluation_is_asked_in_one_wording():
    scene = view(*FIVE)
    assert (
        text_to_box(draw(scene), "ref+").rounds[0].user.startswith("<image>\nOutput the coordinate of the ")
    )


@pytest.mark.parametrize(
    ("shares", "held_out", "message"),
    [
        ({"T-X": 1}, 0.0, "unknown kind 'T-X'"),
        ({"T-C": 5}, 0.0, "expected 0 to 4"),
        ({"T-C": 0}, 0.0, "expected at most 12"),
        (dict.fromkeys(SIX, 4), 0.0, "24 per picture"),
        ({"T-C": 1}, 1.0, "held_out"),
    ],
)
def test_orders_that_cannot_be_are_refused(shares, held_out, message):
    with pytest.raises(ValueError, match=message):
        Recipe(0, shares, held_out)
