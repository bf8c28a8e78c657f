"""Photos and unusual image files are read as transformers reads them, and what they lose is told."""

import io
import tracemalloc

import numpy as np
import pytest
from PIL import Image
from transformers.image_transforms import convert_to_rgb
from transformers.image_utils import load_image as load_upright

from dig_jax.data.images import ImageConfig, decode_image, image_size, preprocess, read_file
from tests.data.test_images import noise, png_header

HIGH, WIDE = 12, 20
Y, X = np.mgrid[0:HIGH, 0:WIDE]
RGB = np.stack([X * 12, Y * 20, (X < 10) * 200], -1).astype(np.uint8)
HALF_SEEN = np.where(X < 10, 0, 255).astype(np.uint8)  # 120 of the 240 pixels are transparent


def file(image: Image.Image, kind: str, **options) -> bytes:
    data = io.BytesIO()
    image.save(data, kind, **options)
    return data.getvalue()


def oriented(kind: str, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return file(Image.fromarray(RGB), kind, exif=exif)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", [1, 2, 3, 4, 5, 6, 7, 8])
def test_a_photo_that_is_stored_turned_is_upright(tmp_path, kind, orientation):
    data = oriented(kind, orientation)
    path = tmp_path / "photo"
    path.write_bytes(data)
    image = decode_image(read_file(path), str(path))
    np.testing.assert_array_equal(image, np.asarray(load_upright(str(path))))
    assert image_size(data, "photo") == image.shape[:2]


def test_damaged_exif_data_do_not_keep_a_whole_picture_from_being_read():
    data = file(Image.fromarray(RGB), "PNG", exif=b"Exif\0\0" + b"\xff" * 40)
    np.testing.assert_array_equal(decode_image(data, "x.png"), RGB)
    assert image_size(data, "x.png") == (HIGH, WIDE)


UNUSUAL = {
    "RGBA": (file(Image.fromarray(np.dstack([RGB, HALF_SEEN])), "PNG"), "120 of 240 pixels are transparent"),
    "LA": (
        file(Image.merge("LA", [Image.fromarray(HALF_SEEN)] * 2), "PNG"),
        "120 of 240 pixels are transparent",
    ),
    "palette": (
        file(Image.fromarray(np.uint8(X < 5)).convert("P"), "PNG", transparency=1),
        "60 of 240 pixels are transparent",
    ),
    "16-bit grey": (file(Image.fromarray((X * 100).astype(np.uint16)), "PNG"), "204 of 240 pixels of a grey"),
    "16-bit grey TIFF": (file(Image.fromarray((X * 100).astype(np.uint16)), "TIFF"), "204 of 240 pixels"),
    "CMYK": (file(Image.fromarray(RGB).convert("CMYK"), "JPEG"), "all 240 pixels are CMYK"),
}


@pytest.mark.parametrize("name", UNUSUAL)
def test_what_a_pixel_loses_on_the_way_to_rgb_is_told_with_file_and_number(name):
    data, loss = UNUSUAL[name]
    told = []
    image = decode_image(data, "odd.png", warn=told.append)
    np.testing.assert_array_equal(image, convert_to_rgb(Image.open(io.BytesIO(data)), return_numpy=True))
    assert len(told) == 1 and told[0].startswith(f"odd.png: {loss}")


WHOLE = {
    "RGB": Image.fromarray(RGB),
    "grey": Image.fromarray(RGB[..., 0]),
    "opaque": Image.fromarray(RGB).convert("RGBA"),
    "opaque grey": Image.fromarray(RGB[..., 0]).convert("LA"),
    "palette": Image.fromarray(RGB).quantize(16),
    "two colours": Image.fromarray(RGB).convert("1"),
    "dark 16-bit grey": Image.fromarray(X.astype(np.uint16)),
}


@pytest.mark.parametrize("name", WHOLE)
def test_nothing_is_told_of_an_image_that_loses_nothing(name):
    told = []
    image = decode_image(file(WHOLE[name], "PNG"), "plain.png", warn=told.append)
    assert image.shape == (HIGH, WIDE, 3) and told == []


SMALL = ImageConfig(16, 2, 2, min_pixels=4096, max_pixels=65_536, mean=(0.5,) * 3, std=(0.5,) * 3)


@pytest.mark.parametrize("size", [(600, 400), (257, 511), (40, 3000), (31, 33), (100, 70), (1, 1)])
def test_an_image_shrunk_on_reading_gives_the_same_patches(size):
    data = file(Image.fromarray(noise(*size)), "PNG")
    small, whole = decode_image(data, "x.png", fit=SMALL), decode_image(data, "x.png")
    assert small.size <= whole.size
    np.testing.assert_array_equal(preprocess(small, SMALL)[0], preprocess(whole, SMALL)[0])


def test_a_photo_of_24_million_pixels_is_read_and_only_what_the_model_sees_is_kept(tmp_path):
    path = tmp_path / "camera.jpg"
    Image.linear_gradient("L").resize((6000, 4000)).convert("RGB").save(path, quality=60)
    assert image_size(path.read_bytes(), "camera") == (4000, 6000)
    tracemalloc.start()  # Python's memory; PIL has one copy of the whole meanwhile
    image = decode_image(read_file(path), str(path), fit=SMALL)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert image.shape == (192, 288, 3)
    assert most < path.stat().st_size + 4 * image.nbytes


@pytest.mark.parametrize("sides", [(14_000, 14_000), (60_000, 60_000), (2**31 - 1, 2**31 - 1)])
def test_a_small_file_that_claims_too_many_pixels_is_refused_before_decoding(sides):
    for read in (decode_image, image_size):
        with pytest.raises(ValueError, match=r"bomb.png: .*pixels.*shrink it"):
            read(png_header(*sides), "bomb.png")


def test_with_the_models_settings_a_shape_it_does_not_take_names_the_file():
    data = file(Image.new("RGB", (201, 1)), "PNG")
    assert decode_image(data, "wide.png").shape == (1, 201, 3)
    with pytest.raises(ValueError, match=r"wide.png: cannot use an image of 201x1"):
        decode_image(data, "wide.png", fit=SMALL)
