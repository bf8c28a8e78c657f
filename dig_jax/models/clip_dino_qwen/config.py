"""The configuration of TinyGroundingGPT: two towers that see the same squares, and a Qwen2 decoder.

The paper released no code and no weights, so config.json is of our making: `text_config` is that of
transformers' `Qwen2Config`, `vision_config` has the CLIP tower, and in `dino` the other one. Towers count the
layers that there are: published ones have one more, whose output is not used and which is left out.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Self

from dig_jax.models import architecture
from dig_jax.models.architecture import Architecture, TextConfig, require
from dig_jax.models.hf.config_reader import Section, rope_settings

CLASS = "TinyGroundingGPTForConditionalGeneration"  # there is none of that name in transformers


@dataclasses.dataclass(frozen=True)
class DinoConfig:
    """The DINOv2 tower.

    Attributes:
      depth: layers whose output is used; one less than published with `final_norm` False.
      hidden_size, intermediate_size, num_heads: widths.
      positions_per_side: of its square table of positions, which is stretched over the patches of an image.
      final_norm: the last layer is read, through the norm after it, instead of the one before.
      interpolate_offset: 0 stretches as transformers does; 0.1 as the original code, by a factor that is not
        quite that of the sizes.
    """

    depth: int
    hidden_size: int
    intermediate_size: int
    num_heads: int
    positions_per_side: int
    final_norm: bool
    interpolate_offset: float

    def __post_init__(self) -> None:
        for field in ("depth", "hidden_size", "intermediate_size", "num_heads", "positions_per_side"):
            require(
                getattr(self, field) > 0, f"vision_config.dino.{field}", getattr(self, field), "1 or more"
            )
        require(
            self.hidden_size % self.num_heads == 0,
            "vision_config.dino.hidden_size",
            self.hidden_size,
            f"a multiple of num_heads ({self.num_heads})",
        )
        require(
            0 <= self.interpolate_offset < 1,
            "vision_config.dino.interpolate_offset",
            self.interpolate_offset,
            "0 or more, less than 1",
        )


@dataclasses.dataclass(frozen=True)
class VisionConfig(architecture.VisionConfig):
    """Both towers. The sizes of `architecture.VisionConfig` are CLIP's.

    Attributes:
      image_size: side in pixels of the square that every image is brought to.
      object_side: patches along the side of one token of an object; of an image, a token is one patch.
      dino: the other tower.
    """

    image_size: int
    object_side: int
    dino: DinoConfig

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            (self.spatial_merge_size, self.temporal_patch_size) == (1, 1),
            "vision_config.spatial_merge_size, temporal_patch_size",
            (self.spatial_merge_size, self.temporal_patch_size),
            "1 and 1: a patch is a token",
        )
        require(
            self.image_size % self.patch_size == 0,
            "vision_config.image_size",
            self.image_size,
            f"a multiple of patch_size ({self.patch_size})",
        )
        require(
            self.side % self.object_side == 0,
            "vision_config.object_side",
            self.object_side,
            f"a divisor of the {self.side} patches along the side of an image",
        )

    @property
    def side(self) -> int:
        """Patches along the side of an image."""
        return self.image_size // self.patch_size

    @property
    def head_dims(self) -> tuple[int, ...]:
        """See `architecture.VisionConfig`."""
        return self.head_dim, self.dino.hidden_size // self.dino.num_heads

    @property
    def fixed_side(self) -> int:
        """See `architecture.VisionConfig`."""
        return self.image_size


@dataclasses.dataclass(frozen=True)
class ClipDinoQwenConfig(Architecture):
    """A TinyGroundingGPT model."""

    flat_positions = True

    vision: VisionConfig
    object_start_token_id: int
    object_pad_token_id: int
    object_end_token_id: int

    def __post_init__(self) -> None:
        super().__post_init__()
        markers = [
            getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name.endswith("_token_id")
        ]
        require(
            len(set(markers)) == len(markers) and max(markers) < self.text.vocab_size,
            "the ids of image and object tokens",
            tuple(markers),
            f"different words below text_config.vocab_size ({self.text.vocab_size})",
        )
        require(
            self.text.mrope_section == one_dimensional(self.text.head_dim),
            "mrope_section",
            self.text.mrope_section,
            "all frequencies for the first axis: positions count along the text",
        )

    @property
    def object_token_id(self) -> int:
        """See `Architecture.object_token_id`."""
        return self.object_pad_token_id

    @property
    def placeholders(self) -> Mapping[int, int]:
        """See `Architecture.placeholders`."""
        return {self.image_token_id: 1, self.object_pad_token_id: self.vision.object_side}

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> Self:
        """See `Architecture.from_dict`."""
        top = Section(config, "config.json", problems=[])
        top.require("model_type", "clip_dino_qwen")
        text, vision = top.section("text_config"), top.section("vision_config")
        dino = vision.section("dino")
        fields = top.fields(cls, but=("text", "vision"))
        text_fields = read_text(text)
        vision.require("model_type", "clip_dino")
        vision.require("hidden_act", "quick_gelu")
        dino.require("hidden_act", "gelu")
        vision_fields, dino_fields = vision.fields(VisionConfig, but=("dino",)), dino.fields(DinoConfig)
        top.check_generic_keys(CLASS)
        for section in (top, text, vision, dino):
            section.note_unknown()
        if top.problems:
            raise ValueError(
                "\n  ".join(["not the configuration of a TinyGroundingGPT model:", *top.problems])
            )
        towers = VisionConfig(dino=DinoConfig(**dino_fields), **vision_fields)
        return cls(text=TextConfig(**text_fields), vision=towers, **fields)

    def with_layers(self, layers: int) -> Self:
        """See `Architecture.with_layers`."""
        dino = dataclasses.replace(self.vision.dino, depth=layers)
        return dataclasses.replace(
            self,
            text=dataclasses.replace(self.text, num_hidden_layers=layers),
            vision=dataclasses.replace(self.vision, depth=layers, dino=dino),
        )

    def to_dict(self) -> dict[str, Any]:
        """See `Architecture.to_dict`."""
        written = self._as_dict(
            CLASS,
            rope={},
            text={"model_type": "qwen2"},
            vision={"model_type": "clip_dino", "hidden_act": "quick_gelu"},
        )
        del written["text_config"]["rope_parameters"]["mrope_section"]
        written["vision_config"]["dino"]["hidden_act"] = "gelu"
        return written | {"model_type": "clip_dino_qwen"}


def one_dimensional(head_dim: int) -> tuple[int, int, int]:
    """The `mrope_section` of plain rotary embedding."""
    return head_dim // 2, 0, 0


def read_text(text: Section) -> dict[str, Any]:
    """The fields of `TextConfig` from the settings of a Qwen2 model, as transformers 4 or 5 writes them."""
    text.require("model_type", "qwen2")
    text.require("hidden_act", "silu")
    text.allow("attention_dropout", 0)
    text.allow("use_sliding_window", False)
    text.known |= {"sliding_window", "max_window_layers"}  # of no effect without it
    if "layer_types" in text.values:
        kinds = set(text.values["layer_types"] or ())
        if kinds - {"full_attention"}:
            text.note(f"layer_types has {', '.join(sorted(kinds))}; only full_attention is supported")
        text.known.add("layer_types")
    rope = rope_settings(text)
    rope.allow("rope_type", "default")
    fields: dict[str, Any] = {"rope_theta": rope.field("rope_theta", float)}
    rope.note_unknown()
    fields |= text.fields(TextConfig, but=("rope_theta", "mrope_section", "head_dim"))
    text.check_generic_keys("Qwen2ForCausalLM")
    text.known.add("tie_word_embeddings")
    head_dim = text.values.get("head_dim")
    text.known.add("head_dim")
    if head_dim is None and fields["hidden_size"] and fields["num_attention_heads"]:
        head_dim = fields["hidden_size"] // fields["num_attention_heads"]
    return fields | {"head_dim": head_dim, "mrope_section": one_dimensional(head_dim or 2)}
