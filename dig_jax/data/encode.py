"""From examples to the arrays of a batch, all of one static shape.

Shape letters: B examples, P padded prompt length, N padded patches per row, R padded answer length, E padded
length of earlier answers, M boxes.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence

import numpy as np

from dig_jax.data.buckets import Bucket
from dig_jax.data.example import Demonstration, Example, Object, Shape, Turn
from dig_jax.data.images import ImageConfig, boxes_as_seen, patch_grid, preprocess
from dig_jax.data.prompts import answer_spans, conversation_ids, conversation_lengths, response_ids
from dig_jax.data.tokenizer import Tokenizer
from dig_jax.models.architecture import Architecture
from dig_jax.models.inputs import Prompts, make_prompts

# A cell counts as covered from this share of its area inside a box. Below it, it mostly shows background.
_CELL_OVERLAP = 0.25

# Of `ExampleEncoder.needs`: all tokens, all patches; tokens besides those of images; images shown whole, and
# those shown as objects.
NEED_COLUMNS = ("tokens", "patches", "text", "images", "objects")

_TOGETHER = 1024  # questions read into tokens at once

_MOST_PROMPTS = 1 << 14  # kept, for examples of one question and the same sizes

Grids = tuple[tuple[int, int], ...]  # (h, w) in patches of each image, in the order shown


@dataclasses.dataclass(frozen=True)
class Batch:
    """Examples as the model takes them. NumPy arrays, one row per example.

    Attributes:
      prompts: tokens [B, P], patches [B, N, ...] and positions of the conversations.
      answers: int32 [B, R], the answer to learn with its end-of-turn token, then padding.
      answer_mask: float32 [B, R], 1 on what the loss covers of the answer and its end-of-turn token.
      cell_targets: float32 [B, P], 1 at the prompt slots whose token shows a part of a region asked for.
      cell_mask: float32 [B, P], 1 at the prompt slots of images with regions.
      earlier: int32 [B, E], the prompt slots of the tokens of earlier answers that are learnt, then zeros.
      earlier_mask: float32 [B, E], 1 where there is one.
      examples: the examples themselves, as shown (after augmentation).
      rows: int [B], ascending: which rows of the batch of all processes these are.
      teacher: the same prompts as a teacher sees them, who is shown more; None where there is none.
    """

    prompts: Prompts
    answers: np.ndarray
    answer_mask: np.ndarray
    cell_targets: np.ndarray
    cell_mask: np.ndarray
    earlier: np.ndarray
    earlier_mask: np.ndarray
    examples: tuple[Example, ...]
    rows: np.ndarray
    teacher: Prompts | None = None

    @property
    def ids(self) -> list[str]:
        """The name of each row's example."""
        return [example.id for example in self.examples]


