"""A picture of one answer: images side by side, true boxes in green, predicted boxes in red."""

import textwrap
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

TRUE_COLOR = (34, 197, 94)
PREDICTED_COLOR = (239, 68, 68)
_BACKGROUND = (24, 24, 27)
_TEXT_COLOR = (228, 228, 231)
_OUTLINE = (0, 0, 0)

_IMAGE_SIZE = 384  # pixels of the longer side of each image in the picture
_MARGIN = 12
_FONT_SIZE = 15
_LINE_HEIGHT = 21
_MAX_CAPTION_LINES = 8
_LINE_WIDTH = 2


def draw_boxes(
    images: Sequence[np.ndarray],
    true_boxes: np.ndarray,
    predicted_boxes: np.ndarray,
    caption: Sequence[str],
) -> Image.Image:
    """Draws the boxes on every image, above a legend and a caption.

    Args:
      images: uint8 [H, W, 3] each; small images are enlarged, large ones reduced.
      true_boxes: [M, 4], `x0, y0, x1, y1` normalised to 0..1.
      predicted_boxes: [N, 4], the same.
      caption: paragraphs under the images; long ones are wrapped, and the whole cut after a few lines.

    Returns:
      An RGB picture, about 800 pixels wide for two images.
    """
    panels = [_panel(image, true_boxes, predicted_boxes) for image in images]
    font = ImageFont.load_default(_FONT_SIZE)
    width = sum(panel.width for panel in panels) + (len(panels) + 1) * _MARGIN
    lines = _wrap(caption, int((width - 2 * _MARGIN) / font.getlength("0")))
    panels_end = _MARGIN + max(panel.height for panel in panels)
    height = panels_end + _MARGIN + (1 + len(lines)) * _LINE_HEIGHT + _MARGIN

    picture = Image.new("RGB", (width, height), _BACKGROUND)
    draw = ImageDraw.Draw(picture)
    left = _MARGIN
    for panel in panels:
        picture.paste(panel, (left, _MARGIN))
        left += panel.width + _MARGIN
    top = panels_end + _MARGIN
    x = _MARGIN
    counts = (
        (TRUE_COLOR, f"true ({len(true_boxes)})"),
        (PREDICTED_COLOR, f"predicted ({len(predicted_boxes)})"),
    )
    for color, label in counts:
        draw.rectangle((x, top + 3, x + 12, top + 15), outline=color, width=_LINE_WIDTH)
        draw.text((x + 20, top), label, fill=_TEXT_COLOR, font=font)
        x += int(font.getlength(label)) + 48
    for number, line in enumerate(lines, start=1):
        draw.text((_MARGIN, top + number * _LINE_HEIGHT), line, fill=_TEXT_COLOR, font=font)
    return picture


def _panel(image: np.ndarray, true_boxes: np.ndarray, predicted_boxes: np.ndarray) -> Image.Image:
    """One image at display size; true boxes are drawn around their pixels, predicted ones just inside."""
    height, width = image.shape[:2]
    scale = _IMAGE_SIZE / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    panel = Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(panel)
    for box in true_boxes:
        _rectangle(draw, box, size, TRUE_COLOR, inset=-_LINE_WIDTH)
    for box in predicted_boxes:
        _rectangle(draw, box, size, PREDICTED_COLOR, inset=0)
    return panel


def _rectangle(
    draw: ImageDraw.ImageDraw, box: np.ndarray, size: tuple[int, int], color: tuple[int, int, int], inset: int
) -> None:
    width, height = size
    x0, x1 = _span(box[0] * width, box[2] * width, inset)
    y0, y1 = _span(box[1] * height, box[3] * height, inset)
    draw.rectangle((x0 - 1, y0 - 1, x1 + 1, y1 + 1), outline=_OUTLINE, width=_LINE_WIDTH + 2)
    draw.rectangle((x0, y0, x1, y1), outline=color, width=_LINE_WIDTH)


def _span(start: float, end: float, inset: int) -> tuple[int, int]:
    """Rounds an edge pair to pixels, moved inwards by `inset` while at least one pixel stays."""
    low, high = round(float(start)) + inset, round(float(end)) - 1 - inset
    middle = round(float(start + end) / 2)
    return (low, high) if low < high else (middle, middle + 1)


def _wrap(paragraphs: Sequence[str], columns: int) -> list[str]:
    """Lines of at most `columns` characters; newlines and control characters of model text become spaces."""
    lines: list[str] = []
    for paragraph in paragraphs:
        # Enough for every line there is room for; a megabyte of model text is not worth wrapping.
        start = paragraph[: columns * _MAX_CAPTION_LINES]
        printable = "".join(letter if letter.isprintable() else " " for letter in start)
        lines += textwrap.wrap(printable, columns) or [""]
    if len(lines) > _MAX_CAPTION_LINES:
        lines = [*lines[: _MAX_CAPTION_LINES - 1], lines[_MAX_CAPTION_LINES - 1][: columns - 3] + "..."]
    return lines
