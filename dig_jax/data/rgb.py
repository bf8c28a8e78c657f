"""An opened image file as transformers shows it to Qwen3-VL: upright, RGB, transparency on white.

The two steps are those of transformers' `load_image` (EXIF orientation) and `convert_to_rgb`. What they cost
the picture is told: how many pixels were transparent, too bright for 8 bits, or of colours for print.
"""

from __future__ import annotations

import numpy as np
from PIL import ExifTags, Image

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SWAPS_SIDES = (5, 6, 7, 8)
# Where a PNG may keep an orientation. To look for one behind the pixels, PIL would decode them.
_PNG_KEYS = (b"eXIf", b"Raw profile type exif", b"XML:com.adobe.xmp")
_HIGH_RANGE = ("I", "I;16", "I;16B", "I;16L", "I;16N", "F")  # one channel of more than 8 bits


def upright(image: Image.Image, data: bytes | None) -> Image.Image:
    """The decoded image turned as its EXIF orientation says; `data`: the bytes of its file, if from one."""
    turn = _TURNS.get(_orientation(image, data))
    return image if turn is None else image.transpose(turn)


def upright_size(image: Image.Image, data: bytes) -> tuple[int, int]:
    """(height, width) in pixels that `upright` will give; nothing is decoded, but for a PNG with EXIF."""
    width, height = image.size
    return (width, height) if _orientation(image, data) in _SWAPS_SIDES else (height, width)


def _orientation(image: Image.Image, data: bytes | None) -> int:
    if image.format == "TIFF":  # PIL turns these itself, and gives their size upright
        return 1
    if image.format == "PNG" and data is not None and not any(key in data for key in _PNG_KEYS):
        return 1
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # damaged EXIF data raise anything; the picture itself may be whole
        return 1


def to_rgb(image: Image.Image) -> tuple[Image.Image, str]:
    """The image in mode RGB, and what that did to it in words; "" where every pixel is as it was.

    Raises:
      ValueError: PIL has no way from its mode to RGB.
    """
    pixels = image.width * image.height
    if "A" in image.getbands() or image.info.get("transparency") is not None:
        image = image.convert("RGBA")
        seen_through = sum(image.getchannel("A").histogram()[:255])
        if seen_through:
            white = Image.new("RGBA", image.size, "white")
            image = Image.alpha_composite(white, image)
        note = f"{seen_through} of {pixels} pixels are transparent and were put on white"
        return image.convert("RGB"), note if seen_through else ""
    if image.mode in _HIGH_RANGE:
        rgb = image.convert("RGB")
        changed = int((np.asarray(rgb.getchannel(0)) != np.asarray(image)).sum())
        note = (
            f"{changed} of {pixels} pixels of a grey image of more than 8 bits do not fit 0..255"
            " and were cut to it, as transformers does; scale it to 8 bits yourself to keep them apart"
        )
        return rgb, note if changed else ""
    if image.mode == "CMYK":
        return image.convert("RGB"), f"all {pixels} pixels are CMYK and became RGB without a colour profile"
    return image.convert("RGB"), ""
