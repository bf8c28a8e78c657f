"""What processes have, gathered on all of them: rows of arrays, and texts."""

from collections.abc import Sequence

import jax
import numpy as np
from jax.experimental import multihost_utils


def gather_rows(rows: np.ndarray) -> np.ndarray:
    """What each process has, equally much of each: [n, ...] to [processes * n, ...], in their order."""
    if jax.process_count() == 1:
        return rows
    return np.asarray(multihost_utils.process_allgather(rows, tiled=True))


def from_owners(values: np.ndarray, owners: np.ndarray) -> np.ndarray:
    """Rows [count, ...] that are right on their owner alone, right on every process.

    Owners are those of `parallel.RowLayout`. Rows travel through the devices: numbers of at most 32 bits.
    """
    if jax.process_count() == 1:
        return values
    gathered = np.asarray(multihost_utils.process_allgather(values, tiled=False))
    return gathered[owners, np.arange(len(owners))]


def gather_texts(texts: Sequence[str], rows: np.ndarray, owners: np.ndarray) -> list[str]:
    """The texts of all rows on every process.

    Args:
        texts: of the rows that this process has, among them those it owns.
        rows: int, which these are.
        owners: of all rows.
    """
    encoded = [text.encode() for text in texts]
    longest = int(gather_rows(np.array([max(map(len, encoded), default=0)], np.int32)).max())
    characters = np.zeros((len(owners), longest), np.uint8)
    for row, text in zip(rows, encoded, strict=True):
        characters[row, : len(text)] = np.frombuffer(text, np.uint8)
    return [bytes(row).rstrip(b"\0").decode() for row in from_owners(characters, owners)]
