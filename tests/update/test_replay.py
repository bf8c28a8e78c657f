"""Replaying experts in updates: what is compared, what is cut, what is refused."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from configs import base
from dig_jax import settings
from dig_jax.aot import inputs
from dig_jax.data.buckets import Bucket
from dig_jax.machines import parallel
from dig_jax.models import families
from dig_jax.models.inputs import Prompts
from dig_jax.rollout.routing import KeptRouting
from dig_jax.update import microbatches, replay
from dig_jax.update.experience import Drawn, _replace_uninformative
from dig_jax.update.microbatches import Cut, Pieces
from dig_jax.update.policy import Experience
from dig_jax.update.replay import ReplayConfig
from tests.helpers.base_config import assert_refused, base_config

UNKNOWN = 255


def batch_of(
    lengths: list[int], responses: np.ndarray, prompts: np.ndarray, **fields: np.ndarray
) -> Experience:
    """One prompt of two tokens (and one of padding) with G completions; ids [tokens,L,K] of its experts."""
    longest = responses.shape[1]
    mask = (np.arange(longest) < np.array(lengths)[:, None]).astype(np.float32)[None]
    empty = np.zeros((1, 1), np.int32)
    shown = dataclasses.replace(Prompts(*[empty] * 8), length=np.array([2], np.int32))
    given = {"behaviour_logprobs": np.zeros_like(mask)} | fields
    routing = KeptRouting(prompts[None], responses[None])
    return Experience(shown, mask.astype(np.int32), mask, advantages=mask[..., 0], routing=routing, **given)


def ids(*tokens: list[list[int]]) -> np.ndarray:
    return np.array(tokens, np.uint8)


def test_flips_are_counted_as_sets_over_the_tokens_whose_experts_are_known():
    # Two layers, two experts of each. The second completion has one token, which was never fed.
    sampled = np.stack(
        [
            ids([[0, 1], [2, 3]], [[4, 5], [6, 7]], [[UNKNOWN] * 2] * 2),
            ids(*[[[UNKNOWN] * 2] * 2] * 3),
        ]
    )
    chosen = np.stack(
        [
            ids(
                [[1, 0], [2, 4]], [[4, 5], [6, 7]], [[0, 1], [0, 1]]
            ),  # another order; another expert; no change
            ids(*[[[0, 1], [0, 1]]] * 3),
        ]
    )
    of_prompt = ids([[0, 1], [0, 1]], [[0, 1], [0, 1]], [[0, 1], [0, 1]])
    live = ids([[0, 1], [0, 2]], [[3, 1], [0, 2]], [[5, 6], [5, 6]])  # three of four; the third is padding
    behaviour = np.array([[[-1.0, -2.0, -1.0], [-3.0, 9.0, 9.0]]], np.float32)
    batch = batch_of([3, 1], sampled, of_prompt, behaviour_logprobs=behaviour)
    without = np.array([[[-1.5, -2.0, -0.5], [-3.0, 0.0, 0.0]]], np.float32)
    replayed = np.array([[[-1.25, -2.0, -1.0], [-3.0, 0.0, 0.0]]], np.float32)
    figures = replay.figures(
        batch,
        (without, KeptRouting(live[None], chosen[None])),
        replayed,
        np.float32(4),
        replay.totals(batch, 1),
    )
    assert {name: float(value) for name, value in figures.items()} == {
        "gap_live_mean": 0.25,
        "gap_live_max": 0.5,
        "gap_replayed_mean": 0.0625,
        "gap_replayed_max": 0.25,
        "flipped_prompts": 0.75,
        "flipped_responses": 0.25,
        "flipped_tokens": 0.5,
    }


def test_micro_batches_carry_the_experts_of_their_prompts_and_completions():
    """Two prompts of four completions, cut into halves by length: everything lies where its tokens lie."""
    lengths = np.array([[1, 4, 2, 3], [4, 4, 1, 1]])
    mask = (np.arange(4) < lengths[..., None]).astype(np.float32)
    number = np.arange(2 * 4 * 4, dtype=np.uint8).reshape(2, 4, 4)
    experts = KeptRouting(
        np.array([[50, 51], [60, 61]], np.uint8)[..., None, None] + np.zeros((1, 1, 2, 3), np.uint8),
        number[..., None, None] + np.zeros((2, 3), np.uint8),
    )
    empty = np.zeros((2, 1), np.int32)
    batch = Experience(
        Prompts(*[empty] * 8), number.astype(np.int32), mask, mask, mask[..., 0], routing=experts
    )
    cut = Cut(1, completions=2, buckets=(2,))
    pieces = jax.device_get(microbatches.cut_up(batch.mask, cut))
    padded = []
    for index, bucket in enumerate(pieces.bucket):
        piece = jax.tree.map(lambda x, index=index: x[index], pieces)
        length = cut.lengths(4)[bucket]
        micro = microbatches.trim(microbatches.take(batch, piece), length)
        np.testing.assert_array_equal(micro.routing.responses[..., 1, 2], micro.tokens)
        prompt = int(piece.completions[0, 0]) // 4
        assert micro.routing.prompts[0, :, 1, 2].tolist() == [50 + 10 * prompt, 51 + 10 * prompt]
        padded.append((micro.routing.prompts, microbatches.pad(micro.routing.responses, 4, UNKNOWN)))
    assert {cut.lengths(4)[bucket] for bucket in pieces.bucket} == {2, 4}
    prompts, responses = (np.stack(arrays) for arrays in zip(*padded, strict=True))
    back = microbatches.put_back(responses, pieces, 4)
    kept = np.where(mask[..., None, None] > 0, experts.responses, UNKNOWN)
    np.testing.assert_array_equal(np.where(mask[..., None, None] > 0, back, UNKNOWN), kept)
    np.testing.assert_array_equal(microbatches.put_back_prompts(prompts, pieces, 4), experts.prompts)


def test_prompts_of_several_lanes_are_put_back_in_order():
    # Lanes of two prompts each; the micro-batches go through them in another order.
    completions = np.array([[[2, 3], [0, 1]], [[0, 1], [3, 2]]], np.int32)  # [N=2,L=2,g=2], G=2
    pieces = Pieces(completions, np.zeros(2, np.int32))
    values = np.array([[11, 12], [10, 13]])[
        ..., None
    ]  # [N,L,1]: prompts 1 and 0 of lane 0, 0 and 1 of lane 1
    assert microbatches.put_back_prompts(values, pieces, 2)[:, 0].tolist() == [10, 11, 12, 13]


def test_a_prompt_that_takes_the_place_of_another_brings_its_experts():
    """Of dynamic sampling: from a batch of longer prompts, into the place of the group without advantages."""

    def drawn(prompt_length: int, value: int, advantages: list[list[float]]) -> Drawn:
        shape = (2, 2, 3)
        routing = KeptRouting(
            np.full((2, prompt_length, 1, 1), value, np.uint8), np.full((*shape, 1, 1), value, np.uint8)
        )
        ones, numbers = np.ones(shape, np.float32), np.arange(2)
        arrays = (ones.astype(np.int32) * value, ones, ones, np.array(advantages, np.float32))
        return Drawn(numbers, np.zeros(2, int), numbers, *arrays, routing)

    kept = _replace_uninformative(drawn(2, 1, [[1, -1], [0, 0]]), drawn(4, 9, [[0, 0], [1, -1]]))
    assert kept.tokens[:, 0, 0].tolist() == [1, 9]
    assert kept.routing is not None
    assert kept.routing.responses[:, 0, 0, 0, 0].tolist() == [1, 9]
    assert kept.routing.prompts[..., 0, 0].tolist() == [[1, 1, UNKNOWN, UNKNOWN], [9, 9, 9, 9]]


def test_what_a_single_update_would_choose_anyway_is_not_replayed():
    settings.check(base_config({"moe.replay": "old"}))  # four updates
    assert_refused({"moe.replay": "old", "batch.update_prompts": 512}, "moe.replay='old'.*there is only one")


@pytest.mark.parametrize(
    ("changes", "named"),
    [({"moe.replay": "sampler"}, "moe.replay"), ({"moe.measure_every": -1}, "moe.measure_every")],
)
def test_unknown_ways_of_replay_are_refused(changes, named):
    assert_refused(changes, named)


def test_a_dense_model_has_nothing_to_replay_or_to_measure():
    dense, experts = (families.of_type(name).published(size) for name, size in PUBLISHED)
    for changes in ({"moe.replay": "rollout"}, {"moe.measure_every": 5}):
        replaying = ReplayConfig.from_config(base_config(changes))
        replaying.check_model(experts)
        with pytest.raises(ValueError, match="the model has no experts"):
            replaying.check_model(dense)
    ReplayConfig("off", 0).check_model(dense)


PUBLISHED = (("qwen3_vl", "8B"), ("qwen3_vl_moe", "30B-A3B"))


@pytest.mark.parametrize(("size", "count"), [("30B-A3B", 384), ("235B-A22B", 752)])
def test_the_log_says_how_many_bytes_a_token_takes(size, count):
    architecture = families.of_type("qwen3_vl_moe").published(size)
    assert replay.bytes_per_token(architecture.text) == count
    assert f"{count} bytes per token" in ReplayConfig("rollout", 0).describe(architecture)
    assert "none kept" in ReplayConfig("off", 0).describe(architecture)
    assert ReplayConfig("off", 0).describe(families.of_type("qwen3_vl").published("8B")) == ""


def test_compile_counts_the_ids_of_an_update():
    architecture = families.of_type("qwen3_vl_moe").published("30B-A3B")
    mesh = parallel.make_mesh(base.get_config().mesh, jax.devices()[:1])
    prompts = inputs.prompts(architecture, Bucket(512, 1024), 4, mesh)
    sizes = {"group": 8, "length": 2048, "mesh": mesh, "reference": False, "old": False}
    batch = inputs.experience(prompts, **sizes, experts=architecture.text)
    assert batch.routing.prompts.shape == (4, 512, 48, 8)
    assert batch.routing.responses.shape == (4, 8, 2048, 48, 8)
    assert batch.routing.responses.dtype == np.uint8
    assert inputs.experience(prompts, **sizes).routing is None


def test_a_run_may_be_measured_anew_but_not_replayed_otherwise(tmp_path):
    """Runs from before there was a choice did as "off" does."""
    config = base_config()
    old = json.loads(config.to_json())
    del old["moe"]
    (tmp_path / "config.json").write_text(json.dumps(old))
    changed = settings.check_resume(base_config({"moe.measure_every": 5}), tmp_path / "config.json")
    assert changed == ["moe.measure_every: 0 -> 5"]
    with pytest.raises(ValueError, match="moe.replay: 'off' -> 'rollout'"):
        settings.check_resume(base_config({"moe.replay": "rollout"}), tmp_path / "config.json")


@pytest.mark.parametrize(
    ("replayed", "measure_every", "kept", "measured"),
    [("off", 0, False, []), ("off", 2, True, [0, 2]), ("old", 0, False, []), ("rollout", 3, True, [0, 3])],
)
def test_the_samplers_experts_are_kept_where_they_are_used(replayed, measure_every, kept, measured):
    replaying = ReplayConfig(replayed, measure_every)
    assert replaying.keeps_sampled == kept
    assert [step for step in range(4) if replaying.measures(step)] == measured
