"""A small untrained model with its own tokenizer, made offline: `python -m dig_jax.scratch --out=DIR`.

The folder has the format of a released model of its family, so everything that runs on one runs on the other.
Two things make the task learnable for a model of a million parameters. Coordinates on a coarse grid are one
token each, so a box is seven tokens and its numbers are not spelled in digits. And what is ordered starts out
smooth: number tokens, and a table of positions where the tower has one, are initialised with Fourier features
instead of noise.
"""

import argparse
import dataclasses
import inspect
import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, get_type_hints

import numpy as np
from etils import epath
from flax import nnx

from dig_jax.data.images import ImageConfig
from dig_jax.machines.folder import check_free, to_path, whole_folder, writable_folder
from dig_jax.models import families
from dig_jax.models.api import Family
from dig_jax.models.architecture import Architecture, MoETextConfig, TextConfig, VisionConfig
from dig_jax.models.hf.chat_template import chat_template
from dig_jax.models.hf.checkpoint import save_model
from dig_jax.models.nn.multimodal import VisionLanguageModel
from dig_jax.tasks import aligned
from dig_jax.tasks.boxes.text import THOUSANDTHS

# Special tokens of Qwen's models, in the order of their ids there.
_SPECIAL = (
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
)
_THINK = ("<think>", "</think>")  # added tokens that are not special: they stay in decoded text

_ANSWER_PIECES = ("[[", "],[", "]]", "[]")  # with the numbers and the comma, all that an answer is made of


@dataclasses.dataclass(frozen=True)
class ScratchConfig:
    """Sizes of the small model. Every field is a flag of the command.

    Attributes:
      family: model_type of the family (`models.families`).
      seed: of the random weights.
      question: its words become single tokens, which makes the prompt short.
      words_of: folder of aligned records (`python -m data_gen.align`); the words of their questions and
        answers become single tokens too.
      thinking: the chat template opens "<think>", as that of Qwen3-VL Thinking does.
      number_step: coordinates that are multiples of this, up to 1000, are one token each; None: 20. A family
        that writes boxes in pixels has all of them, up to `image_size`.
      image_size: side in pixels of the images to train on; larger ones are shrunk to that area.
      patch_size: side of a patch in pixels; an image token covers 2x2 patches.
      vision_width, vision_depth, vision_heads, vision_inner: the vision tower.
      deepstack: vision blocks whose output is also added in the decoder (Qwen3-VL); None: the first.
      window_size: side in pixels of the windows that most vision blocks attend in (Qwen2.5-VL); None: half of
        `image_size`.
      text_width, text_depth, text_heads, text_kv_heads, head_dim, text_inner: the decoder.
      experts: of every decoder layer, where the family has some; None: 8.
      experts_per_token: that each token goes through; None: 2.
      expert_inner: inner width of an expert; None: `text_inner` shared by those of a token, which then cost
        what the one MLP of another family costs.
      mrope_section: rotary frequencies for time, height and width; they sum to head_dim / 2. None: 6, 5
        and 5, or all for time where a family's positions count along the text.
      rope_theta: base of the rotary frequencies. Released models use 5e6 for contexts of 256k tokens; here a
        sequence has about a hundred.
      initializer_range: standard deviation of random kernels and embeddings.
      fourier_init: smooth initial positions and numbers.
    """

    family: str = "qwen3_vl"
    seed: int = 0
    question: str = "Find differences."
    words_of: str = ""
    thinking: bool = False
    number_step: int | None = None
    image_size: int = 128
    patch_size: int = 16
    vision_width: int = 96
    vision_depth: int = 2
    vision_heads: int = 3
    vision_inner: int = 256
    deepstack: tuple[int, ...] | None = None
    window_size: int | None = None
    text_width: int = 128
    text_depth: int = 4
    text_heads: int = 4
    text_kv_heads: int = 2
    head_dim: int = 32
    text_inner: int = 256
    experts: int | None = None
    experts_per_token: int | None = None
    expert_inner: int | None = None
    mrope_section: tuple[int, ...] | None = None
    rope_theta: float = 100.0
    initializer_range: float = 0.05
    fourier_init: bool = True

    def __post_init__(self) -> None:
        step = self.number_step
        if step is not None and (step < 1 or THOUSANDTHS[0] % step):
            raise ValueError(f"number_step must be a divisor of {THOUSANDTHS[0]}, got {step}.")
        if step is not None and self.in_pixels:
            raise ValueError(f"number_step={step}: {self.family} writes boxes in pixels, which have no step.")
        if self.image_size % (2 * self.patch_size):
            raise ValueError(
                f"image_size must be a multiple of 2 * patch_size ({2 * self.patch_size}), "
                f"got {self.image_size}."
            )

    @property
    def in_pixels(self) -> bool:
        """Whether coordinates count pixels."""
        return families.of_type(self.family).box_convention == "pixels"

    @property
    def numbers(self) -> range:
        """The coordinates that are one token each."""
        if self.in_pixels:
            return range(self.image_size + 1)
        return range(0, THOUSANDTHS[0] + 1, self.number_step or 20)

    def spelled(self, number: int) -> str:
        """A coordinate as answers write it."""
        unit = families.of_type(self.family).box_convention == "unit"
        return f"{number / THOUSANDTHS[0]:.3f}" if unit else str(number)


