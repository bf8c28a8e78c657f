"""The study of object crops: equal compute, derived data sets, and the verdict by the rule."""

import json
import math

import pytest

from data_gen.files import png
from dig_jax import settings
from dig_jax.data.records import open_records
from dig_jax.run import mixture
from study import align, align_config, align_data, align_tables
from study.align_arms import ARMS, SHARES, seeds_of
from tests.helpers import aligned_records
from tests.helpers.aligned_records import item, thing


@pytest.mark.parametrize("arm", ARMS)
def test_the_config_of_every_arm_holds_and_says_its_shares(arm):
    config = align_config.get_config(arm)
    settings.check(config)
    shares = {
        part.name.replace("_", "-"): part.config.mixture or part.share for part in mixture.parts(config)
    }
    total = sum(shares.values())
    wanted = {kind: share / 100 for kind, share in ARMS[arm].shares.items()}
    assert {kind: share / total for kind, share in shares.items()} == pytest.approx(wanted)


def test_what_a_kind_leaves_goes_to_phrases_and_boxes():
    assert sum(SHARES.values()) == 100
    assert ARMS["A0"].shares == {"T-C": 80, "C-T": 20}
    assert ARMS["L2"].shares == {"T-C": 52, "C-T": 13, "I-C": 26, "T-I": 5, "I-T": 4}
    assert (len(seeds_of("A1")), len(seeds_of("L1")), len(seeds_of("E3", most=2))) == (5, 3, 2)


def test_batches_of_arms_have_as_many_tokens():
    text = {"T-C": 50.0, "C-T": 50.0}
    image = dict.fromkeys(("I-C", "C-I", "T-I", "I-T"), 100.0)
    tokens = {"text": text, "image": image, "noise": image, "words": dict.fromkeys(image, 50.0)}
    # A1: half of 50 and half of 100 tokens, 75 a question, times 32; of 50 tokens 48 questions are as many.
    assert {arm: align.batch(arm, tokens) for arm in ("A0", "A1", "E3", "E4")} == {
        **{"A0": 48, "A1": 32, "E3": 32, "E4": 48}
    }


def derived(tmp_path, crops):
    things = [thing(1, "cube", [0, 2, 4, 6], 5.0), thing(2, "cone", [5, 2, 8, 4], 9.0)]
    items = [
        item("T-C", 0, 0, ("<image>\nWhere is it?", "[0.1,0.2,0.3,0.4]")),
        item("I-T", 1, 2, ("<image>\nWhat is <object> to <object>?", "It is left of it.")),
    ]
    values = json.loads(items[1]["item"])
    items[1]["item"] = json.dumps(values | {"cuts": [{"thing": 2}, {"thing": 1}]})
    aligned_records.write(tmp_path / "data", ["train", "test"], items, things)
    facts = tmp_path / "data" / "metadata.json"
    facts.write_text(json.dumps({"crop_side": 4}))
    align_data.derive(tmp_path / "data", tmp_path / "out", ("I-T",), crops)
    read = open_records(tmp_path / "out", "test").read(0, ("items", "crops"))
    assert read["items"]["kind"] == [b"I-T"] and list(read["items"]["first_crop"]) == [0]
    return json.loads(read["items"]["item"][0]), read["crops"]


def test_a_derived_set_has_some_kinds_and_their_crops(tmp_path):
    item, crops = derived(tmp_path, "image")
    assert [int(png.decode(crop)[0, 0, 0]) for crop in crops] == [20, 30]
    assert item["rounds"][0]["user"].count("<object>") == 2


def test_noise_stands_in_the_place_of_every_crop_and_the_answer_stays(tmp_path):
    item, crops = derived(tmp_path, "noise")
    seen = [png.decode(crop) for crop in crops]
    assert all(crop.shape == (4, 4, 3) and crop.std() > 20 for crop in seen) and (seen[0] != seen[1]).any()
    assert item["rounds"][0]["assistant"] == "It is left of it."


def test_words_stand_in_the_place_of_every_crop(tmp_path):
    item, crops = derived(tmp_path, "words")
    cone, cube = "the small red rubber cone", "the small red rubber cube"
    assert item["rounds"][0]["user"] == f"<image>\nWhat is {cone} to {cube}?" and len(crops) == 0


def runs(**arms):
    return [
        {"arm": arm, "seed": seed, "rec": value}
        for arm, values in arms.items()
        for seed, value in enumerate(values)
    ]


def test_the_verdict_is_that_of_the_rule():
    base = [0.5, 0.52, 0.48, 0.51, 0.49]
    more = [value + gain for value, gain in zip(base, (0.04, 0.05, 0.06, 0.05, 0.05), strict=True)]
    said = lambda **arms: align_tables.verdict(runs(**arms))  # noqa: E731
    assert "the image kinds help." in said(A0=base, A1=more, E3=base)
    assert "not the crops." in said(A0=base, A1=more, E3=[value + 0.1 for value in base])
    assert "they harm." in said(A0=more, A1=base, E3=base)
    assert "not shown." in said(A0=base, A1=base[::-1], E3=[0.4] * 5)
    assert "none yet" in said(A0=base[:4], A1=more, E3=base)


def test_the_interval_is_students():
    low, high = align_tables.interval([0.0, 1.0, 2.0])  # mean 1, deviation 1, t 4.303 of two degrees
    assert (low, high) == pytest.approx((1 - 4.3027 / math.sqrt(3), 1 + 4.3027 / math.sqrt(3)), abs=1e-4)
    assert align_tables.interval([1.0]) == (-math.inf, math.inf)


def test_pairs_go_on_from_an_arm_with_the_recipe_from_scratch(tmp_path):
    settings.check(align_config.get_config("dig"))
    job = align.dig_job(tmp_path, tmp_path / "pairs", "A1", 3, quick=False)
    assert f"--config.init_from={tmp_path / 'runs' / 'A1_3'}" in job.command
    assert job.name == "dig_A1_3" and any("stages.mixed.data.train" in flag for flag in job.command)
