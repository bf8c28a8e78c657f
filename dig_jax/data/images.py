"""Image preprocessing: pixels in, flat patches out, with PIL and NumPy only.

Equal to transformers' ``Qwen2VLImageProcessorPil`` (same resampling, same rounding of the normalised
values), so a model trained here sees what it will see there; for models that see squares, to
``LlavaImageProcessorPil``. Shapes: H, W pixels; h, w the patch grid; C channels; T temporal patch size;
p patch size; m merge size.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import logging
import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from etils import epath
from PIL import Image

from dig_jax.data import rgb
from dig_jax.machines import textfile
from dig_jax.machines.folder import to_path

# A larger image is refused before its pixels are allocated: a PNG of a few kilobytes can claim gigapixels.
# It is where PIL, and so transformers, gives up too. Photos of 24 to 150 million pixels are read and shrunk
# to what the model looks at; the largest takes 0.7 GB meanwhile (PIL keeps 4 bytes per pixel).
MAX_IMAGE_PIXELS = 178_956_970

logger = logging.getLogger("dig_jax")

_PREPROCESSOR = "preprocessor_config.json"  # what hub repositories hold
_PROCESSOR = "processor_config.json"  # what transformers 5 saves: the same settings under "image_processor"


@dataclasses.dataclass(frozen=True)
class ImageConfig:
    """How an image becomes patches.

    Attributes:
      patch_size: side of a patch, in pixels.
      merge_size: patches per side of the square that the model merges into one token.
      temporal_patch_size: frames per patch; a still image is repeated this many times.
      min_pixels: images are enlarged to at least this many pixels.
      max_pixels: images are shrunk to at most this many pixels.
      mean: per-channel mean, subtracted after rescaling pixels to 0..1.
      std: per-channel standard deviation, divided by after that.
      square: images are centred on a square of the mean colour, which is resized to `max_pixels` (and
        `min_pixels`, the same); values stay in 0..1, for towers that normalise each in their own way.
    """

    patch_size: int
    merge_size: int
    temporal_patch_size: int
    min_pixels: int
    max_pixels: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    square: bool = False

    def __post_init__(self) -> None:
        for name in ("patch_size", "merge_size", "temporal_patch_size", "min_pixels"):
            if getattr(self, name) < 1:
                raise ValueError(f"ImageConfig.{name} must be at least 1, got {getattr(self, name)}.")
        for name in ("patch_size", "merge_size", "temporal_patch_size", "min_pixels"):
            if getattr(self, name) > MAX_IMAGE_PIXELS:  # no image is enlarged beyond what is read
                raise ValueError(
                    f"ImageConfig.{name} must be at most {MAX_IMAGE_PIXELS}, got {getattr(self, name)}."
                )
        if self.max_pixels < self.min_pixels:
            raise ValueError(
                f"ImageConfig.max_pixels ({self.max_pixels}) is below min_pixels ({self.min_pixels})."
            )
        for name in ("mean", "std"):
            if len(getattr(self, name)) != 3:
                raise ValueError(
                    f"ImageConfig.{name} needs one value per RGB channel, got {getattr(self, name)}."
                )
        if min(self.std) <= 0:
            raise ValueError(f"ImageConfig.std must be above 0, got {self.std}.")
        side = math.isqrt(self.max_pixels)
        if self.square and (self.min_pixels, side**2, side % self.factor) != (self.max_pixels, side**2, 0):
            raise ValueError(
                f"images are squares of one size: min_pixels ({self.min_pixels}) and max_pixels"
                f" ({self.max_pixels}) must both be its area, the side a multiple of {self.factor}."
            )

    @property
    def factor(self) -> int:
        """Both image sides are made multiples of this many pixels (the side of one merged token)."""
        return self.patch_size * self.merge_size

    @property
    def patch_dim(self) -> int:
        """Length of a flat patch: C * T * p * p."""
        return 3 * self.temporal_patch_size * self.patch_size**2

    @property
    def background(self) -> tuple[int, ...]:
        """The colour around an image on its square, R, G, B, 0 to 255."""
        return tuple(int(value * 255) for value in self.mean)

    @classmethod
    def from_folder(cls, folder: epath.PathLike) -> ImageConfig:
        """Reads the settings of a Hugging Face model folder.

        Raises:
          FileNotFoundError: the folder has neither preprocessor_config.json nor processor_config.json.
          ValueError: a setting is missing, or asks for something this module does not do.
        """
        folder = epath.Path(folder)
        for path, read in (
            (folder / _PREPROCESSOR, lambda config: config),
            (
                folder / _PROCESSOR,
                lambda config: textfile.field(config, "image_processor", dict, folder / _PROCESSOR) or {},
            ),
        ):
            if path.exists():
                return _from_json(read(textfile.read_json(path)), path)
        raise FileNotFoundError(
            f"{folder} has no {_PREPROCESSOR} and no {_PROCESSOR}; "
            "a Hugging Face folder of a vision model has one of them."
        )

    def save(self, folder: epath.PathLike, processor: str) -> None:
        """Writes preprocessor_config.json, readable by transformers and by `from_folder`.

        Args:
          folder: of the model.
          processor: name in transformers of what loads the folder (`models.api.Family`).
        """
        config = {
            "image_processor_type": "Qwen2VLImageProcessor",
            "processor_class": processor,
            "do_convert_rgb": True,
            "do_resize": True,
            "resample": int(Image.Resampling.BICUBIC),
            "size": {"shortest_edge": self.min_pixels, "longest_edge": self.max_pixels},
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": list(self.mean),
            "image_std": list(self.std),
            "patch_size": self.patch_size,
            "temporal_patch_size": self.temporal_patch_size,
            "merge_size": self.merge_size,
        }
        if self.square:
            side = math.isqrt(self.max_pixels)
            config |= {
                "image_processor_type": "LlavaImageProcessor",
                "do_pad": True,
                "size": {"shortest_edge": side},
                "do_center_crop": True,
                "crop_size": {"height": side, "width": side},
                "do_normalize": False,
            }
        (epath.Path(folder) / _PREPROCESSOR).write_text(json.dumps(config, indent=2) + "\n")


def _from_json(config: dict[str, Any], path: epath.Path) -> ImageConfig:
    square = config.get("do_pad") is True
    fixed = {
        "do_resize": True,
        "do_rescale": True,
        "do_normalize": not square,
        "resample": int(Image.Resampling.BICUBIC),
        "rescale_factor": 1 / 255,
    }
    for key, expected in fixed.items():
        value = config.get(key, expected)  # absent means transformers' default, which is `expected`
        if not textfile.is_a(value, type(expected)) or not math.isclose(value, expected):
            raise ValueError(f"{path}: {key} is {value}; only {expected} is supported.")
    size = textfile.field(config, "size", dict, path) or {}
    shortest, longest = (
        textfile.field(size, f"size.{name}", int, path) for name in ("shortest_edge", "longest_edge")
    )
    if square:
        shortest = longest = shortest and shortest**2
    # The flat names are older, and transformers lets them win over `size`.
    least, most = (textfile.field(config, key, int, path) for key in ("min_pixels", "max_pixels"))
    sizes = ("patch_size", "merge_size", "temporal_patch_size")
    values: dict[str, Any] = {
        **{key: textfile.field(config, key, int, path) for key in sizes},
        "min_pixels": shortest if least is None else least,
        "max_pixels": longest if most is None else most,
        "mean": textfile.field(config, "image_mean", list, path),
        "std": textfile.field(config, "image_std", list, path),
    }
    if missing := [key for key, value in values.items() if value is None]:
        raise ValueError(
            f"{path}: no value for {', '.join(missing)}; expected a Qwen2-VL style image processor."
        )
    values["mean"], values["std"] = tuple(values["mean"]), tuple(values["std"])
    try:
        return ImageConfig(**values, square=square)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def smart_resize(height: int, width: int, config: ImageConfig) -> tuple[int, int]:
    """The size an image is resampled to: multiples of `factor`, area within limits, aspect ratio about kept.

    Args:
      height, width: the image, in pixels.
      config: gives factor, min_pixels and max_pixels.

    Returns:
      (height, width) in pixels.

    Raises:
      ValueError: an empty image, or one side more than 200 times the other (as in transformers).
    """
    if min(height, width) < 1 or max(height, width) > 200 * min(height, width):
        raise ValueError(
            f"cannot use an image of {width}x{height} pixels: sides must be within 200:1 and not empty."
        )
    if config.square:
        side = math.isqrt(config.max_pixels)
        return side, side
    factor = config.factor
    # Python's round (half to even) is part of the definition.
    new_height, new_width = round(height / factor) * factor, round(width / factor) * factor
    if new_height * new_width > config.max_pixels:
        shrink = math.sqrt(height * width / config.max_pixels)
        new_height = max(factor, math.floor(height / shrink / factor) * factor)
        new_width = max(factor, math.floor(width / shrink / factor) * factor)
    elif new_height * new_width < config.min_pixels:
        grow = math.sqrt(config.min_pixels / (height * width))
        new_height = math.ceil(height * grow / factor) * factor
        new_width = math.ceil(width * grow / factor) * factor
    return new_height, new_width


def patch_grid(height: int, width: int, config: ImageConfig) -> tuple[int, int]:
    """The (h, w) patch grid that `preprocess` gives an image of this size in pixels."""
    new_height, new_width = smart_resize(height, width, config)
    return new_height // config.patch_size, new_width // config.patch_size


def preprocess(image: np.ndarray, config: ImageConfig) -> tuple[np.ndarray, tuple[int, int]]:
    """Resizes, normalises and cuts an image into flat patches.

    Args:
      image: uint8 [H, W, 3].
      config: the model's settings.

    Returns:
      patches: float32 [h*w, C*T*p*p], in merge-block order: the m*m patches of a merged token are adjacent.
      grid: (h, w).

    Raises:
      ValueError: the image is not uint8 [H, W, 3] or has a shape no model accepts.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"expected a uint8 image [H, W, 3], got {image.dtype} {image.shape}.")
    height, width = smart_resize(image.shape[0], image.shape[1], config)
    if config.square:
        image = _on_square(image, config.background)
    if (height, width) != image.shape[:2]:
        image = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))

    p, m = config.patch_size, config.merge_size
    h, w = height // p, width // p
    blocks = image.reshape(h // m, m, p, w // m, m, p, 3).transpose(
        0, 3, 1, 4, 6, 2, 5
    )  # [h/m, w/m, m, m, C, p, p]
    # Reorder bytes first, then compute: a fraction of the memory traffic. A float32 division by 255 gives
    # the same values as transformers' float64 product with 1/255 rounded to float32, for all 256 of them.
    values = np.ascontiguousarray(blocks).reshape(h * w, 3, p * p) / np.float32(255)
    if not config.square:
        values -= np.array(config.mean, np.float32)[:, None]
        values /= np.array(config.std, np.float32)[:, None]
    frames = np.broadcast_to(values[:, :, None], (h * w, 3, config.temporal_patch_size, p * p))
    return frames.reshape(h * w, config.patch_dim), (h, w)