def make_scratch_folder(out: epath.PathLike, config: ScratchConfig) -> Architecture:
    """Writes a Hugging Face folder: config, random weights, tokenizer, chat template, image processor.

    The folder appears whole or not at all. Returns the model's configuration.

    Args:
      out: the folder to make; it may exist if it is empty.
      config: the sizes.

    Raises:
      ValueError: sizes that do not fit each other.
      FileExistsError: `out` has something in it.
    """
    out = to_path(out)
    check_free(out)
    writable_folder(out, "--out")
    family = families.of_type(config.family)
    hf = _make_tokenizer(config, family)
    ids = hf.get_vocab()
    model_config = _model_config(config, family, ids)
    model = families.make(model_config, rngs=nnx.Rngs(config.seed))
    if config.fourier_init:
        for path, table in nnx.to_flat_state(nnx.state(model.vision, nnx.Param)):
            if path[-1] == "pos_embed":
                _smooth_positions(table, config)
        _smooth_numbers(model, config, ids)

    with whole_folder(out) as folder:
        save_model(folder, model)
        hf.save_pretrained(folder)
        _image_config(config, family, model_config.vision).save(folder, family.processor)
        generation = {
            "bos_token_id": ids["<|endoftext|>"],
            "pad_token_id": ids["<|endoftext|>"],
            "eos_token_id": [ids["<|im_end|>"], ids["<|endoftext|>"]],
            "do_sample": True,
            "temperature": 1.0,
        }
        (folder / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")
    return model_config


def _image_config(config: ScratchConfig, family: Family, vision: VisionConfig) -> ImageConfig:
    return ImageConfig(
        patch_size=config.patch_size,
        merge_size=vision.spatial_merge_size,
        temporal_patch_size=vision.temporal_patch_size,
        min_pixels=vision.fixed_side**2 if vision.fixed_side else (2 * config.patch_size) ** 2,
        max_pixels=config.image_size**2,
        mean=family.pixel_mean,
        std=family.pixel_std,
        square=vision.fixed_side is not None,
    )


def _model_config(config: ScratchConfig, family: Family, ids: Mapping[str, int]) -> Architecture:
    vision = VisionConfig(
        depth=config.vision_depth,
        hidden_size=config.vision_width,
        intermediate_size=config.vision_inner,
        num_heads=config.vision_heads,
        in_channels=3,
        patch_size=config.patch_size,
        temporal_patch_size=2,
        spatial_merge_size=2,
        out_hidden_size=config.text_width,
        initializer_range=config.initializer_range,
    )
    options = {name: getattr(config, name) for name in ("deepstack", "window_size")}
    given = {name: value for name, value in options.items() if value is not None}
    if wrong := given.keys() - inspect.signature(family.small_tower).parameters:
        raise ValueError(f"{', '.join(sorted(wrong))}: the tower of {family.title} has no such setting.")
    kind, experts = _decoder_kind(config, family)
    flat = family.config.flat_positions
    section = config.mrope_section or ((config.head_dim // 2, 0, 0) if flat else (6, 5, 5))
    return family.config(
        text=kind(
            vocab_size=-(-len(ids) // 64) * 64,  # padded, as released models are, so that it can be sharded
            hidden_size=config.text_width,
            intermediate_size=config.text_inner,
            num_hidden_layers=config.text_depth,
            num_attention_heads=config.text_heads,
            num_key_value_heads=config.text_kv_heads,
            head_dim=config.head_dim,
            rms_norm_eps=1e-6,
            rope_theta=config.rope_theta,
            mrope_section=section,  # type: ignore[arg-type]  # TextConfig checks its length
            max_position_embeddings=4096,
            initializer_range=config.initializer_range,
            **experts,
        ),
        vision=family.small_tower(vision, config.image_size, **given),
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=True,
        **{f"{name}_token_id": ids[word] for name, word in family.object_marks.items()},
    )


def _decoder_kind(config: ScratchConfig, family: Family) -> tuple[type[TextConfig], dict[str, int]]:
    """The class of the decoder's configuration, and what it has beside the others' settings."""
    kind = get_type_hints(family.config)["text"]
    names = ("experts", "experts_per_token", "expert_inner")
    if not issubclass(kind, MoETextConfig):
        if wrong := [name for name in names if getattr(config, name) is not None]:
            raise ValueError(f"{', '.join(wrong)}: the decoder of {family.title} has no experts.")
        return kind, {}
    chosen = config.experts_per_token or 2
    return kind, {
        "num_experts": config.experts or 8,
        "num_experts_per_tok": chosen,
        "moe_intermediate_size": config.expert_inner or config.text_inner // chosen,
    }


def _make_tokenizer(config: ScratchConfig, family: Family) -> Any:
    """A byte-level BPE tokenizer that knows the words of the prompt and the pieces of an answer.

    Numbers are added tokens, matched as whole words before BPE: Qwen's tokenizer splits digits apart, so
    merges could not join them, and a number off the grid must not be cut into others that are on it.
    """
    from tokenizers import AddedToken, pre_tokenizers
    from transformers import Qwen2Tokenizer

    base = Qwen2Tokenizer()
    texts = ["user", "system", "assistant", config.question, family.system]
    if config.words_of:
        texts += aligned.texts(config.words_of)
    words = dict.fromkeys(
        piece for text in texts for piece, _ in base.backend_tokenizer.pre_tokenizer.pre_tokenize_str(text)
    )
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = _merges_for([*_ANSWER_PIECES, *words])
    pieces = dict.fromkeys([*alphabet, *(left + right for left, right in merges)])
    vocab = {piece: id for id, piece in enumerate(pieces)}
    hf = Qwen2Tokenizer(
        vocab=vocab, merges=merges, unk_token=None, eos_token=_SPECIAL[0], pad_token=_SPECIAL[0]
    )
    hf.add_special_tokens({"extra_special_tokens": list(_SPECIAL)})
    hf.eos_token = "<|im_end|>"  # only now: a token named above would have been given the first id
    hf.add_tokens([AddedToken(text, special=False, normalized=False) for text in _THINK])
    numbers = [config.spelled(number) for number in config.numbers]
    hf.add_tokens([AddedToken(text, special=False, normalized=False, single_word=True) for text in numbers])
    hf.chat_template = chat_template(family, thinking=config.thinking)
    return hf


def _merges_for(pieces: Iterable[str]) -> list[tuple[str, str]]:
    """BPE merges, in order of priority, that make each of `pieces` a single token."""
    merges: list[tuple[str, str]] = []
    for piece in pieces:
        while len(parts := _apply_merges(list(piece), merges)) > 1:
            merges.append((parts[0], parts[1]))
    return merges


def _apply_merges(parts: list[str], merges: Sequence[tuple[str, str]]) -> list[str]:
    # In this order is the same as by priority: what uses the piece that a merge makes comes later.
    for left, right in merges:
        i = 0
        while i + 1 < len(parts):
            if (parts[i], parts[i + 1]) == (left, right):
                parts[i : i + 2] = [left + right]
            i += 1
    return parts


def _smooth_positions(positions: nnx.Variable, config: ScratchConfig) -> None:
    """Fills a table of positions with smooth functions of row and column; a first row for no place stays."""
    table = positions.get_value()
    side = math.isqrt(len(table))
    axis = _fourier(np.linspace(0, 1, side), frequencies=side // 2)
    rows, columns = np.repeat(axis, side, axis=0), np.tile(axis, (side, 1))
    # A patch embedding's output is of order one, and so must be what tells its place.
    places = _project(np.concatenate([rows, columns], axis=1), table.shape[1], rms=0.5, seed=config.seed)
    positions.set_value(table.at[len(table) - side**2 :].set(places))


def _smooth_numbers(model: VisionLanguageModel, config: ScratchConfig, ids: dict[str, int]) -> None:
    """Gives number tokens embeddings that change smoothly with the number, of the usual size."""
    numbers = np.array(config.numbers)
    features = _fourier(numbers / numbers[-1], frequencies=len(numbers) // 4)
    rows = _project(features, config.text_width, rms=config.initializer_range, seed=config.seed + 1)
    words = np.array([ids[config.spelled(number)] for number in config.numbers])
    embedding = model.text.embedding.get_value()
    model.text.embedding.set_value(embedding.at[words].set(rows))


def _fourier(x: np.ndarray, frequencies: int) -> np.ndarray:
    """[n, 1 + 2 * frequencies] features of x [n] in 0..1: a constant, cosines and sines of half periods."""
    angles = np.pi * x[:, None] * np.arange(1, frequencies + 1)
    # Falling amplitudes: near neighbors should be alike.
    scale = 1 / np.sqrt(np.arange(1, frequencies + 1))
    return np.concatenate([np.ones_like(x)[:, None], np.cos(angles) * scale, np.sin(angles) * scale], axis=1)


def _project(features: np.ndarray, width: int, *, rms: float, seed: int) -> np.ndarray:
    """features [n, f] in a random basis: float32 [n, width] of the given root mean square."""
    basis = np.random.default_rng(seed).normal(size=(features.shape[1], width))
    projected = features @ basis
    return (projected * (rms / np.sqrt((projected**2).mean()))).astype(np.float32)


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns its exit code: 0, or 1 with a message on stderr."""
    parser = argparse.ArgumentParser(prog="python -m dig_jax.scratch", description=__doc__.split("\n")[0])
    parser.add_argument("--out", required=True, help="folder to make")
    for field in dataclasses.fields(ScratchConfig):
        default = field.default
        kind: dict[str, Any] = {"type": type(default)}
        if isinstance(default, bool):
            kind = {"action": argparse.BooleanOptionalAction}
        elif default is None or isinstance(default, tuple):
            kind = {"type": int} | ({"nargs": "*"} if "tuple" in str(field.type) else {})
        parser.add_argument(f"--{field.name}", default=default, help=f"default: {default}", **kind)
    values = vars(parser.parse_args(argv))
    out = values.pop("out")
    try:
        values = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
        config = ScratchConfig(**values)
        model_config = make_scratch_folder(out, config)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"wrote {out}: {model_config.text.vocab_size} token ids, random weights")
    return 0


if __name__ == "__main__":
    sys.exit(main())
