"""From pairs to the arrays of a batch, all of one static shape.

Shape letters: B pairs, P padded prompt length, N padded patches per row, R padded answer length,
M differences.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from dig_jax.data.buckets import Bucket
from dig_jax.data.images import ImageConfig, patch_grid, preprocess
from dig_jax.data.noise import Answer
from dig_jax.data.prompts import answer_ids, box_tokens, prompt_ids
from dig_jax.data.records import Pair
from dig_jax.data.tokenizer import Tokenizer
from dig_jax.models.architecture import Architecture
from dig_jax.models.inputs import Prompts, make_prompts

# A cell counts as changed from this share of its area inside a box. Below it, it mostly shows background.
_CELL_OVERLAP = 0.25


@dataclasses.dataclass(frozen=True)
class Batch:
    """Pairs as the model takes them, with their labels. NumPy arrays, one row per pair.

    Attributes:
      prompts: tokens [B, P], patches [B, N, ...] and positions of the question about both images.
      boxes: float32 [B, max_boxes, 4], true boxes in 0..1, zeros after the last.
      num_boxes: int32 [B].
      answers: int32 [B, R], the answer to learn with its end-of-turn token, then padding.
      answer_mask: float32 [B, R], 1 on the answer and its end-of-turn token, 0 on coordinates of false boxes.
      cell_targets: float32 [B, P], 1 at the prompt slots whose token shows a changed part of the last image.
      cell_mask: float32 [B, P], 1 at the prompt slots of the last image.
      pairs: the pairs themselves, as shown (after augmentation).
      rows: int [B], ascending: which rows of the batch of all processes these are.
    """

    prompts: Prompts
    boxes: np.ndarray
    num_boxes: np.ndarray
    answers: np.ndarray
    answer_mask: np.ndarray
    cell_targets: np.ndarray
    cell_mask: np.ndarray
    pairs: tuple[Pair, ...]
    rows: np.ndarray

    @property
    def ids(self) -> list[str]:
        """The name of each row's pair."""
        return [pair.id for pair in self.pairs]


