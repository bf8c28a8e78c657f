"""A start model from three published ones: CLIP, DINOv2 and Qwen2.5, with a projector drawn at random.

Tensors of the parts come over bit for bit. What is left out: CLIP's text side, the last layer of each tower
(unless `dino_layer` is -1) and what comes after it, DINOv2's token for masked patches. The rows of the words
around images and objects, which Qwen2.5's text never uses, become the mean of the rows that it does use, as
rows of new words do in LLaVA and GroundingGPT.
"""

import functools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from etils import epath

from dig_jax.machines import textfile
from dig_jax.models.architecture import TextConfig
from dig_jax.models.clip_dino_qwen.config import ClipDinoQwenConfig, DinoConfig, VisionConfig, read_text
from dig_jax.models.hf.config_reader import Section
from dig_jax.models.hf.safetensors_io import DTYPES, Entry, Spec, Tensor, find_tensors

PARTS: Mapping[str, str] = {
    "clip": "folder of a CLIP vision tower, openai/clip-vit-large-patch14-336",
    "dino": "folder of a DINOv2 tower without registers, facebook/dinov2-large",
    "qwen": "folder of the decoder, Qwen/Qwen2.5-1.5B-Instruct, 3B or 7B",
}

# Ids in config.json, and the words of Qwen2.5's tokenizer that they are.
_WORDS = {
    "image_token_id": "<|image_pad|>",
    "video_token_id": "<|video_pad|>",
    "vision_start_token_id": "<|vision_start|>",
    "vision_end_token_id": "<|vision_end|>",
    "object_start_token_id": "<|object_ref_start|>",
    "object_pad_token_id": "<|vision_pad|>",
    "object_end_token_id": "<|object_ref_end|>",
}
_MARKERS = tuple(name for name in _WORDS if "start" in name or "end" in name)

# What transformers 5 calls a module of DINOv2 in memory, and may write: its name on the hub.
_DINO_NAMES = {
    "attention.q_proj": "attention.attention.query",
    "attention.k_proj": "attention.attention.key",
    "attention.v_proj": "attention.attention.value",
    "attention.o_proj": "attention.output.dense",
}


