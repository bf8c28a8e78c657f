"""Images as someone asks about them (files, bytes, arrays, PIL images), and what the model sees of them."""

from __future__ import annotations

import dataclasses
import os
import sys

import numpy as np
from PIL import Image

from dig_jax.data import rgb
from dig_jax.data.images import ImageConfig, decode_image, image_size, read_file, smart_resize


@dataclasses.dataclass(frozen=True, eq=False)
class Shown:
    """An image that was read.

    Attributes:
      pixels: uint8 [H, W, 3], upright; `images.preprocess` makes patches of it.
      notes: what the model does not see of it, in words: pixels it was shrunk by, transparency, ...
    """

    pixels: np.ndarray
    notes: tuple[str, ...] = ()

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        height, width = self.pixels.shape[:2]
        return height, width


Picture = str | os.PathLike[str] | bytes | np.ndarray | Image.Image | Shown


def show(picture: Picture, config: ImageConfig, name: str = "") -> Shown:
    """Reads an image, upright, in RGB, and as large as the model looks at it where it comes from a file.

    Args:
      picture: a path, the bytes of a file, uint8 [H, W, 3], or a PIL image.
      config: how the model looks at it.
      name: what to call it in errors and notes, before its path if it has one.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is no image, or of a shape that the model does not take.
      TypeError: it is something else.
    """
    if isinstance(picture, Shown):
        return picture
    if isinstance(picture, str | os.PathLike):
        name = f"{name}: {picture}" if name else str(picture)
        picture = read_file(picture, name)
    name = name or "the image"
    notes: list[str] = []
    size: tuple[int, int] | None = None  # of the file, before it is shrunk on reading
    if isinstance(picture, np.ndarray):
        if picture.ndim != 3 or picture.shape[-1] != 3 or picture.dtype != np.uint8:
            raise ValueError(
                f"{name}: an array {list(picture.shape)} of {picture.dtype}; expected uint8 [H, W, 3]"
            )
        pixels = picture
    elif isinstance(picture, Image.Image):
        image, lost = rgb.to_rgb(rgb.upright(picture, None))
        pixels = np.asarray(image)
        notes += [f"{name}: {lost}"] if lost else []
    elif isinstance(picture, bytes):
        size = image_size(picture, name)
        pixels = decode_image(picture, name, fit=config, warn=notes.append)
    else:
        raise TypeError(
            f"{name} is a {type(picture).__name__}; expected a path, the bytes of a file, a NumPy array or"
            " a PIL image"
        )
    height, width = size or Shown(pixels).size
    try:
        shrunk = shrunk_size(height, width, config)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    if shrunk:
        notes.append(
            f"{name}: {width}x{height} pixels, shown as {shrunk[1]}x{shrunk[0]} (at most {config.max_pixels}"
            " pixels)"
        )
    return Shown(pixels, tuple(notes))


def shrunk_size(height: int, width: int, config: ImageConfig) -> tuple[int, int] | None:
    """(height, width) that the limit of pixels shrinks an image to; None where it leaves it alone."""
    size = smart_resize(height, width, config)
    if config.square:
        return size if max(height, width) > size[0] else None
    unlimited = smart_resize(height, width, dataclasses.replace(config, max_pixels=sys.maxsize))
    return None if size == unlimited else size
