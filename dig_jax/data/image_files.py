"""Sizes of pictures that are files of their own, read from as little of each as tells them."""

from __future__ import annotations

from etils import epath

from dig_jax.data import images
from dig_jax.data.example import Size

_HEAD = 1 << 17  # bytes: more than any one segment of a JPEG file, that with its orientation among them
_JPEG = b"\xff\xd8"


class ImageSizes:
    """Sizes of files, each read once; None for one that cannot be read, for whose reader the reason is."""

    def __init__(self) -> None:
        self._known: dict[epath.Path, Size | None] = {}

    def __getitem__(self, path: epath.Path) -> Size | None:
        if path not in self._known:
            try:
                self._known[path] = size_of(path)
            except Exception:  # damaged bytes can make a reader raise anything
                self._known[path] = None
        return self._known[path]


def size_of(path: epath.Path) -> Size:
    """(height, width) of an image file; raises as `images.image_size`.

    Of a JPEG file the first 128 KiB are read: hundreds of thousands of photographs are no small reading.
    Other formats may say at their end how they are turned.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD)
        if head.startswith(_JPEG):
            try:
                return images.image_size(head, str(path))
            except ValueError:
                pass  # its header is longer, or it is damaged
        return images.image_size(head + file.read(), str(path))
