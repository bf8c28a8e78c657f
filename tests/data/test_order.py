"""Which example is shown when: shares of a mixture are exact, and a position is all that is needed."""

import collections

import numpy as np
import pytest

from dig_jax.data.order import PART_STREAM, Dealt, Epochs, grouped, whole_shares


@pytest.mark.parametrize(
    ("weights", "shares"),
    [
        ((3, 1), (3, 1)),
        ((1.5, 0.5), (3, 1)),
        ((0.7, 0.3), (7, 3)),
        ((2,), (1,)),
        ((0.1, 0.25, 0.65), (2, 5, 13)),
    ],
)
def test_shares_are_the_smallest_whole_numbers_that_are_to_each_other_as_the_weights(weights, shares):
    assert whole_shares(weights) == shares


def test_weights_that_no_short_block_has_exactly_are_refused():
    with pytest.raises(
        ValueError, match="0.3333, 1 are to each other as 3333:10000, which takes 13333 .* 1000"
    ):
        whole_shares((0.3333, 1.0))


def test_every_block_has_exactly_the_shares_of_its_parts_in_an_order_of_its_own():
    order = Dealt([7, 3, 100], [3, 1, 2], seed=5)
    blocks = [tuple(order.part(6 * block + place) for place in range(6)) for block in range(50)]
    assert all(collections.Counter(block) == {0: 3, 1: 1, 2: 2} for block in blocks)
    assert len(set(blocks)) > 20
    others = Dealt([7, 3, 100], [3, 1, 2], seed=6)
    assert blocks != [tuple(others.part(6 * block + place) for place in range(6)) for block in range(50)]


def test_a_part_shows_what_it_would_show_alone_epoch_by_epoch():
    sizes = [7, 3]
    order = Dealt(sizes, [3, 1], seed=5)
    for part, first in enumerate((0, 7)):
        own = [position for position in range(400) if order.part(position) == part]
        shown = [order.example(position) - first for position in own]
        alone = Epochs(sizes[part], (5, PART_STREAM, part))
        assert shown == [alone.example(place) for place in range(len(own))]
        epochs = np.array(shown[: len(shown) // sizes[part] * sizes[part]]).reshape(-1, sizes[part])
        assert (np.sort(epochs) == np.arange(sizes[part])).all()
        assert len({tuple(epoch) for epoch in epochs}) > 3


def test_any_position_can_be_asked_first():
    order, other = (Dealt([7, 3], [3, 2], seed=1) for _ in range(2))
    forward = [(order.part(position), order.example(position)) for position in range(300)]
    backward = [(other.part(position), other.example(position)) for position in reversed(range(300))]
    assert forward == backward[::-1]


def test_whole_batches_are_dealt_each_of_one_part_and_of_one_kind_of_it():
    """Four in a batch; the first part has 8 short examples and 8 long ones, the second 6 of one kind."""
    kinds = [np.repeat([0, 1], 8), np.zeros(6, int)]
    order = Dealt([16, 6], [2, 1], seed=5, together=4, groupings=[grouped(kind, 4) for kind in kinds])
    batches = [[order.example(4 * batch + row) for row in range(4)] for batch in range(6)]
    parts = [[order.part(4 * batch + row) for row in range(4)] for batch in range(6)]
    assert all(len(set(part)) == 1 for part in parts)
    for block in (parts[:3], parts[3:]):
        assert sorted(part[0] for part in block) == [0, 0, 1]  # exact shares of every three batches
    first = [batch for batch, part in zip(batches, parts, strict=True) if part[0] == 0]
    assert sorted(sum(first, [])) == list(range(16))  # an epoch: each once
    assert all(len({number // 8 for number in batch}) == 1 for batch in first)
    second = sum((batch for batch, part in zip(batches, parts, strict=True) if part[0]), [])
    assert sorted(second[:6]) == list(range(16, 22))  # its epoch goes on inside of a batch


def test_without_groups_batches_are_dealt_as_positions_are():
    one, same = (
        Dealt([7, 3], [3, 2], seed=1),
        Dealt([7, 3], [3, 2], seed=1, together=1, groupings=[None, None]),
    )
    assert [one.example(n) for n in range(50)] == [same.example(n) for n in range(50)]
