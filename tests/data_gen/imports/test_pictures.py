"""Picture files: the trainer would see the same pixels, and what cannot be used says why."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from data_gen.imports.pictures import BadPicture, decode, read_bytes
from dig_jax.data import images

RNG = np.random.default_rng(1)
RGB = Image.fromarray(RNG.integers(0, 256, (6, 10, 3), dtype=np.uint8))
RGBA = Image.fromarray(RNG.integers(0, 256, (6, 10, 4), dtype=np.uint8))
DEEP = Image.fromarray(RNG.integers(0, 1 << 16, (6, 10), dtype=np.uint16))


def stored(image, form, **options):
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def exif(orientation):
    data = Image.Exif()
    data[0x0112] = orientation
    return data


PALETTE = RGB.convert("P")
KINDS = {
    "png": stored(RGB, "PNG"),
    "jpeg": stored(RGB, "JPEG"),
    "webp": stored(RGB, "WEBP"),
    "webp alpha": stored(RGBA, "WEBP", lossless=True),
    "tiff": stored(RGB, "TIFF"),
    "tiff turned": stored(RGB, "TIFF", exif=exif(6)),
    "bmp": stored(RGB, "BMP"),
    "grey": stored(RGB.convert("L"), "PNG"),
    "bilevel": stored(RGB.convert("1"), "PNG"),
    "palette": stored(PALETTE, "PNG"),
    "palette with a clear colour": stored(PALETTE, "PNG", transparency=3),
    "alpha": stored(RGBA, "PNG"),
    "grey alpha": stored(RGBA.convert("LA"), "PNG"),
    "clear colour": stored(RGB, "PNG", transparency=RGB.getpixel((0, 0))),
    "16 bits": stored(DEEP, "PNG"),
    "16 bits tiff": stored(DEEP, "TIFF"),
    "cmyk": stored(RGB.convert("CMYK"), "JPEG"),
    "gif": stored(RGB, "GIF", save_all=True, append_images=[RGB.rotate(180)]),
    "profile": stored(
        RGB, "PNG", icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    ),
    **{f"turned {number}": stored(RGB, "JPEG", exif=exif(number)) for number in range(0, 10)},
    **{f"png turned {number}": stored(RGB, "PNG", exif=exif(number)) for number in (3, 6)},
    "webp turned": stored(RGB, "WEBP", exif=exif(8)),
    "broken exif": stored(RGB, "JPEG", exif=b"Exif\0\0nonsense"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_pixels_are_those_that_the_trainer_would_show_to_a_model(kind):
    picture = decode(KINDS[kind], Path(kind))
    np.testing.assert_array_equal(picture.pixels, images.decode_image(KINDS[kind], kind))
    assert picture.pixels.dtype == np.uint8 and picture.size == picture.pixels.shape[1::-1]


def test_what_was_done_to_a_picture_is_told():
    notes = {kind: " ".join(decode(KINDS[kind], Path(kind)).notes) for kind in KINDS}
    assert notes["png"] == notes["profile"] == notes["palette"] == notes["turned 1"] == ""
    assert "turned upright" in notes["turned 6"] and "put on white" in notes["alpha"]
    assert "cut to whole numbers" in notes["16 bits"] and "CMYK" in notes["cmyk"]
    assert "first was taken" in notes["gif"]


BAD = {
    "an empty file": b"",
    "not a PNG, JPEG, WEBP, TIFF, BMP or GIF file": b"%!PS-Adobe-3.0 EPSF-3.0\n",
    "is a Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
    "the picture is damaged": KINDS["png"][:-40],
    "the picture is damaged \\(": KINDS["jpeg"][:-40],
    "30000x2 pixels are too many": stored(Image.new("1", (30000, 2)), "PNG"),
    "10000x10000 pixels are too many": stored(Image.new("1", (10000, 10000)), "PNG"),
    "300x1 pixels; the sides must be within 200:1": stored(Image.new("RGB", (300, 1)), "PNG"),
}


@pytest.mark.parametrize("message", BAD)
def test_a_file_that_cannot_be_used_says_why(message):
    with pytest.raises(BadPicture, match=f"some.png.*{message}"):
        decode(BAD[message], Path("some.png"))


def test_a_path_that_is_no_file_says_why(tmp_path):
    for name, message in {
        "gone.png": "no such file$",
        "": "is not a file",
        "/dev/zero": "is not a file",
        "a\\b.png": "a path is written with /",
        "https://example.org/a.png": "https://example.org/a.png: no such file.*not from an address",
        "x" * 300: "File name too long",
    }.items():
        with pytest.raises(BadPicture, match=message):
            read_bytes(tmp_path / name)
