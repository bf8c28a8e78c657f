"""Do processes that load the same row of a batch hold the same pair there?"""

import zlib
from collections.abc import Sequence

import jax
import numpy as np
from jax.experimental import multihost_utils


def checksums(ids: Sequence[str]) -> np.ndarray:
    """int32 [n], not negative: short names of pairs that processes can compare."""
    return np.array([zlib.crc32(name.encode()) & 0x7FFFFFFF for name in ids], np.int32)


def agree_on_rows(ids: Sequence[str], rows: np.ndarray, count: int) -> np.ndarray:
    """Checks that processes that hold the same row hold the same pair there; all must take part.

    They load it each for themselves, and one that can not read it alone would put another in its place.

    Args:
        ids: of the rows that this process has.
        rows: int, which these are.
        count: rows of the batch, over all processes.

    Returns:
        `checksums` of all rows, int32 [count], -1 for rows that no process has; on every process.

    Raises:
        ValueError: they do not, on every process alike.
    """
    own = np.full(count, -1, np.int32)
    own[rows] = checksums(ids)
    if jax.process_count() == 1:
        return own
    found = np.asarray(multihost_utils.process_allgather(own, tiled=False))  # [processes, count]
    agreed = found.max(axis=0)
    differing = np.flatnonzero(np.any((found != agreed) & (found >= 0), axis=0))
    if differing.size:
        row = int(differing[0])
        holders = np.flatnonzero(found[:, row] >= 0).tolist()
        here = f" (here {ids[list(rows).index(row)]})" if row in rows else ""
        raise ValueError(
            f"processes {holders} loaded different pairs for row {row} of a batch{here}: one of them could"
            " not read a pair that the others can, or their copies of the data differ. Look for its warning,"
            " and give all hosts the same data"
        )
    return agreed