def assemble(
    parts: Mapping[str, epath.Path],
    *,
    image_size: int = 336,
    crop_tokens: int = 144,
    dino_layer: int = -2,
    seed: int = 0,
) -> tuple[ClipDinoQwenConfig, list[Tensor]]:
    """See `Family.assemble`.

    Args:
      parts: folders of `PARTS`.
      image_size: side in pixels of the square that every image is brought to; CLIP's own.
      crop_tokens: of an object: 576 (as many as of an image), 144, 64 or 36.
      dino_layer: -2, the second-to-last layer as of CLIP, or -1, the last through the final norm.
      seed: of the projector.

    Raises:
      FileNotFoundError: a folder has no config.json, no weights or no tokenizer.
      ValueError: a folder is of another model, or the numbers do not fit the parts.
    """
    clip, dino = _read_clip(parts["clip"], image_size), _read_dino(parts["dino"], dino_layer)
    text, tied = _read_qwen(parts["qwen"])
    words = _words(parts["qwen"] / "tokenizer.json")
    vision = VisionConfig(
        **clip,
        in_channels=3,
        temporal_patch_size=1,
        spatial_merge_size=1,
        out_hidden_size=text.hidden_size,
        initializer_range=0.02,
        image_size=image_size,
        object_side=_object_side(image_size // clip["patch_size"], crop_tokens),
        dino=DinoConfig(**dino),
    )
    ids = {name: words[word] for name, word in _WORDS.items()}
    config = ClipDinoQwenConfig(text=text, vision=vision, tie_word_embeddings=tied, **ids)
    markers = [ids[name] for name in _MARKERS]
    used = min(words.values())  # added words come after those that text is made of
    tensors = [
        *_clip_tensors(parts["clip"], config),
        *_dino_tensors(parts["dino"], config),
        *_qwen_tensors(parts["qwen"], tied, markers, used),
    ]
    dtype = next(t.spec.dtype for t in tensors if t.spec.name == "model.embed_tokens.weight")
    return config, [*tensors, *_projector(vision, dtype, seed)]


def _object_side(side: int, crop_tokens: int) -> int:
    """Patches along the side of one token of an object that has `crop_tokens` of them."""
    per_side = math.isqrt(crop_tokens) if crop_tokens > 0 else 0
    if per_side == 0 or per_side**2 != crop_tokens or side % per_side:
        can = [str((side // by) ** 2) for by in range(1, side + 1) if side % by == 0]
        raise ValueError(f"crop_tokens={crop_tokens}: of {side}x{side} patches there can be {', '.join(can)}")
    return side // per_side


def _settings(folder: epath.Path) -> dict[str, Any]:
    path = folder / "config.json"
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; expected a Hugging Face folder")
    return textfile.read_json(path)


def _number(settings: Mapping[str, Any], key: str, where: object, default: Any = None) -> Any:
    value = settings.get(key, default)
    if not textfile.is_a(value, int):
        raise ValueError(f"{where}: {key} is {value!r}, expected a whole number")
    return value


def _expect(settings: Mapping[str, Any], where: object, **wanted: Any) -> None:
    """Refuses settings of another kind; a key that is not there has the value that is wanted."""
    for key, value in wanted.items():
        if settings.get(key, value) != value:
            raise ValueError(f"{where}: {key} is {settings[key]!r}, only {value!r} is supported")


def _read_clip(folder: epath.Path, image_size: int) -> dict[str, Any]:
    """Fields of `VisionConfig` from a CLIPModel's or a CLIPVisionModel's settings."""
    where, settings = folder / "config.json", _settings(folder)
    if settings.get("model_type") not in ("clip", "clip_vision_model"):
        raise ValueError(f"{where}: model_type is {settings.get('model_type')!r}, expected that of CLIP")
    settings = settings.get("vision_config", settings)
    _expect(settings, where, hidden_act="quick_gelu", layer_norm_eps=1e-5, num_channels=3)
    trained = _number(settings, "image_size", where)
    if trained != image_size:
        raise ValueError(
            f"{where}: image_size is {trained}, but --image_size={image_size}: CLIP sees its own alone"
        )
    return {
        "depth": _number(settings, "num_hidden_layers", where) - 1,
        "hidden_size": _number(settings, "hidden_size", where),
        "intermediate_size": _number(settings, "intermediate_size", where),
        "num_heads": _number(settings, "num_attention_heads", where),
        "patch_size": _number(settings, "patch_size", where),
    }


def _read_dino(folder: epath.Path, dino_layer: int) -> dict[str, Any]:
    """Fields of `DinoConfig` from a Dinov2Model's settings."""
    where, settings = folder / "config.json", _settings(folder)
    _expect(settings, where, model_type="dinov2", hidden_act="gelu", layer_norm_eps=1e-6, num_channels=3)
    _expect(settings, where, qkv_bias=True, use_swiglu_ffn=False)
    if dino_layer not in (-1, -2):
        raise ValueError(f"dino_layer={dino_layer}: expected -2 or -1")
    width, ratio = _number(settings, "hidden_size", where), settings.get("mlp_ratio", 4)
    size, patch = _number(settings, "image_size", where), _number(settings, "patch_size", where)
    return {
        "depth": _number(settings, "num_hidden_layers", where) + 1 + dino_layer,
        "hidden_size": width,
        "intermediate_size": int(width * ratio),
        "num_heads": _number(settings, "num_attention_heads", where),
        "positions_per_side": size // patch,
        "final_norm": dino_layer == -1,
        "interpolate_offset": 0.0,
    }


def _read_qwen(folder: epath.Path) -> tuple[TextConfig, bool]:
    """The decoder's sizes, and whether its head is its embedding."""
    text = Section(_settings(folder), "config.json", problems=[])
    fields = read_text(text)
    tied = text.field("tie_word_embeddings", bool)
    text.note_unknown()
    if text.problems:
        raise ValueError("\n  ".join([f"{folder}: not a Qwen2 model:", *text.problems]))
    return TextConfig(**fields), tied


def _words(file: epath.Path) -> dict[str, int]:
    """Ids of the words that a tokenizer has beside those of text."""
    if not file.exists():
        raise FileNotFoundError(f"{file} does not exist; expected the tokenizer of Qwen2.5")
    added = {token["content"]: token["id"] for token in textfile.read_json(file).get("added_tokens", ())}
    if missing := [word for word in _WORDS.values() if word not in added]:
        raise ValueError(f"{file} has no {', '.join(missing)}; is it the tokenizer of Qwen2.5?")
    return added


def _copied(name: str, entry: Entry, shape: tuple[int, ...] | None = None) -> Tensor:
    """The tensor of a part under a name of ours."""
    if entry.dtype not in DTYPES:
        raise ValueError(f"{entry.file}: {name} is {entry.dtype}, expected one of {', '.join(DTYPES)}")
    spec = Spec(name, DTYPES[entry.dtype], shape or entry.shape)
    return Tensor(spec, lambda: entry.read(0, math.prod(spec.shape)).reshape(spec.shape))


def _clip_tensors(folder: epath.Path, config: ClipDinoQwenConfig) -> Iterator[Tensor]:
    kept = ("embeddings.", "pre_layrnorm.", "encoder.layers.")
    of_images = {n: e for n, e in find_tensors(folder).items() if not n.startswith(("text_model.", "logit"))}
    for name, entry in of_images.items():
        name = name.removeprefix("vision_model.")
        if name.startswith(kept) and "position_ids" not in name and _layer(name) < config.vision.depth:
            yield _copied(f"clip.{name}", entry)


def _dino_tensors(folder: epath.Path, config: ClipDinoQwenConfig) -> Iterator[Tensor]:
    dino = config.vision.dino
    kept = ("embeddings.", "encoder.layer.") + ("layernorm.",) * dino.final_norm
    flat = {"embeddings.cls_token", "embeddings.position_embeddings"}
    for name, entry in find_tensors(folder).items():
        name = name.removeprefix("dinov2.")
        for theirs, on_the_hub in _DINO_NAMES.items():
            name = name.replace(f".{theirs}.", f".{on_the_hub}.")
        if not name.startswith(kept) or name == "embeddings.mask_token" or _layer(name) >= dino.depth:
            continue
        shape = entry.shape[2:] if name == "embeddings.cls_token" else entry.shape[1:]
        yield _copied(f"dino.{name}", entry, shape if name in flat else None)


def _layer(name: str) -> int:
    """The number of the layer that a tensor belongs to, 0 where it belongs to none."""
    return next((int(part) for part in name.split(".") if part.isdigit()), 0)


def _qwen_tensors(folder: epath.Path, tied: bool, markers: list[int], used: int) -> Iterator[Tensor]:
    for name, entry in find_tensors(folder).items():
        if name == "lm_head.weight" and tied:  # some writers keep a copy of the tied head
            continue
        tensor = _copied(name, entry)
        if name in ("lm_head.weight", "model.embed_tokens.weight"):
            tensor = tensor._replace(make=functools.partial(_with_mean_rows, tensor.make, markers, used))
        yield tensor


def _with_mean_rows(make: Callable[[], np.ndarray], rows: list[int], used: int) -> np.ndarray:
    """A table whose `rows` are the mean of the first `used` ones."""
    table = np.array(make())  # what was read from a file can not be written to
    table[rows] = table[:used].mean(axis=0, dtype=np.float32).astype(table.dtype)
    return table


def _projector(vision: VisionConfig, dtype: np.dtype, seed: int) -> Iterator[Tensor]:
    """As torch.nn.Linear starts: uniform within 1 / sqrt(inputs)."""
    rng = np.random.default_rng(seed)
    joined, out = vision.hidden_size + vision.dino.hidden_size, vision.out_hidden_size
    for layer, inputs in (("fc1", joined), ("fc2", out)):
        bound = 1 / math.sqrt(inputs)
        for name, shape in (("weight", (out, inputs)), ("bias", (out,))):
            values = rng.uniform(-bound, bound, shape).astype(dtype)
            yield Tensor(
                Spec(f"projector.{layer}.{name}", dtype, shape), functools.partial(np.asarray, values)
            )
