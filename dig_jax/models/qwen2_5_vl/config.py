"""Qwen2.5-VL configuration: what a checkpoint's config.json says, checked once on the way in.

Three layouts are read: the flat one of the hub checkpoints, whose text keys stand at the top (transformers
4.41); that of later 4.x versions, which has them there and in `text_config`; and that of transformers 5,
`text_config` alone with `rope_parameters`, which is written. Field names are those of Hugging Face.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Self

from dig_jax.models import architecture
from dig_jax.models.architecture import Architecture, TextConfig, require
from dig_jax.models.hf.config_reader import Section, check_tower_rope, rope_settings

# What transformers takes where a key is not there: 4.49 leaves out of `vision_config` what is as here. These
# are the released sizes' values, too, but for `tokens_per_second`, 2 there.
_VISION_DEFAULTS: Mapping[str, Any] = {
    "depth": 32,
    "intermediate_size": 3420,
    "num_heads": 16,
    "in_channels": 3,
    "patch_size": 14,
    "temporal_patch_size": 2,
    "spatial_merge_size": 2,
    "out_hidden_size": 3584,
    "window_size": 112,
    "fullatt_block_indexes": (7, 15, 23, 31),
    "tokens_per_second": 4,
    "initializer_range": 0.02,
}


@dataclasses.dataclass(frozen=True)
class VisionConfig(architecture.VisionConfig):
    """The vision tower.

    Most blocks attend inside windows of `window_size` pixels, those of `fullatt_block_indexes` to the whole
    image. `tokens_per_second` is for videos, which are not supported; it is kept for the files we write.
    """

    window_size: int
    fullatt_block_indexes: tuple[int, ...]
    tokens_per_second: int

    def __post_init__(self) -> None:
        super().__post_init__()
        side = self.patch_size * self.spatial_merge_size
        require(
            self.window_size % side == 0,
            "vision_config.window_size",
            self.window_size,
            f"a multiple of patch_size times spatial_merge_size ({side})",
        )
        full = self.fullatt_block_indexes
        require(
            list(full) == sorted(set(full)) and all(0 <= i < self.depth for i in full),
            "vision_config.fullatt_block_indexes",
            full,
            f"increasing block numbers below depth ({self.depth})",
        )

    @property
    def window(self) -> int:
        """Patches along the side of a window."""
        return self.window_size // self.patch_size


@dataclasses.dataclass(frozen=True)
class Qwen2_5VLConfig(Architecture):
    """A Qwen2.5-VL model."""

    vision: VisionConfig

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.text.head_dim * self.text.num_attention_heads == self.text.hidden_size,
            "hidden_size",
            self.text.hidden_size,
            f"num_attention_heads ({self.text.num_attention_heads}) times head_dim ({self.text.head_dim})",
        )

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> Self:
        """See `Architecture.from_dict`."""
        top = Section(config, "config.json", problems=[])
        top.require("model_type", "qwen2_5_vl")
        vision = top.section("vision_config")
        text = top.section("text_config") if "text_config" in config else top
        fields = top.fields(cls, but=("text", "vision"))
        text_fields, vision_fields = _read_text(text), _read_vision(vision)
        if text is not top:
            _compare(top, text)
        for section in dict.fromkeys((top, text, vision)):
            section.check_generic_keys("Qwen2_5_VLForConditionalGeneration")
            section.known.add("vision_token_id")  # of no use to the model
            section.note_unknown()
        if top.problems:
            raise ValueError("\n  ".join(["not the configuration of a Qwen2.5-VL model:", *top.problems]))
        head_dim = text_fields["hidden_size"] // max(1, text_fields["num_attention_heads"])
        return cls(
            text=TextConfig(head_dim=head_dim, **text_fields), vision=VisionConfig(**vision_fields), **fields
        )

    def with_layers(self, layers: int) -> Self:
        """See `Architecture.with_layers`; the last block of the tower attends to the whole image."""
        full = tuple(i for i in self.vision.fullatt_block_indexes if i < layers) or (layers - 1,)
        return dataclasses.replace(
            self,
            text=dataclasses.replace(self.text, num_hidden_layers=layers),
            vision=dataclasses.replace(self.vision, depth=layers, fullatt_block_indexes=full),
        )

    def to_dict(self) -> dict[str, Any]:
        """See `Architecture.to_dict`."""
        written = self._as_dict(
            "Qwen2_5_VLForConditionalGeneration",
            rope={},
            text={
                "model_type": "qwen2_5_vl_text",
                "bos_token_id": None,  # else transformers takes those of the real vocabulary
                "eos_token_id": None,
                "use_sliding_window": False,
            },
            vision={"model_type": "qwen2_5_vl_vision", "hidden_act": "silu"},
        )
        del written["text_config"]["head_dim"]
        return written | {"model_type": "qwen2_5_vl"}


def _read_text(text: Section) -> dict[str, Any]:
    """The fields of `TextConfig` but head_dim, from the top of the file or from its text_config."""
    if text.where != "config.json":
        text.allow("model_type", "qwen2_5_vl_text")
        text.known.add("tie_word_embeddings")  # what counts stands at the top
    text.require("hidden_act", "silu")
    text.allow("attention_dropout", 0)
    text.allow("use_sliding_window", False)
    text.known |= {"sliding_window", "max_window_layers"}  # of no effect without
    kinds = text.values.get("layer_types") or ()
    if any(kind != "full_attention" for kind in kinds):
        text.note(f"layer_types is {kinds!r}, but only 'full_attention' is supported")
    text.known.add("layer_types")
    rope = rope_settings(text)
    if "rope_type" in rope.values or "type" not in rope.values:
        rope.require("rope_type", "default")
    rope.allow("type", "mrope", "default")  # the name of rope_type in older files, and its value for it
    fields = {
        "rope_theta": rope.field("rope_theta", float),
        "mrope_section": rope.field("mrope_section", tuple),
    }
    rope.note_unknown()
    return fields | text.fields(TextConfig, but=(*fields, "head_dim"))


def _read_vision(vision: Section) -> dict[str, Any]:
    """The fields of `VisionConfig`."""
    vision.allow("model_type", "qwen2_5_vl_vision", "qwen2_5_vl")
    vision.allow("hidden_act", "silu")
    vision.known |= {"spatial_patch_size", "tie_word_embeddings"}
    check_tower_rope(vision)
    fields = vision.fields(VisionConfig, defaults=_VISION_DEFAULTS)
    vision.agree("in_chans", fields["in_channels"], "in_channels")  # its name on the hub
    return fields


def _compare(top: Section, text: Section) -> None:
    """Some 4.x versions write text keys twice, and ids of tokens into text_config: they have to agree."""
    tokens = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    for key in tokens:
        text.agree(key, top.values.get(key), "config.json")
    twice = (text.known & top.values.keys()) - top.known
    for key in sorted(twice - {"rope_scaling", "rope_parameters", "layer_types", "sliding_window"}):
        top.agree(key, text.values.get(key), "text_config")
    top.known |= twice
