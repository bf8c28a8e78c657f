"""What a model's pixel limits do to the pictures of a benchmark: no picture is shrunk without being counted.

A model looks at pictures of at most `max_pixels` pixels (`ImageConfig`): what is larger is shrunk, and
detail is lost before the first layer. Benchmarks of 4K and 8K pictures measure just that detail.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterable

from dig_jax.benchmarks.row import Row
from dig_jax.data.buckets import Bucket
from dig_jax.data.example import Size
from dig_jax.data.images import ImageConfig, image_size
from dig_jax.data.shown import shrunk_size
from dig_jax.models.architecture import Architecture

_NAMED = 3  # pairs of sizes that a line names


@dataclasses.dataclass(frozen=True)
class Shrinking:
    """How pictures become smaller than they are.

    Attributes:
      max_pixels: the limit.
      count: of all pictures.
      sizes: ((height, width) as stored, (height, width) as shown, how many) of those the limit shrinks, the
        most frequent first.
      unusable: pictures of a shape that no model takes.
    """

    max_pixels: int
    count: int
    sizes: tuple[tuple[Size, Size, int], ...]
    unusable: int = 0

    @property
    def shrunk(self) -> int:
        """How many pictures the limit shrinks."""
        return sum(count for *_, count in self.sizes)

    @property
    def least(self) -> float:
        """The smallest share of its pixels that a picture keeps; 1 where none is shrunk."""
        return min((_area(shown) / _area(stored) for stored, shown, _ in self.sizes), default=1.0)

    def __str__(self) -> str:
        """One line for a reader."""
        line = f"{self.shrunk} of {self.count} pictures are shrunk (at most {self.max_pixels:,} pixels)"
        if self.sizes:
            named = [
                f"{count} from {stored[1]}x{stored[0]} to {shown[1]}x{shown[0]}"
                for stored, shown, count in self.sizes[:_NAMED]
            ]
            if left := self.shrunk - sum(count for *_, count in self.sizes[:_NAMED]):
                named.append(f"{left} of other sizes")
            line += f": {', '.join(named)}; the least keeps {self.least:.1%} of its pixels"
        if self.unusable:
            line += f"; {self.unusable} are of a shape that no model takes"
        return line


def picture_sizes(rows: Iterable[Row]) -> dict[str, Size]:
    """(height, width) of every picture, by its key, from its header; each is read once.

    Raises:
      ValueError: pictures are missing or damaged: how many, and what is wrong with the first. Without them it
        would be another set, easier or harder.
    """
    sizes: dict[str, Size] = {}
    wrong: dict[str, Exception] = {}
    for picture in (picture for row in rows for picture in row.images):
        if picture.key in sizes or picture.key in wrong:
            continue
        try:
            sizes[picture.key] = image_size(picture.read(), picture.name)
        except Exception as error:  # a damaged picture can make its reader raise anything
            wrong[picture.key] = error
    if wrong:
        count, (first, *_) = len(sizes) + len(wrong), wrong.values()
        raise ValueError(f"{len(wrong)} of {count} pictures cannot be read, the first: {first}") from first
    return sizes


def shrinking(sizes: Iterable[Size], config: ImageConfig) -> Shrinking:
    """What the limit of `config` does to pictures of these sizes, (height, width) of each as stored."""
    counts = collections.Counter(sizes)
    found, unusable = [], 0
    for size, count in counts.most_common():
        try:
            shown = shrunk_size(*size, config)
        except ValueError:
            unusable += count
            continue
        if shown:
            found.append((size, shown, count))
    return Shrinking(config.max_pixels, counts.total(), tuple(found), unusable)


def row_bytes(
    bucket: Bucket, images: ImageConfig, architecture: Architecture, width: int = 2
) -> dict[str, int]:
    """Bytes that one prompt padded to `bucket` takes, by part; a lower bound of what its prefill needs.

    Args:
      bucket: tokens and patches.
      images: the model's image settings.
      architecture: the model's.
      width: bytes of a number that is computed with; 2 for bfloat16.

    Returns:
      "patches", the float32 pixels as the loader hands them over; "tower", one copy of the vision tower's
      hidden states; "prompt", one of the decoder's; "cache", keys and values of all layers. What a whole step
      takes, `python -m dig_jax.compile` tells.
    """
    text, vision = architecture.text, architecture.vision
    token = 2 * text.num_hidden_layers * text.num_key_value_heads * text.head_dim  # keys and values of one
    return {
        "patches": 4 * bucket.num_patches * images.patch_dim,
        "tower": width * bucket.num_patches * vision.hidden_size,
        "prompt": width * bucket.prompt_length * text.hidden_size,
        "cache": width * bucket.prompt_length * token,
    }


def _area(size: Size) -> int:
    return size[0] * size[1]