def square_offset(size: tuple[int, int]) -> tuple[int, int, int]:
    """Where an image (height, width) lies on its square: pixels from the left and the top, and the side."""
    height, width = size
    side = max(height, width)
    return (side - width) // 2, (side - height) // 2, side


def _on_square(image: np.ndarray, background: tuple[int, ...]) -> np.ndarray:
    left, top, side = square_offset(image.shape[:2])
    canvas = np.full((side, side, 3), background, np.uint8)
    canvas[top : top + image.shape[0], left : left + image.shape[1]] = image
    return canvas


def boxes_as_seen(boxes: np.ndarray, size: tuple[int, int], config: ImageConfig) -> np.ndarray:
    """Boxes [M, 4] in 0..1 of an image (height, width), in 0..1 of what the model sees of it."""
    if not config.square:
        return boxes
    left, top, side = square_offset(size)
    return (boxes * np.array([size[1], size[0]] * 2) + np.array([left, top] * 2)) / side


def decode_image(
    data: bytes,
    name: str,
    *,
    fit: ImageConfig | None = None,
    warn: Callable[[str], None] = logger.warning,
) -> np.ndarray:
    """Decodes an image file to uint8 RGB [H, W, 3], upright and on white as transformers does.

    Args:
      data: the bytes of a PNG, JPEG or other file that PIL reads.
      name: what to call the image in an error.
      fit: shrinks an image that `preprocess` with these settings would shrink, in the same way, so that large
        photos do not stay in memory.
      warn: told, with the name, how many pixels lost something: transparent, more than 8 bits, CMYK.

    Raises:
      ValueError: not an image, damaged, or of more than MAX_IMAGE_PIXELS (known before any pixel is decoded);
        with `fit` also a shape that no model accepts.
    """
    height, width = image_size(data, name)
    size = (height, width) if fit is None else _fitted(height, width, fit, name)
    with _opened(data, name) as opened:
        opened.load()
        image, note = rgb.to_rgb(rgb.upright(opened, data))
        if size != (height, width):
            image = image.resize(size[::-1], Image.Resampling.BICUBIC)
        pixels = np.asarray(image)
    if note:
        warn(f"{name}: {note}")
    return pixels


