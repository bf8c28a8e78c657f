"""Which slot decodes what: every completion once, and no slot is idle beside one whose prompt is there."""

import dataclasses

import jax
import numpy as np
import pytest

from bench.schedule import count
from dig_jax.models.nn import ragged_decode
from dig_jax.rollout.schedule import Schedule

D, B, G = 2, 4, 3
WORK = np.array([[[9, 1, 1], [2, 2, 5], [1, 1, 1], [3, 4, 1]], [[1, 1, 2], [6, 1, 1], [1, 7, 1], [2, 2, 2]]])


@jax.jit
def step(schedule: Schedule, ended: np.ndarray) -> Schedule:
    """After every slot has drawn a token."""
    longer = dataclasses.replace(schedule, length=schedule.length + 1)
    schedule = longer.take_completions(ended | ~schedule.busy)
    return jax.lax.cond(
        schedule.wants_prompts(), lambda old: old.take_prompts()[0], lambda old: old, schedule
    )


@pytest.mark.parametrize(("rows", "slots"), [(1, 1), (2, 2), (2, 5), (4, 12)])
def test_every_completion_is_decoded_once_beside_its_prompt(rows, slots):
    work = WORK.reshape(D, -1)
    schedule, done = Schedule.begin(D, B, G, rows, slots), np.zeros((D, B * G), int)
    while schedule.is_running():
        now = jax.device_get(schedule)
        for shard in range(D):
            busy = now.completion[shard] < B * G
            own = now.completion[shard][busy]
            assert len(set(own)) == len(own)
            np.testing.assert_array_equal(now.prompt[shard][now.row[shard][busy]], own // G)
            np.testing.assert_array_equal(now.length[shard][busy] - 1, done[shard, own])
            if not busy.all():  # then nothing is left in the rows, and no row is free for what waits
                assert np.all(now.taken[shard] == G)
                assert now.next_prompt[shard] == B or set(now.row[shard][busy]) == set(range(rows))
            done[shard, own] += 1
        of = np.minimum(now.completion, B * G - 1)
        ended = np.take_along_axis(done == work, of, axis=1)
        schedule = step(schedule, ended)
    np.testing.assert_array_equal(done, work)


def test_counts_by_hand(monkeypatch):
    """Two rows of one slot, completions of 3 and 1, 2 and 2 steps after their first tokens.

    Bound to rows, the slots take 3 + 1 and 2 + 2. Else the second takes 1, 2 and 2: they are dealt in order.
    Blocks are of 2 positions: 3 steps, with 0, 1 and 2 filled, read none, one and one.
    """
    monkeypatch.setattr(ragged_decode, "MOST_POSITIONS", 2)
    monkeypatch.setattr(ragged_decode, "LANES", 2)
    lengths = np.array([[[4, 2], [3, 3]]])
    bound, free = (count(lengths, 2, 1, longest=16, bound=bound) for bound in (True, False))
    assert (bound.steps, free.steps) == (4, 5)
    assert bound.tokens == free.tokens == 8
    assert (bound.read, free.read) == (4 * 16 * 2, 5 * 16 * 2)  # all positions of two slots
    assert bound.read_filled == free.read_filled == 2 * (2 + 0 + 1 + 1)
    assert bound.filled == free.filled == (0 + 1 + 2) + 0 + (0 + 1) + (0 + 1)
    assert bound.slot_use == 1.0


def test_a_window_is_read_until_a_longer_completion_runs():
    """One completion of 1,000 tokens: 512 positions until 512 tokens were fed (0 to 512), then 1,024."""
    one = count(np.array([[[1000]]]), 1, 1, longest=1024)
    assert one.steps == 999
    assert one.read == 257 * 256 + 256 * 512 + (999 - 513) * 1024
    assert one.read_filled == 512 * 512 + (999 - 513) * 1024
