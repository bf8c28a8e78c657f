"""Logits of a model folder, as transformers reads it and as we do: of one we wrote they have to agree."""

from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx

from dig_jax.data.images import ImageConfig, preprocess
from dig_jax.models.hf import checkpoint
from dig_jax.models.inputs import Image, make_prompts


def assert_same_logits(folder: Path, height: int, width: int, atol: float) -> None:
    """Compares the logits of a prompt with one picture, which each side prepares by what the folder says."""
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    ids, theirs = their_logits(folder, pixels)
    ours = our_logits(folder, ids, [preprocess(pixels, ImageConfig.from_folder(folder))])
    np.testing.assert_allclose(ours, theirs, atol=atol)


def their_logits(folder: Path, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Token ids [T] and logits [T,V], by the tokenizer, image processor and model that transformers finds."""
    torch = pytest.importorskip("torch")
    from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoTokenizer

    tokens = pixels.shape[0] * pixels.shape[1] // 32**2
    text = f"Find <|vision_start|>{'<|image_pad|>' * tokens}<|vision_end|> it"
    ids = np.array(AutoTokenizer.from_pretrained(folder)(text)["input_ids"])
    image = AutoImageProcessor.from_pretrained(folder)(images=[pixels], return_tensors="np")
    model, report = AutoModelForImageTextToText.from_pretrained(folder, output_loading_info=True)
    assert type(model).__name__ == "Qwen3VLForConditionalGeneration" and not any(report.values()), report
    with torch.no_grad():
        logits = model.eval()(
            input_ids=torch.tensor(ids[None]),
            mm_token_type_ids=torch.tensor(ids[None] == model.config.image_token_id).long(),
            pixel_values=torch.tensor(image["pixel_values"]),
            image_grid_thw=torch.tensor(image["image_grid_thw"]),
        ).logits[0]
    return ids, logits.numpy()


def our_logits(folder: Path, ids: np.ndarray, images: list[Image]) -> np.ndarray:
    """Logits [T,V] of one prompt."""
    model = checkpoint.load_model(folder)
    patches = sum(len(patches) for patches, _ in images)
    prompts = make_prompts([ids], [images], model.config, prompt_length=len(ids), num_patches=patches)

    @jax.jit
    def logits(state: nnx.State) -> jax.Array:
        merged = nnx.merge(graphdef, state)
        return merged.logits(merged(prompts)[0])[0]

    graphdef, state = nnx.split(model)
    return np.asarray(logits(state))