def image_size(data: bytes, name: str) -> tuple[int, int]:
    """(height, width) in pixels, upright, from the header of an image file; raises as `decode_image`."""
    with _opened(data, name) as image:
        if image.width * image.height > MAX_IMAGE_PIXELS:
            raise _TooLarge(
                f"{name}: {image.width}x{image.height} pixels is more than the limit of {MAX_IMAGE_PIXELS}"
                " pixels; shrink it."
            )
        return rgb.upright_size(image, data)


def _fitted(height: int, width: int, config: ImageConfig, name: str) -> tuple[int, int]:
    """The size to shrink to, as `preprocess` does, if it then leaves the result alone; else the same."""
    try:
        size = smart_resize(height, width, config)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    if config.square:  # the place on the square follows from the sides, which are kept
        return height, width
    smaller = size[0] <= height and size[1] <= width
    return size if smaller and smart_resize(*size, config) == size else (height, width)


class _TooLarge(ValueError):
    """An image of more pixels than are decoded."""


@contextlib.contextmanager
def _opened(data: bytes, name: str) -> Iterator[Image.Image]:
    """The image, not yet decoded; what PIL raises for damaged bytes, here and in the block, names it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # `image_size` has its own limit
            image = Image.open(io.BytesIO(data))
        with image:
            yield image
    except (_TooLarge, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise _TooLarge(f"{name}: too many pixels to decode ({error}); shrink it.") from None
    except Image.UnidentifiedImageError as error:  # its text is about an object in memory
        textfile.refuse_pointer(data, name)
        kind = "an empty file" if not data else "of no known kind"
        raise ValueError(f"{name}: not a readable image ({kind}).") from error
    except Exception as error:  # PIL's readers raise OSError, SyntaxError, ValueError, struct.error, ...
        raise ValueError(f"{name}: not a readable image ({error}).") from error


def read_file(path: epath.PathLike, name: str = "") -> bytes:
    """The bytes of an image file, which errors call `name` if not by its path.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it cannot be read.
    """
    try:
        return to_path(path).read_bytes()
    except FileNotFoundError:
        raise FileNotFoundError(f"{name or path}: no such image file") from None
    except OSError as error:  # a folder, no permission
        raise ValueError(f"{name or path}: cannot be read ({error.strerror})") from error
