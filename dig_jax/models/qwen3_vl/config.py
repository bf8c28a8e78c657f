"""Qwen3-VL configuration: what a checkpoint's config.json says, checked once on the way in.

Field names are those of Hugging Face. Two layouts of config.json are read: that of the hub checkpoints
(transformers 4.57: `rope_theta` and `rope_scaling` in text_config) and that of transformers 5
(`rope_parameters`). The second is written.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class VisionConfig:
    """The vision tower. `deepstack_visual_indexes` are the blocks whose output is also fed to the decoder."""

    depth: int
    hidden_size: int
    intermediate_size: int
    num_heads: int
    in_channels: int
    patch_size: int
    temporal_patch_size: int
    spatial_merge_size: int
    out_hidden_size: int
    num_position_embeddings: int
    deepstack_visual_indexes: tuple[int, ...]
    initializer_range: float

    def __post_init__(self) -> None:
        _require(self.depth >= 1, "vision_config.depth", self.depth, "at least 1")
        _require(
            self.hidden_size % self.num_heads == 0 and self.head_dim % 4 == 0,
            "vision_config.hidden_size",
            self.hidden_size,
            f"num_heads ({self.num_heads}) times a multiple of 4",
        )
        _require(
            self.positions_per_side**2 == self.num_position_embeddings,
            "vision_config.num_position_embeddings",
            self.num_position_embeddings,
            "a square number",
        )
        taps = self.deepstack_visual_indexes
        _require(
            list(taps) == sorted(set(taps)) and all(0 <= i < self.depth for i in taps),
            "vision_config.deepstack_visual_indexes",
            taps,
            f"increasing block numbers below depth ({self.depth})",
        )

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_heads

    @property
    def patch_dim(self) -> int:
        """Values in one flattened patch: channels x frames x height x width."""
        return self.in_channels * self.temporal_patch_size * self.patch_size**2

    @property
    def merge_unit(self) -> int:
        """Patches per image token."""
        return self.spatial_merge_size**2

    @property
    def positions_per_side(self) -> int:
        return math.isqrt(self.num_position_embeddings)


@dataclasses.dataclass(frozen=True)
class TextConfig:
    """The decoder. `mrope_section` counts the rotary frequencies for time, height and width."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    rms_norm_eps: float
    rope_theta: float
    mrope_section: tuple[int, int, int]
    max_position_embeddings: int
    initializer_range: float

    def __post_init__(self) -> None:
        _require(self.num_hidden_layers >= 1, "text_config.num_hidden_layers", self.num_hidden_layers, ">= 1")
        _require(
            self.num_attention_heads % self.num_key_value_heads == 0,
            "text_config.num_attention_heads",
            self.num_attention_heads,
            f"a multiple of num_key_value_heads ({self.num_key_value_heads})",
        )
        _require(
            len(self.mrope_section) == 3 and 2 * sum(self.mrope_section) == self.head_dim,
            "mrope_section",
            self.mrope_section,
            f"three numbers that sum to head_dim / 2 ({self.head_dim / 2:g})",
        )


