"""Evaluations without the first image."""

from etils import epath

from configs import base
from dig_jax import train
from dig_jax.run import evaluations
from tests.commands.test_train import inputs, small_config  # noqa: F401


def test_each_evaluation_but_those_of_benchmarks_has_a_blind_one_behind_all_others():
    config = base.get_config()
    config.evals = {"main": {"data": "a"}, "pope": {"benchmark": "pope", "data": "b"}, "more": {"data": "c"}}
    assert evaluations.measured(config) == evaluations.entries(config)
    config.eval.blind = True
    *seen, first, second = evaluations.measured(config)
    assert tuple(seen) == evaluations.entries(config)
    assert (first.name, first.data, first.blind) == ("main/blind", "a", True)
    assert (second.name, second.data, second.blind) == ("more/blind", "c", True)


def test_it_asks_the_same_about_pairs_whose_first_image_is_that_of_another(inputs, tmp_path):  # noqa: F811
    config = small_config(inputs, "grpo", **{"data.eval": str(inputs / "pairs"), "eval.blind": True})
    held_out = train.prepare(config, epath.Path(tmp_path), lambda: None).held_out
    assert [one.entry.name for one in held_out] == ["main", "main/blind"]
    seen, blind = (one.loader.batch(0).examples for one in held_out)
    for example, other in zip(seen, blind, strict=True):
        assert (example.id, example.messages) == (other.id, other.messages)
        assert (example.target.boxes == other.target.boxes).all()
        assert (example.images[1] == other.images[1]).all()
        assert (example.images[0] != other.images[0]).any()