class ExampleEncoder:
    """Turns examples into batches of the shapes asked for.

    Args:
      tokenizer: the model's.
      image_config: the model's image preprocessing.
      config: the model's configuration (token ids and grids for the positions).
      max_answer_length: R. 0 when no answers are needed: the arrays are then [B, 0].
      max_earlier_length: E. 0: of a conversation the last answer alone is learnt.
      cut_answers: whether what is longer than R or E is learnt as far as it goes; else it is an error.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        image_config: ImageConfig,
        config: Architecture,
        *,
        max_answer_length: int,
        max_earlier_length: int = 0,
        cut_answers: bool = False,
    ):
        self._tokenizer = tokenizer
        self.image_config = image_config
        self._config = config
        self._max_answer_length = max_answer_length
        self._max_earlier_length = max_earlier_length if max_answer_length else 0
        self._cut_answers = cut_answers
        self._prompts: dict[tuple[tuple[Turn, ...], Grids], np.ndarray] = {}

    def need(self, shape: Shape) -> Bucket:
        """What an example of this shape needs, exactly. Raises ValueError, see `needs`."""
        tokens, patches, *_ = self.needs([shape])[0].tolist()
        return Bucket(tokens, patches)

    def needs(self, shapes: Sequence[Shape]) -> np.ndarray:
        """What examples of these shapes need, exactly; their questions are read into tokens many at a time.

        Returns:
          int64 [len, NEED_COLUMNS].

        Raises:
          ValueError: no model takes images of a shape, or its question has placeholders of its own.
        """
        rows = []
        for first in range(0, len(shapes), _TOGETHER):
            chunk = shapes[first : first + _TOGETHER]
            grids = [self._grids(shape) for shape in chunk]
            asked = [(shape.messages, grid) for shape, grid in zip(chunk, grids, strict=True)]
            lengths = conversation_lengths(self._tokenizer, asked, self._config.placeholders)
            for shape, own, (tokens, text) in zip(chunk, grids, lengths, strict=True):
                objects = sum(isinstance(part, Object) for part in shape.parts_shown())
                rows.append((tokens, sum(h * w for h, w in own), text, len(own) - objects, objects))
        return np.array(rows, np.int64).reshape(-1, len(NEED_COLUMNS))

    def most(self, needs: np.ndarray, pixels: int) -> Bucket:
        """What holds any of these questions with images of up to `pixels` pixels each, after resizing.

        Args:
          needs: of the questions, see `needs`.
          pixels: of an image.
        """
        text, images, objects = needs[:, 2:].T
        patches = pixels // self.image_config.factor**2 * self.image_config.merge_size**2
        image, object = (patches // side**2 for side in (self._side(False), self._side(True)))
        return Bucket(
            int((text + images * image + objects * object).max()), int((images + objects).max()) * patches
        )

    def fingerprint(self) -> str:
        """A hash of what decides how long prompts are besides the questions: tokenizer and preprocessing."""
        words = sorted(self._config.placeholders.items())
        values = (
            self._tokenizer.fingerprint(),
            self.image_config,
            words,
            self._side(False),
            self._side(True),
        )
        return hashlib.sha256(repr(values).encode()).hexdigest()

    def __call__(
        self, examples: Sequence[Example], bucket: Bucket, answers: Sequence[Demonstration] | None = None
    ) -> Batch:
        """Encodes examples, padded to the P and N of `bucket`.

        Args:
          examples: B examples.
          bucket: P and N.
          answers: to learn, one per example; None where none are wanted.

        Raises:
          ValueError: naming the example, when it does not fit into P, N or R.
        """
        prompts, all_images = [], []
        answer_tokens = np.full((len(examples), self._max_answer_length), self._tokenizer.pad_id, np.int32)
        answer_mask = np.zeros(answer_tokens.shape, np.float32)
        cell_targets = np.zeros((len(examples), bucket.prompt_length), np.float32)
        cell_mask = np.zeros_like(cell_targets)
        earlier = np.zeros((len(examples), self._max_earlier_length), np.int32)
        earlier_mask = np.zeros(earlier.shape, np.float32)
        for row, example in enumerate(examples):
            shown = example.shape.shown()
            images = [preprocess(example.images[k], self.image_config) for k in shown]
            prompt = self._prompt(example.messages, tuple(grid for _, grid in images))
            self._check(example, Bucket(len(prompt), sum(len(patches) for patches, _ in images)), bucket)
            prompts.append(prompt)
            all_images.append(images)
            if answers is None or not self._max_answer_length:
                continue
            tokens, mask = self._response(example, answers[row])
            answer_tokens[row, : len(tokens)] = tokens
            answer_mask[row, : len(tokens)] = mask
            if self._max_earlier_length and answers[row].earlier:
                slots = self._earlier(example, answers[row], tuple(grid for _, grid in images))
                earlier[row, : len(slots)], earlier_mask[row, : len(slots)] = slots, 1
            slots = np.flatnonzero(np.isin(prompt, list(self._config.placeholders)))
            for k, (_, grid), side in zip(shown, images, self._token_sides(example.shape), strict=True):
                cells = grid[0] * grid[1] // side**2
                own, slots = slots[:cells], slots[cells:]
                if (boxes := answers[row].regions.get(k)) is not None:
                    seen = boxes_as_seen(boxes, example.sizes[k], self.image_config)
                    cell_mask[row, own] = 1
                    cell_targets[row, own] = covered_cells(seen, grid, side).ravel()
        return Batch(
            prompts=make_prompts(
                prompts,
                all_images,
                self._config,
                prompt_length=bucket.prompt_length,
                num_patches=bucket.num_patches,
            ),
            answers=answer_tokens,
            answer_mask=answer_mask,
            cell_targets=cell_targets,
            cell_mask=cell_mask,
            earlier=earlier,
            earlier_mask=earlier_mask,
            examples=tuple(examples),
            rows=np.arange(len(examples)),
        )

    def _prompt(self, messages: tuple[Turn, ...], grids: Grids) -> np.ndarray:
        key = messages, grids
        if (known := self._prompts.get(key)) is not None:
            return known
        prompt = conversation_ids(self._tokenizer, messages, grids, self._config.placeholders)
        if len(self._prompts) < _MOST_PROMPTS:  # millions of phrases have a prompt each
            self._prompts[key] = prompt
        return prompt

    def _grids(self, shape: Shape) -> Grids:
        return tuple(patch_grid(*shape.sizes[k], self.image_config) for k in shape.shown())

    def _token_sides(self, shape: Shape) -> list[int]:
        """Patches along the side of one token of each image shown."""
        return [self._side(isinstance(part, Object)) for part in shape.parts_shown()]

    def _side(self, as_object: bool) -> int:
        """The same of any image that is shown as an object, or whole."""
        word = self._config.object_token_id if as_object else self._config.image_token_id
        # Where a model has no objects, the prompt of one is refused with the reason.
        return self._config.placeholders.get(word or -1, self.image_config.merge_size)

    def _response(self, example: Example, answer: Demonstration) -> tuple[list[int], np.ndarray]:
        tokens, mask = response_ids(self._tokenizer, answer)
        if len(tokens) > self._max_answer_length and not self._cut_answers:
            raise ValueError(
                f"{example.id}: the answer takes {len(tokens)} tokens, but max_answer_length is "
                f"{self._max_answer_length}; allow longer answers (config.sft.max_answer_tokens), round to a"
                " coarser config.sft.answer_step, or learn their beginnings (config.sft.cut_answers=True)."
            )
        return tokens[: self._max_answer_length], mask[: self._max_answer_length]

    def _earlier(self, example: Example, answer: Demonstration, grids: Grids) -> np.ndarray:
        """Slots in the prompt of the tokens of earlier answers, in order."""
        placeholders = self._config.placeholders
        spans = answer_spans(self._tokenizer, example.messages, answer.earlier, grids, placeholders)
        slots = np.concatenate([np.arange(*span) for span in spans])
        if len(slots) > self._max_earlier_length and not self._cut_answers:
            raise ValueError(
                f"{example.id}: its earlier answers take {len(slots)} tokens, but"
                f" config.sft.max_earlier_tokens is {self._max_earlier_length}: allow more, or learn the"
                " first of them (config.sft.cut_answers=True)"
            )
        return slots[: self._max_earlier_length]

    def _check(self, example: Example, need: Bucket, bucket: Bucket) -> None:
        if not bucket.holds(need):
            raise ValueError(
                f"{example.id}: {describe_sizes(example.sizes)} need {need}, more than the {bucket} that"
                " the image sizes of its dataset promised: the dataset's declared image shape is wrong."
            )


def describe_sizes(sizes: Sequence[tuple[int, int]]) -> str:
    """In words: "images of 128x64 and 32x32 pixels" (width x height)."""
    names = list(dict.fromkeys(f"{width}x{height}" for height, width in sizes))
    return f"{len(sizes)} image{'s' * (len(sizes) != 1)} of {' and '.join(names) or 'no'} pixels"


def covered_cells(boxes: np.ndarray, grid: tuple[int, int], merge_size: int) -> np.ndarray:
    """Which merged tokens of an image show a part of a box.

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
