"""The tiny model on both sides: ours, and transformers' as the reference.

Torch is imported inside fixtures alone: without it the parity tests are skipped and the others run.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dig_jax.models.hf import checkpoint
from dig_jax.models.inputs import Image, Prompts, make_prompts
from dig_jax.models.qwen3_vl.config import Qwen3VLConfig
from dig_jax.models.qwen3_vl.model import Qwen3VL

# One bucket for (nearly) all tests, so that programs are compiled once.
PROMPT_LENGTH, NUM_PATCHES = 48, 96


@dataclasses.dataclass(frozen=True)
class Example:
    """A prompt before padding: token ids with placeholders expanded, and its images."""

    ids: np.ndarray
    images: list[Image]


@dataclasses.dataclass
class PromptMaker:
    """Draws random prompts for a configuration."""

    config: Qwen3VLConfig

    def example(self, grids: Sequence[tuple[int, int]], *, text: int = 5, seed: int = 0) -> Example:
        """`text` random tokens, then each image followed by two more.

        Images have the size that the model gives all of them, if it does; every second is an object, if it
        has objects.
        """
        rng = np.random.default_rng(seed)
        config = self.config
        ids = list(rng.integers(0, 300, text))
        if side := config.vision.fixed_side:
            grids = [(side // config.vision.patch_size,) * 2 for _ in grids]
        for number, (rows, columns) in enumerate(grids):
            as_object = number % 2 == 1 and config.object_token_id is not None
            word = config.object_token_id if as_object else config.image_token_id
            placeholders = [word] * (rows * columns // config.placeholders[word] ** 2)
            ids += [config.vision_start_token_id, *placeholders, config.vision_end_token_id]
            ids += list(rng.integers(0, 300, 2))
        images = [(self.patches(rng, h * w), (h, w)) for h, w in grids]
        return Example(np.asarray(ids, np.int32), images)

    def patches(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """Pixels between -1 and 1, as the image processor gives them."""
        return rng.uniform(-1, 1, (count, self.config.vision.patch_dim)).astype(np.float32)

    def pad(
        self, *examples: Example, prompt_length: int | None = None, num_patches: int = NUM_PATCHES
    ) -> Prompts:
        if prompt_length is None:
            prompt_length = 80 if self.config.vision.fixed_side else PROMPT_LENGTH
        return make_prompts(
            [example.ids for example in examples],
            [example.images for example in examples],
            self.config,
            prompt_length=prompt_length,
            num_patches=num_patches,
        )


@dataclasses.dataclass
class Reference:
    """transformers' model, fed with the same examples."""

    torch: Any
    model: Any

    def inputs(self, *examples: Example) -> dict[str, Any]:
        """Left-padded, as transformers generates from."""
        torch, config = self.torch, self.model.config
        longest = max(len(example.ids) for example in examples)
        ids = np.stack([np.pad(example.ids, (longest - len(example.ids), 0)) for example in examples])
        mask = np.stack([np.arange(longest) >= longest - len(example.ids) for example in examples])
        inputs = {
            "input_ids": torch.tensor(ids, dtype=torch.long),
            "attention_mask": torch.tensor(mask, dtype=torch.long),
        }
        images = [image for example in examples for image in example.images]
        if images:
            # Required as soon as there are images: 1 marks an image token.
            inputs["mm_token_type_ids"] = torch.tensor(
                (ids == config.image_token_id) & mask, dtype=torch.long
            )
            inputs["pixel_values"] = torch.tensor(np.concatenate([patches for patches, _ in images]))
            inputs["image_grid_thw"] = torch.tensor([(1, *grid) for _, grid in images])
        return inputs

    def forward(self, *examples: Example) -> Any:
        """Logits, a torch tensor [B,T,V] of the left-padded rows."""
        self.model.model.rope_deltas = None  # else those of the last call are used for text
        return self.model(**self.inputs(*examples)).logits

    def logits(self, *examples: Example) -> list[np.ndarray]:
        """Logits [T,V] of every example, padding removed."""
        with self.torch.no_grad():
            logits = self.forward(*examples).float().numpy()
        return [row[-len(example.ids) :] for row, example in zip(logits, examples, strict=True)]


def load_reference(folder: Path) -> Reference:
    torch = pytest.importorskip("torch")
    from transformers import AutoModelForImageTextToText

    torch.set_num_threads(1)
    model, report = AutoModelForImageTextToText.from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True
    )
    assert not any(report.values()), report
    return Reference(torch, model.eval())


@pytest.fixture(scope="session")
def model(tiny_qwen3vl: Path) -> Qwen3VL:
    return checkpoint.load_model(tiny_qwen3vl)


@pytest.fixture(scope="session")
def reference(tiny_qwen3vl: Path) -> Reference:
    return load_reference(tiny_qwen3vl)


@pytest.fixture(scope="session")
def make(model: Qwen3VL) -> PromptMaker:
    return PromptMaker(model.config)