class PairEncoder:
    """Turns pairs into batches of the shapes asked for.

    Args:
      tokenizer: the model's.
      image_config: the model's image preprocessing.
      config: the model's configuration (token ids and grids for the positions).
      question: the text after the two images.
      max_boxes: the most differences a pair may have.
      answer_step: coordinates of answers are rounded to multiples of this.
      max_answer_length: R. 0 when no answers are needed: the arrays are then [B, 0].
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        image_config: ImageConfig,
        config: Architecture,
        *,
        question: str,
        max_boxes: int,
        answer_step: int,
        max_answer_length: int,
    ):
        self._tokenizer = tokenizer
        self.image_config = image_config
        self._config = config
        self._question = question
        self._max_boxes = max_boxes
        self._answer_step = answer_step
        self._max_answer_length = max_answer_length
        self._prompts: dict[tuple[tuple[int, int], ...], np.ndarray] = {}

    def need(self, size: tuple[int, int]) -> Bucket:
        """What a pair of images of (height, width) `size` pixels needs, exactly.

        Raises:
          ValueError: no model takes images of this shape.
        """
        grid = patch_grid(*size, self.image_config)
        return Bucket(len(self._prompt((grid, grid))), 2 * grid[0] * grid[1])

    def need_of_pixels(self, pixels: int) -> Bucket:
        """The most that a pair of images of up to `pixels` pixels each, after resizing, can need."""
        merge_size = self.image_config.merge_size
        smallest = (merge_size, merge_size)  # patches of one token
        text = len(self._prompt((smallest, smallest))) - 2
        tokens = 2 * (pixels // self.image_config.factor**2)
        return Bucket(text + tokens, tokens * merge_size**2)

    def __call__(
        self, pairs: Sequence[Pair], bucket: Bucket, answers: Sequence[Answer] | None = None
    ) -> Batch:
        """Encodes pairs, padded to the P and N of `bucket`.

        Args:
          pairs: B pairs.
          bucket: P and N.
          answers: what the answers to learn name, one per pair; None for the true boxes.

        Raises:
          ValueError: naming the pair, when it does not fit into P, N, R or max_boxes.
        """
        prompts, all_images = [], []
        boxes = np.zeros((len(pairs), self._max_boxes, 4), np.float32)
        answer_tokens = np.full((len(pairs), self._max_answer_length), self._tokenizer.pad_id, np.int32)
        answer_mask = np.zeros(answer_tokens.shape, np.float32)
        cell_targets = np.zeros((len(pairs), bucket.prompt_length), np.float32)
        cell_mask = np.zeros_like(cell_targets)
        for row, pair in enumerate(pairs):
            images = [preprocess(image, self.image_config) for image in (pair.image_a, pair.image_b)]
            prompt = self._prompt(tuple(grid for _, grid in images))
            self._check(pair, Bucket(len(prompt), sum(len(patches) for patches, _ in images)), bucket)
            prompts.append(prompt)
            all_images.append(images)
            boxes[row, : len(pair.boxes)] = pair.boxes
            if self._max_answer_length:
                answer = self._answer(pair, pair.boxes if answers is None else answers[row].boxes)
                answer_tokens[row, : len(answer)] = answer
                answer_mask[row, : len(answer)] = 1
                if answers is not None:
                    for box in answers[row].boxes[~answers[row].true]:
                        tokens = box_tokens(self._tokenizer, answer, box, self._answer_step)
                        answer_mask[row, tokens] = 0
            targets = changed_cells(pair.boxes, images[-1][1], self.image_config.merge_size).ravel()
            slots = np.flatnonzero(prompt == self._tokenizer.image_token_id)[-len(targets) :]
            cell_targets[row, slots] = targets
            cell_mask[row, slots] = 1
        return Batch(
            prompts=make_prompts(
                prompts,
                all_images,
                self._config,
                prompt_length=bucket.prompt_length,
                num_patches=bucket.num_patches,
            ),
            boxes=boxes,
            num_boxes=np.array([len(pair.boxes) for pair in pairs], np.int32),
            answers=answer_tokens,
            answer_mask=answer_mask,
            cell_targets=cell_targets,
            cell_mask=cell_mask,
            pairs=tuple(pairs),
            rows=np.arange(len(pairs)),
        )

    def _prompt(self, grids: tuple[tuple[int, int], ...]) -> np.ndarray:
        if grids not in self._prompts:  # pairs of the same size share their prompt
            merge_size = self.image_config.merge_size
            self._prompts[grids] = prompt_ids(self._tokenizer, self._question, grids, merge_size)
        return self._prompts[grids]

    def _answer(self, pair: Pair, boxes: np.ndarray) -> list[int]:
        answer = answer_ids(self._tokenizer, boxes, self._answer_step)
        if len(answer) > self._max_answer_length:
            raise ValueError(
                f"{pair.id}: the answer takes {len(answer)} tokens, but max_answer_length is "
                f"{self._max_answer_length}; allow longer answers, or round to a coarser answer_step."
            )
        return answer

    def _check(self, pair: Pair, need: Bucket, bucket: Bucket) -> None:
        if not bucket.holds(need):
            height, width = pair.size
            raise ValueError(
                f"{pair.id}: two images of {width}x{height} pixels need {need}, more than the {bucket} that"
                " the image sizes of its dataset promised: the dataset's declared image shape is wrong."
            )
        if len(pair.boxes) > self._max_boxes:
            raise ValueError(f"{pair.id}: has {len(pair.boxes)} differences, max_boxes is {self._max_boxes}.")


def changed_cells(boxes: np.ndarray, grid: tuple[int, int], merge_size: int) -> np.ndarray:
    """Which merged tokens of an image show a change.

    A cell (the square of one merged token) counts when a box covers a quarter of it or has its center in it,
    so that a box smaller than a cell is not lost.

    Args:
      boxes: float [M, 4] in 0..1.
      grid: (h, w) in patches.

    Returns:
      bool [h / merge_size, w / merge_size].
    """
    rows, columns = grid[0] // merge_size, grid[1] // merge_size
    scaled = boxes * np.array([columns, rows, columns, rows], np.float32)  # in cells, so a cell has area 1
    top, left = np.arange(rows), np.arange(columns)
    x0, y0, x1, y1 = scaled.T[..., None]  # each [M, 1]
    overlap_y = np.clip(np.minimum(y1, top + 1) - np.maximum(y0, top), 0, None)  # [M, rows]
    overlap_x = np.clip(np.minimum(x1, left + 1) - np.maximum(x0, left), 0, None)  # [M, columns]
    center_y = np.floor((y0 + y1) / 2) == top
    center_x = np.floor((x0 + x1) / 2) == left
    covered = overlap_y[:, :, None] * overlap_x[:, None, :] >= _CELL_OVERLAP
    return (covered | (center_y[:, :, None] & center_x[:, None, :])).any(axis=0)