@dataclasses.dataclass(frozen=True)
class Qwen3VLConfig:
    """A dense Qwen3-VL model."""

    text: TextConfig
    vision: VisionConfig
    image_token_id: int
    video_token_id: int
    vision_start_token_id: int
    vision_end_token_id: int
    tie_word_embeddings: bool

    def __post_init__(self) -> None:
        _require(
            self.vision.out_hidden_size == self.text.hidden_size,
            "vision_config.out_hidden_size",
            self.vision.out_hidden_size,
            f"text_config.hidden_size ({self.text.hidden_size})",
        )
        _require(
            len(self.vision.deepstack_visual_indexes) <= self.text.num_hidden_layers,
            "vision_config.deepstack_visual_indexes",
            self.vision.deepstack_visual_indexes,
            f"no more entries than text_config.num_hidden_layers ({self.text.num_hidden_layers})",
        )

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> "Qwen3VLConfig":
        """Reads the content of a config.json.

        Raises:
          ValueError: naming the key, when one is missing or asks for something this model does not do.
        """
        _expect(config, "model_type", "qwen3_vl", "config.json")
        text, vision = _get(config, "text_config"), _get(config, "vision_config")
        _expect(text, "hidden_act", "silu", "text_config")
        _expect(text, "attention_bias", False, "text_config")
        _expect(vision, "hidden_act", "gelu_pytorch_tanh", "vision_config")
        tied = config.get("tie_word_embeddings", text.get("tie_word_embeddings"))
        if tied is None:
            raise ValueError("config.json: missing key 'tie_word_embeddings'")
        return cls(
            text=TextConfig(**_fields(TextConfig, {**text, **_rope(text)}, "text_config")),
            vision=VisionConfig(**_fields(VisionConfig, vision, "vision_config")),
            image_token_id=_get(config, "image_token_id"),
            video_token_id=_get(config, "video_token_id"),
            vision_start_token_id=_get(config, "vision_start_token_id"),
            vision_end_token_id=_get(config, "vision_end_token_id"),
            tie_word_embeddings=tied,
        )

    def to_dict(self) -> dict[str, Any]:
        """The content of a config.json that transformers 5 loads, and `from_dict` reads back."""
        text, vision = dataclasses.asdict(self.text), dataclasses.asdict(self.vision)
        rope = {
            "rope_type": "default",
            "rope_theta": text.pop("rope_theta"),
            "mrope_section": list(text.pop("mrope_section")),
            "mrope_interleaved": True,
        }
        vision["deepstack_visual_indexes"] = list(vision["deepstack_visual_indexes"])
        return {
            "architectures": ["Qwen3VLForConditionalGeneration"],
            "model_type": "qwen3_vl",
            "image_token_id": self.image_token_id,
            "video_token_id": self.video_token_id,
            "vision_start_token_id": self.vision_start_token_id,
            "vision_end_token_id": self.vision_end_token_id,
            "tie_word_embeddings": self.tie_word_embeddings,
            "text_config": {
                **text,
                "model_type": "qwen3_vl_text",
                "hidden_act": "silu",
                "attention_bias": False,
                "attention_dropout": 0.0,
                "use_cache": True,
                "rope_parameters": rope,
            },
            "vision_config": {**vision, "model_type": "qwen3_vl_vision", "hidden_act": "gelu_pytorch_tanh"},
        }


def _rope(text: Mapping[str, Any]) -> dict[str, Any]:
    """rope_theta and mrope_section from either layout of text_config."""
    if "rope_parameters" in text:
        where, rope = "text_config.rope_parameters", text["rope_parameters"]
        theta = _get(rope, "rope_theta", where)
    else:
        where, rope = "text_config.rope_scaling", _get(text, "rope_scaling", "text_config")
        theta = _get(text, "rope_theta", "text_config")
    if rope is None:
        raise ValueError(f"{where} is null; expected the M-RoPE settings of a Qwen3-VL checkpoint")
    _expect(rope, "rope_type", "default", where)
    _expect(rope, "mrope_interleaved", True, where)
    return {"rope_theta": theta, "mrope_section": _get(rope, "mrope_section", where)}


def _fields(cls: type, values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The entries of `values` that `cls` declares, lists as tuples."""
    found = {field.name: _get(values, field.name, where) for field in dataclasses.fields(cls)}
    return {name: tuple(v) if isinstance(v, list) else v for name, v in found.items()}


def _get(config: Mapping[str, Any], key: str, where: str = "config.json") -> Any:
    if key not in config:
        raise ValueError(f"{where}: missing key {key!r}; expected the config.json of a Qwen3-VL checkpoint")
    return config[key]


def _expect(config: Mapping[str, Any], key: str, value: Any, where: str) -> None:
    found = _get(config, key, where)
    if found != value:
        raise ValueError(f"{where}: {key} is {found!r}, but only {value!r} is supported")


def _require(ok: bool, key: str, value: Any, expected: str) -> None:
    if not ok:
        raise ValueError(f"{key} is {value!r}, expected {expected}")
