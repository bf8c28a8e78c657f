"""The models and prompts that `bench/inference.py` measures on: generated, so nothing is downloaded.

Both sides load the same Hugging Face folder of random float32 weights. Every prompt is two square images and
random text tokens; the rows of a batch have one length, so neither side computes padding.
"""

import dataclasses
from pathlib import Path

import jax
import numpy as np
from flax import nnx

from dig_jax.models.hf import checkpoint
from dig_jax.models.inputs import Image
from dig_jax.models.qwen3_vl.config import Qwen3VLConfig
from dig_jax.models.qwen3_vl.model import Qwen3VL
from dig_jax.models.qwen3_vl.published import architecture

IMAGES = 2
Prompt = tuple[np.ndarray, list[Image]]  # token ids with placeholders expanded, and the images


@dataclasses.dataclass(frozen=True)
class Size:
    """A model and its prompts.

    Attributes:
      config: the architecture.
      grid: patches per side of an image; an image token covers 2x2 of them.
      words: text tokens of a prompt.
      prompts: rows of the batch whose prefill is timed.
      new_tokens: tokens of each completion.
    """

    config: Qwen3VLConfig
    grid: int
    words: int
    prompts: int
    new_tokens: int

    @property
    def prompt_length(self) -> int:
        """Tokens of a prompt: images with their marks, then text."""
        return IMAGES * (self.grid**2 // self.config.vision.merge_unit + 2) + self.words

    @property
    def num_patches(self) -> int:
        """Patches of a prompt."""
        return IMAGES * self.grid**2


SIZES = {
    # The quickstart's model and pictures of 128x128 pixels.
    "small": Size(
        architecture("2B").resized(
            text={
                "vocab_size": 512,
                "hidden_size": 128,
                "intermediate_size": 256,
                "num_hidden_layers": 4,
                "num_attention_heads": 4,
                "num_key_value_heads": 2,
                "head_dim": 32,
                "mrope_section": (6, 5, 5),
                "initializer_range": 0.05,
            },
            vision={
                "depth": 2,
                "hidden_size": 96,
                "intermediate_size": 256,
                "num_heads": 3,
                "num_position_embeddings": 256,
                "deepstack_visual_indexes": (0,),
                "initializer_range": 0.05,
            },
            tied=False,
        ),
        grid=8,
        words=60,
        prompts=4,
        new_tokens=64,
    ),
    # The depth, head size and DeepStack taps of Qwen3-VL-2B, a quarter of its width; pictures of 256x256.
    "mid": Size(
        architecture("2B").resized(
            text={
                "vocab_size": 8192,
                "hidden_size": 512,
                "intermediate_size": 1280,
                "num_attention_heads": 8,
                "num_key_value_heads": 4,
                "initializer_range": 0.05,
            },
            vision={"hidden_size": 320, "intermediate_size": 1024, "num_heads": 8},
            tied=False,
        ),
        grid=16,
        words=150,
        prompts=4,
        new_tokens=32,
    ),
}


def write_model(folder: Path, size: Size) -> None:
    """Writes a Hugging Face folder (config and weights) with random float32 weights."""
    # Compiling the random number generators takes longer optimised than running them once otherwise.
    quick = {"xla_backend_optimization_level": 0}
    make = jax.jit(lambda: Qwen3VL(size.config, rngs=nnx.Rngs(0)), compiler_options=quick)
    checkpoint.save_model(folder, make())


def make_prompts(size: Size) -> list[Prompt]:
    """The prompts of the batch; the first is also the one that a group of completions continues."""
    rng = np.random.default_rng(0)
    return [_prompt(size, rng) for _ in range(size.prompts)]


def _prompt(size: Size, rng: np.random.Generator) -> Prompt:
    config = size.config
    placeholders = [config.image_token_id] * (size.grid**2 // size.config.vision.merge_unit)
    image = [config.vision_start_token_id, *placeholders, config.vision_end_token_id]
    words = rng.integers(0, config.vision_start_token_id, size.words)
    pixels = rng.uniform(-1, 1, (IMAGES, size.grid**2, size.config.vision.patch_dim)).astype(np.float32)
    ids = np.array([*image * IMAGES, *words], np.int32)
    return ids, [(patches, (size.grid, size.grid)) for patches in pixels]
