"""Which example is shown when: shares of a mixture are exact, and a position is all that is needed."""

import collections

import numpy as np
import pytest

from dig_jax.data.order import PART_STREAM, Dealt, Epochs, whole_shares


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
