"""Where a model looks when it names an object: maps in the manner of Figs. 5 and 14 of arXiv 2411.09691.

The last layer's attention from the tokens that stand for an object (those of the answer, or of a crop in the
question) to the patches of the picture, summed over heads and those tokens and divided by its sum. A map is
of what the model sees: the square around a picture, where its family pads it to one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from PIL import Image

from dig_jax.data.images import ImageConfig, boxes_as_seen, patch_grid, square_offset
from dig_jax.models.inputs import Prompts
from dig_jax.models.nn.attention_maps import last_layer
from dig_jax.rollout.asking import Desk, Request

Policy = tuple[nnx.GraphDef, nnx.State]

_SIDE = 256  # pixels of a map that is drawn
_HOT = np.array([[20, 20, 60], [120, 30, 120], [230, 80, 50], [255, 220, 90]], np.float64)  # least to most


@dataclasses.dataclass(frozen=True, eq=False)
class Look:
    """Where a model looked.

    Attributes:
      answer: float [h, w], from the tokens of the answer to the picture; its sum is 1.
      crops: the same from the tokens of every further image, in the order of their numbers; zeros of one that
        stands before the picture, which it cannot see.
    """

    answer: np.ndarray
    crops: tuple[np.ndarray, ...]


def look(policy: Policy, desk: Desk, request: Request, answer: Sequence[int]) -> Look:
    """Where a model looks in the first of the images of a question, wherever that stands in it.

    Args:
      policy: structure and weights of the model (`Session.policy`).
      desk: what reads its questions (`Session.desk`).
      request: the question (`Session.request`).
      answer: token ids of the answer, without its end-of-turn token; at least one.

    Raises:
      ValueError: there is no answer, or no picture.
    """
    if not answer or not request.order:
        raise ValueError(
            f"{len(answer)} tokens of an answer and {len(request.order)} pictures: expected some"
        )
    weights = _weights(*policy, desk.prompts([request]), jnp.asarray([list(answer)]))
    runs = _runs(np.isin(request.ids, list(desk.architecture.placeholders)))
    merge = desk.image_config.merge_size
    height, width = patch_grid(*request.shown[min(request.order)].size, desk.image_config)
    grid = height // merge, width // merge
    found = np.asarray(weights, np.float64)[0]
    return _look(found, dict(zip(request.order, runs, strict=True)), len(answer), grid)


def _look(found: np.ndarray, runs: Mapping[int, slice], length: int, grid: tuple[int, int]) -> Look:
    """The maps of an answer of `length` tokens.

    Args:
      found: [tokens, tokens of the prompt], who looks where; the answer is last.
      runs: number of an image -> its tokens.
      grid: rows and columns of the tokens of the image of the lowest number.
    """
    picture, *crops = sorted(runs)
    sources = [slice(len(found) - length, None), *(runs[crop] for crop in crops)]
    answered, *others = (
        _shares(found[source, runs[picture]].sum(axis=0)).reshape(grid) for source in sources
    )
    return Look(answered, tuple(others))


@jax.jit
def _weights(graphdef: nnx.GraphDef, params: nnx.State, prompts: Prompts, answers: jax.Array) -> jax.Array:
    return last_layer(nnx.merge(graphdef, params), prompts, answers)


def inside(heat: np.ndarray, box: np.ndarray) -> float:
    """The share of a map [h, w] that lies in a box, x0, y0, x1, y1 in 0..1 of what the model sees.

    A patch that lies in it in part counts in part: of an even map it is the area of the box.
    """
    rows, columns = (
        np.clip(np.minimum(np.arange(1, n + 1), high * n) - np.maximum(np.arange(n), low * n), 0, 1)
        for n, low, high in ((heat.shape[0], box[1], box[3]), (heat.shape[1], box[0], box[2]))
    )
    return float(rows @ heat @ columns)


def box_as_seen(box: Sequence[float], size: tuple[int, int], config: ImageConfig) -> np.ndarray:
    """A box of a picture (height, width) as a box of what the model sees, float [4]."""
    return boxes_as_seen(np.asarray([box], np.float64), size, config)[0]


def overlay(image: np.ndarray, heat: np.ndarray, config: ImageConfig) -> Image.Image:
    """The picture uint8 [H, W, 3] as the model sees it, under a map [h, w]: dark where it does not look."""
    shown = Image.fromarray(image)
    if config.square:
        left, top, side = square_offset((image.shape[0], image.shape[1]))
        shown = Image.new("RGB", (side, side), config.background)
        shown.paste(Image.fromarray(image), (left, top))
    scale = _SIDE / max(shown.size)
    size = max(1, round(shown.width * scale)), max(1, round(shown.height * scale))
    strength = Image.fromarray((heat / max(heat.max(), 1e-12)).astype(np.float32)).resize(
        size, Image.Resampling.BICUBIC
    )
    values = np.clip(np.asarray(strength, np.float64), 0, 1)
    steps = np.linspace(0, 1, len(_HOT))
    colors = np.stack([np.interp(values, steps, _HOT[:, channel]) for channel in range(3)], axis=-1)
    under = np.asarray(shown.resize(size, Image.Resampling.BICUBIC), np.float64)
    return Image.fromarray(np.rint(0.45 * under + 0.55 * colors).astype(np.uint8))


def _runs(is_image: np.ndarray) -> list[slice]:
    """Where the tokens of every picture stand among those of the prompt; pictures never touch."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], is_image.astype(int), [0]])))
    return [slice(int(first), int(end)) for first, end in edges.reshape(-1, 2)]


def _shares(values: np.ndarray) -> np.ndarray:
    return values / max(values.sum(), 1e-30)
