"""Makes the folder of a tiny random model: weights, tokenizer, processor and generation settings, offline.

    python tests/helpers/make_tiny_model.py OUT [--family=qwen2_5_vl] [--thinking] [--tied]

The folder has the files of a real one and transformers loads it. Torch is not needed to make it. Norms
and biases are perturbed: at their initial ones and zeros a port could ignore them unnoticed.
"""

import argparse
import dataclasses
import importlib
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import Qwen2Tokenizer

from dig_jax.models import families
from dig_jax.models.api import Family
from dig_jax.models.architecture import Architecture, TextConfig
from dig_jax.models.architecture import VisionConfig as AnyVisionConfig
from dig_jax.models.hf import checkpoint
from dig_jax.models.hf.chat_template import chat_template
from dig_jax.models.qwen2_5_vl.config import Qwen2_5VLConfig
from dig_jax.models.qwen2_5_vl.config import VisionConfig as Qwen2_5VisionConfig
from dig_jax.models.qwen3_vl.config import Qwen3VLConfig, VisionConfig

# In the order of the real tokenizer, where they start at 151643.
SPECIAL_TOKENS = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
]
# Added tokens that are not special: decoding keeps them.
ADDED_TOKENS = ["<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>"]

# ChatML with images, the wire format of the real template.
SYSTEM = "{{- '<|im_start|>system\\nTEXT<|im_end|>\\n' -}}"  # before conversations that have none
CHAT_TEMPLATE = """{%- for message in messages -%}
{{- '<|im_start|>' + message.role + '\\n' -}}
{%- if message.content is string -%}{{- message.content -}}
{%- else -%}{%- for item in message.content -%}
{%- if item.type == 'image' -%}{{- '<|vision_start|><|image_pad|><|vision_end|>' -}}
{%- elif item.type == 'text' -%}{{- item.text -}}{%- endif -%}
{%- endfor -%}{%- endif -%}
{{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\nOPENING' -}}{%- endif -%}"""

# The pre-tokenizer of Qwen2: words, single digits, punctuation, spaces.
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CORPUS = [
    "system\nYou are a helpful assistant.",
    "user\nFind every difference between the two images. Answer with a JSON list of bounding boxes.",
    "[[0, 1, 2, 3], [456, 789, 1000, 1000]] []",
]


def make_tokenizer() -> Qwen2Tokenizer:
    """A byte-level BPE with a few hundred words and Qwen's special tokens."""
    bpe = Tokenizer(models.BPE())
    bpe.normalizer = normalizers.NFC()
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated", invert=False),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=320, show_progress=False, initial_alphabet=alphabet)
    bpe.train_from_iterator(CORPUS * 50, trainer)
    learned = json.loads(bpe.to_str())["model"]
    tokenizer = Qwen2Tokenizer(
        vocab=learned["vocab"],
        merges=[tuple(merge) for merge in learned["merges"]],
        unk_token=None,
        bos_token=None,
        eos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
    )
    tokenizer.add_special_tokens({"extra_special_tokens": SPECIAL_TOKENS})
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in ADDED_TOKENS])
    tokenizer.eos_token = "<|im_end|>"  # set last, or it would come first among the ids
    return tokenizer


