"""Small copies of images for the report, kept once each under a name made of what they show."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence

import numpy as np
from etils import epath

SIDE = 480  # pixels of the longer side, at most
_QUALITY = 88


def keep_thumbnails(folder: epath.Path, images: Sequence[np.ndarray]) -> list[str]:
    """Writes those that are not there yet.

    Args:
      folder: to keep them in.
      images: uint8 [H, W, 3] each.

    Returns:
      Their file names, WebP.
    """
    names = []
    for image in images:
        name = thumbnail_name(image)
        names.append(name)
        if not (folder / name).exists():
            (folder / name).write_bytes(thumbnail(image)[0])
    return names


def thumbnail_name(image: np.ndarray) -> str:
    """What the small copy of an image is called."""
    shown = hashlib.sha256(str(image.shape).encode() + np.ascontiguousarray(image).tobytes())
    return f"{shown.hexdigest()[:16]}.webp"


def thumbnail(image: np.ndarray) -> tuple[bytes, tuple[int, int]]:
    """The small copy, a WebP file, with its width and height."""
    from PIL import Image

    small, buffer = Image.fromarray(image), io.BytesIO()
    small.thumbnail((SIDE, SIDE))
    small.save(buffer, "WEBP", quality=_QUALITY)
    return buffer.getvalue(), small.size
