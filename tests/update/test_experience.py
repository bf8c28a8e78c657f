"""What a step's experience says of how it was drawn."""

import numpy as np
import pytest

from dig_jax.rollout.engine import Rollout
from dig_jax.update.experience import read_per_filled


def drawn(lengths, reads):
    """Completions of these lengths, of up to 8 tokens, for which the caches were read so often as a whole."""
    mask = (np.arange(8) < np.array(lengths)[:, None])[None].astype(np.float32)
    return Rollout(mask.astype(int), mask, mask, mask, mask.any(-1), np.int32(8), np.float32(reads))


def test_positions_read_are_counted_for_each_that_held_a_token():
    """A completion of 5 tokens is drawn with 0, 1, 2 and 3 in the cache, one of 3 with 0 and 1.

    In two slots of 8 positions, which were read 4 times, those are 64 for 7; in half of them each time, 32.
    Where tokens are the first or second nothing is in the cache.
    """
    assert read_per_filled([drawn([5, 3], 4)], slots=2, longest=8) == pytest.approx(64 / 7)
    assert read_per_filled([drawn([5, 3], 2)], slots=2, longest=8) == pytest.approx(32 / 7)
    both = [drawn([5, 3], 4), drawn([1, 2], 1)]
    assert read_per_filled(both, slots=2, longest=8) == pytest.approx((64 + 16) / 7)
    assert read_per_filled([drawn([1, 2], 1)], slots=2, longest=8) == 16  # rather than divided by nothing