def make_config(tokenizer: Qwen2Tokenizer, *, tied: bool = False) -> Qwen3VLConfig:
    """Small, with every dimension different so that a mix-up shows; three DeepStack taps as in real ones."""
    text = TextConfig(
        vocab_size=-(-len(tokenizer) // 64) * 64,  # more words than tokens, as in real models
        hidden_size=64,
        intermediate_size=112,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        rms_norm_eps=1e-6,
        rope_theta=5_000_000.0,
        mrope_section=(6, 5, 5),
        max_position_embeddings=4096,
        initializer_range=0.06,
    )
    vision = VisionConfig(
        depth=6,
        hidden_size=48,
        intermediate_size=80,
        num_heads=4,
        in_channels=3,
        patch_size=16,
        temporal_patch_size=2,
        spatial_merge_size=2,
        out_hidden_size=64,
        num_position_embeddings=36,
        deepstack_visual_indexes=(1, 2, 4),
        initializer_range=0.08,  # at 0.02 attention would be nearly uniform
    )
    return Qwen3VLConfig(
        text=text,
        vision=vision,
        image_token_id=tokenizer.convert_tokens_to_ids("<|image_pad|>"),
        video_token_id=tokenizer.convert_tokens_to_ids("<|video_pad|>"),
        vision_start_token_id=tokenizer.convert_tokens_to_ids("<|vision_start|>"),
        vision_end_token_id=tokenizer.convert_tokens_to_ids("<|vision_end|>"),
        tie_word_embeddings=tied,
    )


def make_qwen2_5_config(tokenizer: Qwen2Tokenizer, *, tied: bool = False) -> Qwen2_5VLConfig:
    """The same tokens and decoder sizes, with windows of two by two tokens in two of three blocks."""
    like = make_config(tokenizer, tied=tied)
    return Qwen2_5VLConfig(
        text=dataclasses.replace(like.text, head_dim=16, mrope_section=(2, 3, 3)),
        vision=Qwen2_5VisionConfig(
            depth=3,
            hidden_size=48,
            intermediate_size=84,
            num_heads=4,
            in_channels=3,
            patch_size=14,
            temporal_patch_size=2,
            spatial_merge_size=2,
            out_hidden_size=64,
            initializer_range=0.2,
            window_size=56,
            fullatt_block_indexes=(1,),
            tokens_per_second=2,
        ),
        **{
            f.name: getattr(like, f.name)
            for f in dataclasses.fields(like)
            if f.name not in ("text", "vision")
        },
    )


def perturb_norms_and_biases(model: nnx.Module, seed: int) -> None:
    """Adds noise to every norm scale and every bias."""
    rng = np.random.default_rng(seed)
    state = dict(nnx.to_flat_state(nnx.state(model, nnx.Param)))
    for path, variable in state.items():
        if path[-1] in ("scale", "bias"):
            noise = 0.1 * rng.standard_normal(variable.shape)
            state[path] = variable.replace(variable.get_value() + noise.astype(variable.dtype))
    nnx.update(model, nnx.from_flat_state(state))


# Other families have theirs in `configs` of their own room of tests.
CONFIGS: dict[str, Any] = {
    "qwen3_vl": make_config,
    "qwen2_5_vl": make_qwen2_5_config,
}


def make_tiny(folder: Path, *, family: str = "qwen3_vl", thinking: bool = False, tied: bool = False) -> None:
    """Writes the model folder.

    Args:
      folder: to create.
      family: its model_type.
      thinking: the chat template opens `<think>` in the prompt, as those of Thinking models do.
      tied: the output head is the embedding table.
    """
    tokenizer = make_tokenizer()
    kind = families.of_type(family)
    system = SYSTEM.replace("TEXT", kind.system) if kind.system else ""
    opening = "<think>\\n" if thinking else ""
    tokenizer.chat_template = system + CHAT_TEMPLATE.replace("OPENING", opening)
    if kind.object_marks:
        tokenizer.chat_template = chat_template(kind)
    make = CONFIGS.get(family) or importlib.import_module(f"tests.models.{family}.configs").tiny_config
    config: Architecture = make(tokenizer, tied=tied)
    # Compiling twenty random number generators takes 17 s optimised, 2 s not, and they run once.
    quick = {"xla_backend_optimization_level": 0}
    model = jax.jit(lambda: families.make(config, rngs=nnx.Rngs(0)), compiler_options=quick)()
    perturb_norms_and_biases(model, seed=1)
    checkpoint.save_model(folder, model, max_shard_bytes=200_000)
    tokenizer.save_pretrained(folder)
    _write_json(folder / "processor_config.json", _processor_config(kind, config.vision))
    eos = [tokenizer.convert_tokens_to_ids(token) for token in ("<|im_end|>", "<|endoftext|>")]
    _write_json(folder / "generation_config.json", {"eos_token_id": eos, "pad_token_id": eos[1]})


def _processor_config(family: Family, vision: AnyVisionConfig) -> dict[str, Any]:
    patch_size = vision.patch_size
    image_processor = {
        "image_processor_type": "Qwen2VLImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "do_rescale": True,
        "do_normalize": True,
        "image_mean": list(family.pixel_mean),
        "image_std": list(family.pixel_std),
        "rescale_factor": 1 / 255,
        "resample": 3,  # bicubic
        "patch_size": patch_size,
        "merge_size": 2,
        "temporal_patch_size": 2,
        "size": {
            "shortest_edge": (2 * patch_size) ** 2,
            "longest_edge": (8 * patch_size) ** 2,
        },  # in pixels of area, not of edge
    }
    if side := vision.fixed_side:
        image_processor |= {"do_pad": True, "do_normalize": False, "size": {"shortest_edge": side}}
        image_processor |= {"merge_size": vision.spatial_merge_size, "temporal_patch_size": 1}
    return {"processor_class": family.processor, "image_processor": image_processor}


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--family", default="qwen3_vl")
    parser.add_argument("--thinking", action="store_true")
    parser.add_argument("--tied", action="store_true")
    arguments = parser.parse_args()
    make_tiny(arguments.out, family=arguments.family, thinking=arguments.thinking, tied=arguments.tied)
