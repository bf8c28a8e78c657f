"""Picture files of a user: upright, 8-bit RGB, transparency on white, as dig_jax shows pictures to a model.

Tests hold the two to the same pixels; neither package imports the other.
"""

from __future__ import annotations

import dataclasses
import io
import re
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from data_gen.files.userfiles import is_lfs_pointer
from data_gen.records.dataset import too_large

FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF")  # and no reader that would start another program
MAX_BYTES = 2 << 30
MAX_RATIO = 200  # of the sides: Qwen's vision models, like dig_jax, take no narrower picture
_HIGH_RANGE = ("I", "I;16", "I;16B", "I;16L", "I;16N", "F")  # one channel of more than 8 bits
_ORIENTATION = 0x0112  # the EXIF tag

TURNED = "turned upright as its EXIF data say"
TRANSPARENT = "has transparent pixels, which were put on white"
CLIPPED = "is grey of more than 8 bits, and its values were cut to whole numbers 0..255"
PRINT = "is CMYK, which became RGB without a colour profile"
FRAMES = "has several frames, of which the first was taken"


class BadPicture(ValueError):
    """A file that is no picture that can be used; the message says why."""


@dataclasses.dataclass(frozen=True)
class Picture:
    """uint8 [height, width, 3], upright, and what was done to the file's picture, in words."""

    pixels: np.ndarray
    notes: tuple[str, ...]

    @property
    def size(self) -> tuple[int, int]:
        """(width, height)."""
        height, width = self.pixels.shape[:2]
        return width, height


def read_bytes(path: Path) -> bytes:
    """The file's bytes. Raises BadPicture."""
    try:
        if not path.exists():
            hint, shown_path = "", str(path)
            if address := re.search(r"\b\w{2,}:/", shown_path):  # of which Path keeps one slash
                shown_path = shown_path[address.start() :].replace(":/", "://", 1)
                hint = ": pictures are read from this machine's disk, not from an address"
            elif "\\" in str(path):
                hint = "; here a path is written with / and not with \\"
            raise BadPicture(f"{shown_path}: no such file{hint}")
        if not path.is_file():
            raise BadPicture(f"{path} is not a file")
        if path.stat().st_size > MAX_BYTES:
            raise BadPicture(f"{path} has {path.stat().st_size >> 20} MB; at most {MAX_BYTES >> 20} are read")
        return path.read_bytes()
    except OSError as error:
        raise BadPicture(f"{path}: {error.strerror or error}") from None


def decode(data: bytes, path: Path) -> Picture:
    """The picture in the bytes of the file `path`. Raises BadPicture."""
    if is_lfs_pointer(data):
        raise BadPicture(f"{path} is a Git LFS pointer, not the file itself; fetch it with `git lfs pull`")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large pictures and odd EXIF data: what matters is told below
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                if problem := too_large(image.width, image.height):
                    raise BadPicture(f"{path}: {problem}")
                if max(image.size) > MAX_RATIO * min(image.size):
                    raise BadPicture(
                        f"{path}: {image.width}x{image.height} pixels; the sides must be within {MAX_RATIO}:1"
                    )
                return Picture(*convert(image))
    except BadPicture:
        raise
    except Image.UnidentifiedImageError:
        kind = "an empty file" if not data else f"not a {', '.join(FORMATS[:-1])} or {FORMATS[-1]} file"
        raise BadPicture(f"{path}: {kind}") from None
    except Image.DecompressionBombError as error:
        raise BadPicture(f"{path}: too many pixels ({error})") from None
    except Exception as error:  # PIL's readers raise OSError, SyntaxError, ValueError, struct.error, ...
        raise BadPicture(f"{path}: the picture is damaged ({error})") from None


def convert(image: Image.Image) -> tuple[np.ndarray, tuple[str, ...]]:
    """The pixels of an opened picture, and what was done to it."""
    notes = [FRAMES] if getattr(image, "n_frames", 1) > 1 and image.format != "MPO" else []
    image.load()
    turned = upright(image)
    notes += [TURNED] if turned is not image else []
    image, note = to_rgb(turned)
    return np.asarray(image), (*notes, *([note] if note else []))


def upright(image: Image.Image) -> Image.Image:
    """The decoded picture as its EXIF orientation wants it shown; the same object where it is upright."""
    try:
        if image.getexif().get(_ORIENTATION, 1) in range(2, 9):
            return ImageOps.exif_transpose(image)
    except Exception:  # damaged EXIF data raise anything; the picture itself may be whole
        pass
    return image


def to_rgb(image: Image.Image) -> tuple[Image.Image, str]:
    """The picture in mode RGB, and what that did to it; "" where every pixel is as it was."""
    if "A" in image.getbands() or image.info.get("transparency") is not None:
        image = image.convert("RGBA")
        clear = sum(image.getchannel("A").histogram()[:255]) > 0
        if clear:
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        return image.convert("RGB"), TRANSPARENT if clear else ""
    if image.mode in _HIGH_RANGE:
        rgb = image.convert("RGB")
        return rgb, CLIPPED if (np.asarray(rgb.getchannel(0)) != np.asarray(image)).any() else ""
    return image.convert("RGB"), PRINT if image.mode == "CMYK" else ""
