"""The two pictures of the page: read, or refused in words for whoever put them there; and made URLs of."""

import base64
import io
import os
import pathlib
import warnings
from collections.abc import Sequence

import numpy as np
from PIL import Image

from dig_jax.data.images import decode_image

MAX_PIXELS = 33_554_432  # of a picture, known from its header, as of the server
MAX_MEGABYTES = 32  # of its file
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")  # what PIL reads itself: no EPS, which runs a program
SHOWN_SIDE = 1600  # pixels: larger pictures are shrunk on their way to the page, not on that to the model
_NAMES = ("first", "second")


def read_two(paths: Sequence[str | None]) -> tuple[np.ndarray, np.ndarray]:
    """Both pictures, uint8 [H, W, 3] of one size, upright.

    Args:
      paths: their files, as they were uploaded; None where there is none.

    Raises:
      ValueError: in words for the page: one is missing, no picture or too large, or they differ in size.
    """
    missing = [name for name, path in zip(_NAMES, paths, strict=True) if not path]
    if len(missing) == 2:
        raise ValueError("Put in two pictures first: upload or paste them, or choose a sample.")
    if missing:
        raise ValueError(f"The {missing[0]} picture is missing: a difference is one between two pictures.")
    first, second = (
        _read(str(path), f"The {name} picture") for name, path in zip(_NAMES, paths, strict=True)
    )
    if first.shape != second.shape:
        a, b = (f"{pixels.shape[1]}x{pixels.shape[0]}" for pixels in (first, second))
        raise ValueError(
            f"The two pictures differ in size, {a} and {b} pixels, so their places can not be compared: crop"
            " or scale one of them to the size of the other."
        )
    return first, second


def _read(path: str, name: str) -> np.ndarray:
    if os.path.getsize(path) > MAX_MEGABYTES * 2**20:
        raise ValueError(f"{name} is a file of more than {MAX_MEGABYTES} MB: shrink it, or save it as JPEG.")
    data = pathlib.Path(path).read_bytes()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit is the page's own
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                width, height = image.size
    except Image.DecompressionBombError:
        width, height = MAX_PIXELS, 2
    except Exception:  # PIL's readers raise OSError, SyntaxError, ValueError, struct.error, ...
        kinds = f"{', '.join(FORMATS[:-1])} or {FORMATS[-1]}"
        raise ValueError(f"{name} can not be read: it is no {kinds} file, or it is damaged.") from None
    if width * height > MAX_PIXELS:
        raise ValueError(
            f"{name} has more than {MAX_PIXELS // 1_000_000} million pixels, which is too many for this page:"
            " shrink it."
        )
    try:
        return decode_image(data, name, warn=lambda note: None)
    except ValueError as error:
        raise ValueError(f"{name} can not be read: {error}") from None


def png(pixels: np.ndarray) -> bytes:
    """The PNG file of a picture, uint8 [H, W, 3]."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def shown_url(pixels: np.ndarray) -> str:
    """A data URL of a picture to look at: pixel by pixel, unless it is larger than screens are."""
    height, width = pixels.shape[:2]
    if max(height, width) > SHOWN_SIDE:
        share = SHOWN_SIDE / max(height, width)
        size = (max(1, round(width * share)), max(1, round(height * share)))
        pixels = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS))
    return "data:image/png;base64," + base64.b64encode(png(pixels)).decode()
