"""Boxes drawn over pictures as SVG: each picture is on the page once, however often it is shown."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence

import numpy as np
from etils import epath

from dig_jax.report.thumbnails import thumbnail, thumbnail_name

Box = Sequence[float]  # x0, y0, x1, y1, shares of width and height


class Pictures:
    """The thumbnails that a page shows.

    Args:
      folder: that has them; None where images are given one by one.
    """

    def __init__(self, folder: epath.Path | None = None):
        self._folder = folder
        self._sizes: dict[str, tuple[int, int] | None] = {}
        self._kept: list[str] = []

    def with_boxes(self, names: Sequence[str], true: Sequence[Box], predicted: Sequence[Box]) -> str:
        """Pictures side by side, each with all boxes; "" where one of them is gone."""
        sizes = [self._size(name) for name in names]
        drawn = [
            _picture(name, size, true, predicted)
            for name, size in zip(names, sizes, strict=True)
            if size is not None
        ]
        return f'<div class="pictures">{"".join(drawn)}</div>' if len(drawn) == len(names) > 0 else ""

    def add(self, image: np.ndarray) -> str:
        """Takes an image, uint8 [H, W, 3], in small, and gives its name."""
        name = thumbnail_name(image)
        if name not in self._sizes:
            data, size = thumbnail(image)
            self._put(name, data, size)
            self._sizes[name] = size
        return name

    def store(self) -> str:
        """The pictures themselves, to stand anywhere on the page."""
        kept = "".join(self._kept)
        return f'<svg class="store" width="0" height="0" aria-hidden="true">{kept}</svg>' if kept else ""

    def _size(self, name: str) -> tuple[int, int] | None:
        if name not in self._sizes:
            self._sizes[name] = self._keep(name)
        return self._sizes[name]

    def _keep(self, name: str) -> tuple[int, int] | None:
        from PIL import Image

        if self._folder is None or not (self._folder / name).exists():
            return None
        data = (self._folder / name).read_bytes()
        size = Image.open(io.BytesIO(data)).size
        self._put(name, data, size)
        return size

    def _put(self, name: str, data: bytes, size: tuple[int, int]) -> None:
        encoded = base64.b64encode(data).decode()
        self._kept.append(
            f'<image id="{_id(name)}" width="{size[0]}" height="{size[1]}"'
            f' href="data:image/webp;base64,{encoded}"/>'
        )


def _id(name: str) -> str:
    return f"picture-{html.escape(name.partition('.')[0])}"


def _picture(name: str, size: tuple[int, int], true: Sequence[Box], predicted: Sequence[Box]) -> str:
    width, height = size
    rectangles = "".join(_rectangle(box, size, "true") for box in true)
    rectangles += "".join(_rectangle(box, size, "predicted") for box in predicted)
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{len(true)} true boxes in green,'
        f' {len(predicted)} predicted boxes in red"><use href="#{_id(name)}"/>{rectangles}</svg>'
    )


def _rectangle(box: Box, size: tuple[int, int], kind: str) -> str:
    x0, y0, x1, y1 = (share * side for share, side in zip(box, (*size, *size), strict=True))
    place = f'x="{x0:.1f}" y="{y0:.1f}" width="{max(0, x1 - x0):.1f}" height="{max(0, y1 - y0):.1f}"'
    return f'<rect class="edge" {place}/><rect class="{kind}" {place}/>'
