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
    from PIL import Image

    names = []
    for image in images:
        shown = hashlib.sha256(str(image.shape).encode() + np.ascontiguousarray(image).tobytes())
        names.append(f"{shown.hexdigest()[:16]}.webp")
        if not (folder / names[-1]).exists():
            small, buffer = Image.fromarray(image), io.BytesIO()
            small.thumbnail((SIDE, SIDE))
            small.save(buffer, "WEBP", quality=_QUALITY)
            (folder / names[-1]).write_bytes(buffer.getvalue())
    return names
