"""Small pairs of pictures in a folder, and files that describe them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

WIDTH, HEIGHT = 40, 20
BOX = [10, 4, 20, 12]  # of the one difference between a.png and b.png, in pixels


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a.png, b.png, which differ inside BOX, and other.png, which has another size."""
    rng = np.random.default_rng(0)
    a = rng.integers(90, 110, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    b = a.copy()
    b[BOX[1] : BOX[3], BOX[0] : BOX[2]] = (200, 30, 30)
    Image.fromarray(a).save(tmp_path / "a.png")
    Image.fromarray(b).save(tmp_path / "b.png")
    Image.fromarray(a[:, :30]).save(tmp_path / "other.png")
    return tmp_path


def line(**changes: Any) -> dict[str, Any]:
    """A line of a file of pairs that is right, with these values instead; `...` leaves a key out."""
    values = {"id": "one", "image_a": "a.png", "image_b": "b.png", "boxes": [BOX]} | changes
    return {key: value for key, value in values.items() if value is not ...}


def write_lines(folder: Path, *lines: Any) -> Path:
    """A file pairs.jsonl of values, or of texts as they are."""
    path = folder / "pairs.jsonl"
    text = "\n".join(item if isinstance(item, str) else json.dumps(item) for item in lines)
    path.write_text(text + "\n", encoding="utf-8")
    return path
