"""PNG files that the generator itself has written."""

import io

import numpy as np
from PIL import Image


def decode(png: bytes) -> np.ndarray:
    """uint8 or uint16 [height, width], or uint8 [height, width, 3]."""
    return np.asarray(Image.open(io.BytesIO(png)))
