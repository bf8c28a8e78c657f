"""The model and the pairs that `bench/grpo_step.py` measures on, without download or rendering.

One setting, small enough that a step takes about a second on two cores: a Qwen3-VL of 0.8 million
parameters (width 128, 2 decoder layers, a vision tower of 2 blocks with one DeepStack tap) and pairs of
128x128 images of rectangles. With the byte-level tokenizer the prompt is 212 tokens, 32 of them image
tokens.
"""

import json
from pathlib import Path

import numpy as np
from flax import nnx
from PIL import Image
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from dig_jax.data.records import Pair
from dig_jax.models.hf.checkpoint import save_model
from dig_jax.models.qwen3_vl.config import Qwen3VLConfig
from dig_jax.models.qwen3_vl.model import Qwen3VL

IMAGE_SIDE = 128
QUESTION = (
    "Compare the two images and output the bounding boxes of ALL differences as a JSON list "
    '[{"bbox_2d": [x1, y1, x2, y2], "label": "..."}] in 0-1000 coordinates.'
)

_SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
# A turn's content is plain text, or a list of images and text.
_TEMPLATE = (
    "{%- for message in messages -%}{{- '<|im_start|>' + message.role + '\n' -}}"
    "{%- if message.content is string -%}{{- message.content -}}"
    "{%- else -%}{%- for part in message.content -%}"
    "{%- if part.type == 'image' -%}{{- '<|vision_start|><|image_pad|><|vision_end|>' -}}"
    "{%- else -%}{{- part.text -}}{%- endif -%}"
    "{%- endfor -%}{%- endif -%}{{- '<|im_end|>\n' -}}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}{%- endif -%}"
)


def write_model(folder: Path, depth: int = 2) -> None:
    """Writes a Hugging Face folder with random weights: both sides start from the same ones.

    Args:
      folder: where to.
      depth: layers of the decoder, and of the vision tower.
    """
    tokenizer = _tokenizer()
    config = Qwen3VLConfig.from_dict(_config(tokenizer))
    config = config.resized(text={"num_hidden_layers": depth}, vision={"depth": depth})
    save_model(folder, Qwen3VL(config, rngs=nnx.Rngs(0)))
    tokenizer.save_pretrained(folder)
    image_settings = {
        "image_processor_type": "Qwen2VLImageProcessor",
        "patch_size": 16,
        "temporal_patch_size": 2,
        "merge_size": 2,
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
        "size": {"shortest_edge": 32 * 32, "longest_edge": 4096 * 4096},
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(image_settings))
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    (folder / "generation_config.json").write_text(json.dumps(ends))


def make_pairs(count: int, side: int = IMAGE_SIDE) -> list[Pair]:
    """Pairs of images of `side` pixels squared that differ in the color of one of three rectangles."""
    rng = np.random.default_rng(0)
    return [_pair(index, side, rng) for index in range(count)]


def write_images(pairs: list[Pair], folder: Path) -> list[list[str]]:
    """Writes the images as PNG files and returns their paths, two per pair."""
    paths = []
    for pair in pairs:
        names = [str(folder / f"{pair.id}_{side}.png") for side in "ab"]
        for name, image in zip(names, (pair.image_a, pair.image_b), strict=True):
            Image.fromarray(image).save(name)
        paths.append(names)
    return paths


def _pair(index: int, size: int, rng: np.random.Generator) -> Pair:
    before = np.full((size, size, 3), 90, np.uint8)
    boxes = []
    for _ in range(3):
        side = int(rng.integers(size // 8, size // 4))
        x, y = (int(v) for v in rng.integers(0, size - side, 2))
        before[y : y + side, x : x + side] = (200, 40, 40)
        boxes.append((x, y, x + side, y + side))
    after = before.copy()
    x0, y0, x1, y1 = boxes[-1]
    after[y0:y1, x0:x1] = (40, 40, 200)
    box = np.array([boxes[-1]], np.float32) / size
    return Pair(f"bench-{index}", before, after, box, box, box, ("color",), ("the last square became blue",))


def _tokenizer() -> PreTrainedTokenizerFast:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={char: id for id, char in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in _SPECIAL])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        padding_side="left",
        chat_template=_TEMPLATE,
    )


def _config(tokenizer: PreTrainedTokenizerFast) -> dict:
    width = 128
    text = {
        "model_type": "qwen3_vl_text",
        "vocab_size": len(tokenizer),
        "hidden_size": width,
        "intermediate_size": 3 * width,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "hidden_act": "silu",
        "attention_bias": False,
        "rms_norm_eps": 1e-6,
        "max_position_embeddings": 4096,
        "initializer_range": 0.02,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 5e6,
            "mrope_interleaved": True,
            "mrope_section": [6, 5, 5],
        },
    }
    vision = {
        "model_type": "qwen3_vl",
        "depth": 2,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_heads": 2,
        "hidden_act": "gelu_pytorch_tanh",
        "in_channels": 3,
        "patch_size": 16,
        "temporal_patch_size": 2,
        "spatial_merge_size": 2,
        "out_hidden_size": width,
        "num_position_embeddings": 256,
        "deepstack_visual_indexes": [1],
        "initializer_range": 0.02,
    }
    ids = {
        f"{name}_token_id": tokenizer.convert_tokens_to_ids(f"<|{token}|>")
        for name, token in (
            ("image", "image_pad"),
            ("video", "video_pad"),
            ("vision_start", "vision_start"),
            ("vision_end", "vision_end"),
        )
    }
    return {
        "model_type": "qwen3_vl",
        "text_config": text,
        "vision_config": vision,
        "tie_word_embeddings": True,
        **ids,
    }
