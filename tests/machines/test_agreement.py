"""Hosts that share rows of a batch notice when they have loaded different pairs for them."""

import numpy as np
import pytest

from dig_jax.machines import agreement


def on_process(monkeypatch, number, held):
    """What process `number` is told, when each process has loaded `held`: {row: pair} of three rows."""

    def row_names(pairs):
        names = np.full(3, -1, np.int32)
        names[list(pairs)] = agreement.checksums(list(pairs.values()))
        return names

    monkeypatch.setattr(agreement.jax, "process_count", lambda: len(held))
    gathered = np.stack([row_names(pairs) for pairs in held])
    monkeypatch.setattr(agreement.multihost_utils, "process_allgather", lambda x, tiled: gathered)
    own = held[number]
    return agreement.agree_on_rows(list(own.values()), np.array(list(own)), 3)


def test_every_process_learns_the_names_of_all_rows(monkeypatch):
    held = [{0: "cat", 1: "dog"}, {1: "dog", 2: "cow"}]
    for number in range(2):
        names = on_process(monkeypatch, number, held)
        np.testing.assert_array_equal(names, agreement.checksums(["cat", "dog", "cow"]))


def test_different_pairs_for_one_row_are_an_error_on_every_process(monkeypatch):
    """The second one put another pair in the place of one that it could not read."""
    held = [{0: "cat", 1: "dog"}, {1: "cow", 2: "cow"}, {0: "cat"}]
    for number, here in enumerate([r" \(here dog\)", r" \(here cow\)", ""]):
        with pytest.raises(
            ValueError, match=rf"processes \[0, 1\] .* for row 1 of a batch{here}: one of them"
        ):
            on_process(monkeypatch, number, held)
