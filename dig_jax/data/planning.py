"""What the prompts of a dataset are padded to, known before the first step.

For that every question is read into tokens, many at a time. Hundreds of thousands take minutes, so lengths
are kept in a folder of the run from one start to the next, under a hash of all that decides them: questions
and sizes in their order, tokenizer, chat template, preprocessing. What is kept is found by that hash alone:
lengths of other questions are never taken for these.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import uuid
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from etils import epath

from dig_jax.data.buckets import Bucket, Padding, derive_buckets, smallest_bucket, with_lengths
from dig_jax.data.encode import NEED_COLUMNS, ExampleEncoder, describe_sizes
from dig_jax.data.example import Example, Shape

WORTH_KEEPING = 4096  # questions; fewer are read in a moment

logger = logging.getLogger("dig_jax")


class Shown(Protocol):
    """Examples, as far as their padding goes."""

    shapes: list[Shape]

    def __getitem__(self, index: int, /) -> Example:
        """Example number `index`, for errors."""


def plan_padding(
    dataset: Shown,
    encoder: ExampleEncoder,
    bucket_pixels: Sequence[int],
    prompt_lengths: Sequence[int] = (),
    kept: epath.Path | None = None,
) -> Padding:
    """The buckets of a dataset, and which of them each example takes.

    Args:
      dataset: whose examples are padded.
      encoder: turns them into arrays.
      bucket_pixels, prompt_lengths: as of `loader.ExampleLoader`.
      kept: folder where lengths are kept from one start to the next; None: nowhere.

    Raises:
      ValueError: naming an example, when no model takes its images or it fits into no bucket.
    """
    numbers: dict[Shape, int] = {}  # shapes may be few: questions times sizes
    which = np.array([numbers.setdefault(shape, len(numbers)) for shape in dataset.shapes])
    shapes = list(numbers)

    def described(number: int) -> str:
        first = dataset[int(np.flatnonzero(which == number)[0])]
        return f"{first.id}, {describe_sizes(shapes[number].sizes)}"

    try:
        table = needs_of(shapes, encoder, kept)
    except ValueError:
        for number, shape in enumerate(shapes):
            try:
                encoder.needs([shape])
            except ValueError as error:
                raise ValueError(f"{described(number)}: {error}") from None
        raise
    different, of_shape = np.unique(table[:, :2], axis=0, return_inverse=True)
    needs = [Bucket(int(tokens), int(patches)) for tokens, patches in different]
    if bucket_pixels:
        buckets = tuple(sorted({encoder.most(table, pixels).rounded() for pixels in bucket_pixels}))
    else:
        buckets = derive_buckets(needs, encoder.most(table, encoder.image_config.max_pixels).num_patches)
    if prompt_lengths:
        buckets = with_lengths(buckets, needs, prompt_lengths)
    rungs = [smallest_bucket(buckets, need) for need in needs]
    if None in rungs:
        unfit = [need for need, rung in enumerate(rungs) if rung is None]
        number = int(np.flatnonzero(np.isin(of_shape, unfit))[0])
        raise ValueError(
            f"{described(number)} need {needs[of_shape[number]]}, but the largest of"
            f" config.data.buckets={tuple(bucket_pixels)} holds {buckets[-1]}: add a bucket of more pixels,"
            " or shrink images with config.data.max_pixels"
        )
    smallest = np.array(rungs, np.int64)[of_shape.ravel()]
    return Padding(buckets, table[:, :2][which], smallest[which])


def needs_of(shapes: Sequence[Shape], encoder: ExampleEncoder, kept: epath.Path | None) -> np.ndarray:
    """`ExampleEncoder.needs`, from the folder where it has them. Raises ValueError."""
    if kept is None or len(shapes) < WORTH_KEEPING:
        return encoder.needs(shapes)
    path = kept / f"{digest(shapes, encoder)}.npy"
    known = _read(path, len(shapes))
    if known is None:
        known = encoder.needs(shapes)
        _write(path, known)
    else:
        logger.info("lengths of %d questions are those kept in %s", len(shapes), path)
    return known


def digest(shapes: Sequence[Shape], encoder: ExampleEncoder) -> str:
    """A hash of all that decides how long the prompts of these shapes are."""
    found = hashlib.sha256(encoder.fingerprint().encode())
    for shape in shapes:
        turns = [(turn.role, turn.parts) for turn in shape.messages]
        found.update(f"{turns!r}{shape.sizes!r}\n".encode())
    return found.hexdigest()[:32]


def _read(path: epath.Path, count: int) -> np.ndarray | None:
    """The table of so many shapes; None where there is none, or a damaged one, which is told of."""
    if not path.exists():
        return None
    try:
        table = np.load(io.BytesIO(path.read_bytes()), allow_pickle=False)
        if table.shape == (count, len(NEED_COLUMNS)) and table.dtype == np.int64:
            return table
        problem = f"it has {table.shape} {table.dtype}"
    except (OSError, ValueError, EOFError) as error:
        problem = str(error)
    logger.warning("%s is damaged (%s): the questions are read into tokens again", path, problem)
    return None


def _write(path: epath.Path, table: np.ndarray) -> None:
    """Keeps a table, whole or not at all; other hosts may write the same at the same time."""
    file = io.BytesIO()
    np.save(file, table, allow_pickle=False)
    temporary = path.parent / f".{path.name}.{uuid.uuid4().hex[:8]}.tmp"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(file.getvalue())
        temporary.replace(path)
    except OSError as error:  # a full disk: the run needs them no more
        logger.warning("%s cannot be written (%s): the next start reads the questions again", path, error)
        with contextlib.suppress(OSError):
            temporary.unlink()
