"""Qwen3-VL configuration: what a checkpoint's config.json says, checked once on the way in.

Field names are those of Hugging Face. Two layouts of config.json are read: that of the hub checkpoints
(transformers 4.57: `rope_theta` and `rope_scaling` in text_config) and that of transformers 5
(`rope_parameters`). The second is written. A key that this module has never heard of may well change the
model, so it is an error. Instruct and Thinking checkpoints of one size have the same config.json.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Self

from dig_jax.models import architecture
from dig_jax.models.architecture import Architecture, TextConfig, require
from dig_jax.models.hf.config_reader import Section, check_tower_rope, rope_settings


@dataclasses.dataclass(frozen=True)
class VisionConfig(architecture.VisionConfig):
    """The vision tower. `deepstack_visual_indexes` are the blocks whose output is also fed to the decoder."""

    num_position_embeddings: int
    deepstack_visual_indexes: tuple[int, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.positions_per_side**2 == self.num_position_embeddings,
            "vision_config.num_position_embeddings",
            self.num_position_embeddings,
            "a square number",
        )
        taps = self.deepstack_visual_indexes
        require(
            list(taps) == sorted(set(taps)) and all(0 <= i < self.depth for i in taps),
            "vision_config.deepstack_visual_indexes",
            taps,
            f"increasing block numbers below depth ({self.depth})",
        )

    @property
    def positions_per_side(self) -> int:
        return math.isqrt(self.num_position_embeddings)


@dataclasses.dataclass(frozen=True)
class Qwen3VLConfig(Architecture):
    """A dense Qwen3-VL model."""

    vision: VisionConfig

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            len(self.vision.deepstack_visual_indexes) <= self.text.num_hidden_layers,
            "vision_config.deepstack_visual_indexes",
            self.vision.deepstack_visual_indexes,
            f"no more entries than text_config.num_hidden_layers ({self.text.num_hidden_layers})",
        )

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> Self:
        """See `Architecture.from_dict`."""
        top = Section(config, "config.json", problems=[])
        top.require("model_type", "qwen3_vl")
        text, vision = top.section("text_config"), top.section("vision_config")
        fields = top.fields(cls, but=("text", "vision"))
        text_fields = read_text(text, "qwen3_vl_text")
        vision_fields = read_vision(vision, "qwen3_vl_vision", "qwen3_vl")
        text.agree("tie_word_embeddings", fields["tie_word_embeddings"], "config.json")
        for section in (top, text, vision):
            section.check_generic_keys("Qwen3VLForConditionalGeneration")
            section.note_unknown()
        if top.problems:
            raise ValueError("\n  ".join(["not the configuration of a dense Qwen3-VL model:", *top.problems]))
        return cls(text=TextConfig(**text_fields), vision=VisionConfig(**vision_fields), **fields)

    def with_layers(self, layers: int) -> Self:
        """See `Architecture.with_layers`; the first layers get the DeepStack features."""
        taps = len(self.vision.deepstack_visual_indexes)
        if layers < taps:
            raise ValueError(f"expected at least {taps}, one per DeepStack feature")
        return dataclasses.replace(
            self,
            text=dataclasses.replace(self.text, num_hidden_layers=layers),
            vision=dataclasses.replace(
                self.vision, depth=layers, deepstack_visual_indexes=tuple(range(taps))
            ),
        )

    def to_dict(self) -> dict[str, Any]:
        """See `Architecture.to_dict`."""
        written = self._as_dict(
            "Qwen3VLForConditionalGeneration",
            rope={"mrope_interleaved": True},
            text={"model_type": "qwen3_vl_text", "attention_bias": False},
            vision={"model_type": "qwen3_vl_vision", "hidden_act": "gelu_pytorch_tanh"},
        )
        return written | {"model_type": "qwen3_vl"}


def read_text(text: Section, model_type: str) -> dict[str, Any]:
    """The fields of `TextConfig`."""
    text.allow("model_type", model_type)
    text.require("hidden_act", "silu")
    text.require("attention_bias", False)
    text.allow("attention_dropout", 0)
    rope = rope_settings(text)
    rope.require("rope_type", "default")
    rope.allow("type", "default")  # the name of rope_type in older files
    rope.require("mrope_interleaved", True)
    settings = {
        "rope_theta": rope.field("rope_theta", float),
        "mrope_section": rope.field("mrope_section", tuple),
    }
    rope.note_unknown()
    return settings | text.fields(TextConfig, but=tuple(settings))


def read_vision(vision: Section, *model_types: str) -> dict[str, Any]:
    """The fields of `VisionConfig`."""
    vision.allow("model_type", *model_types)
    vision.require("hidden_act", "gelu_pytorch_tanh")
    vision.known.add("tie_word_embeddings")  # transformers 4.57 gives one to every part
    check_tower_rope(vision)
    return vision.fields(VisionConfig)
