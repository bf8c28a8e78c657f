"""PNG files that this package itself writes and reads back."""

import io

import numpy as np
from PIL import Image

COMPRESSION = 3  # of zlib: a photo takes a quarter of the time of the usual 6, and a tenth more room


def decode(png: bytes) -> np.ndarray:
    """uint8 or uint16 [height, width], or uint8 [height, width, 3]."""
    return np.asarray(Image.open(io.BytesIO(png)))


def encode(picture: np.ndarray) -> bytes:
    """The PNG file of a picture, uint8 [height, width, 3]. It holds the pixels alone: no place, no date."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG", compress_level=COMPRESSION)
    return file.getvalue()
