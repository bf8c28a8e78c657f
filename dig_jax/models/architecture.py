"""What the configurations of all families have in common: the decoder, a tower of patches, and their tokens.

A family derives its configuration from `Architecture` and its tower's from `VisionConfig`. Field names are
those of Hugging Face; a configuration is checked once, when it is made.
"""

import abc
import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Self

# Of images in the vocabulary that Qwen's vision-language models share.
QWEN_TOKENS: Mapping[str, int] = {
    "image_token_id": 151655,
    "video_token_id": 151656,
    "vision_start_token_id": 151652,
    "vision_end_token_id": 151653,
}


@dataclasses.dataclass(frozen=True)
class VisionConfig:
    """A vision tower over square patches, `spatial_merge_size` squared of which become an image token."""

    depth: int
    hidden_size: int
    intermediate_size: int
    num_heads: int
    in_channels: int
    patch_size: int
    temporal_patch_size: int
    spatial_merge_size: int
    out_hidden_size: int
    initializer_range: float

    def __post_init__(self) -> None:
        require_positive(self, "vision_config")
        require(
            self.hidden_size % self.num_heads == 0 and self.head_dim % 4 == 0,
            "vision_config.hidden_size",
            self.hidden_size,
            f"num_heads ({self.num_heads}) times a multiple of 4",
        )

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_heads

    @property
    def head_dims(self) -> tuple[int, ...]:
        """Sizes of the heads of all its attention layers."""
        return (self.head_dim,)

    @property
    def fixed_side(self) -> int | None:
        """The side in pixels that every image is brought to; None: images keep their own sizes."""
        return None

    @property
    def patch_dim(self) -> int:
        """Values in one flattened patch: channels x frames x height x width."""
        return self.in_channels * self.temporal_patch_size * self.patch_size**2

    @property
    def merge_unit(self) -> int:
        """Patches per image token."""
        return self.spatial_merge_size**2


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
        require_positive(self, "text_config")
        require(
            self.num_attention_heads % self.num_key_value_heads == 0,
            "text_config.num_attention_heads",
            self.num_attention_heads,
            f"a multiple of num_key_value_heads ({self.num_key_value_heads})",
        )
        require(
            len(self.mrope_section) == 3 and 2 * sum(self.mrope_section) == self.head_dim,
            "mrope_section",
            self.mrope_section,
            f"three numbers that sum to head_dim / 2 ({self.head_dim / 2:g})",
        )

    @property
    def mlp_products(self) -> int:
        """Multiply-adds of a token with the weights of the MLP of one layer."""
        return 3 * self.hidden_size * self.intermediate_size


@dataclasses.dataclass(frozen=True)
class MoETextConfig(TextConfig):
    """A decoder whose MLPs are mixtures of experts; `intermediate_size` is that of no layer.

    Attributes:
      num_experts: of a layer.
      num_experts_per_tok: that each token goes through.
      moe_intermediate_size: inner width of an expert.
    """

    num_experts: int
    num_experts_per_tok: int
    moe_intermediate_size: int

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.num_experts_per_tok <= self.num_experts,
            "text_config.num_experts_per_tok",
            self.num_experts_per_tok,
            f"at most num_experts ({self.num_experts})",
        )

    @property
    def mlp_products(self) -> int:
        """See `TextConfig`: the router, and the experts of the token alone."""
        expert = 3 * self.hidden_size * self.moe_intermediate_size
        return self.hidden_size * self.num_experts + self.num_experts_per_tok * expert

    @property
    def square_experts(self) -> bool:
        """Whether a matrix of the experts is square: its shape does not tell in which order a file has it."""
        return self.hidden_size in (self.moe_intermediate_size, 2 * self.moe_intermediate_size)


@dataclasses.dataclass(frozen=True)
class Architecture(abc.ABC):
    """A model of text and images.

    `flat_positions`: the tokens of an image count up like words, and not by rows and columns.
    """

    flat_positions: ClassVar[bool] = False

    text: TextConfig
    vision: VisionConfig
    image_token_id: int
    video_token_id: int
    vision_start_token_id: int
    vision_end_token_id: int
    tie_word_embeddings: bool

    def __post_init__(self) -> None:
        require(
            self.vision.out_hidden_size == self.text.hidden_size,
            "vision_config.out_hidden_size",
            self.vision.out_hidden_size,
            f"text_config.hidden_size ({self.text.hidden_size})",
        )
        tokens = (
            self.image_token_id,
            self.video_token_id,
            self.vision_start_token_id,
            self.vision_end_token_id,
        )
        require(
            len(set(tokens)) == 4 and all(0 <= token < self.text.vocab_size for token in tokens),
            "image_token_id, video_token_id, vision_start_token_id, vision_end_token_id",
            tokens,
            f"four different words below text_config.vocab_size ({self.text.vocab_size})",
        )

    @property
    def object_token_id(self) -> int | None:
        """The word that an image shown as an object stands at (`data.example.Object`); None: none is."""
        return None

    @property
    def placeholders(self) -> Mapping[int, int]:
        """The words that images stand at, each with the patches along the side of one image token there."""
        return {self.image_token_id: self.vision.spatial_merge_size}

    @classmethod
    @abc.abstractmethod
    def from_dict(cls, config: Mapping[str, Any]) -> Self:
        """Reads the content of a config.json.

        Raises:
          ValueError: naming every key that is missing, unknown, contradicts another or asks for something
            that this model does not do.
        """

    @abc.abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """The content of a config.json that transformers 5 loads, and `from_dict` reads back."""

    @abc.abstractmethod
    def with_layers(self, layers: int) -> Self:
        """The same widths with so many layers in decoder and vision tower.

        Raises:
          ValueError: the model can not have so few.
        """

    def _as_dict(
        self, name: str, *, text: dict[str, Any], vision: dict[str, Any], rope: dict[str, Any]
    ) -> dict[str, Any]:
        """A config.json of transformers 5: what any family writes, and what its own sections add or change.

        Args:
          name: of the model's class there.
          text, vision, rope: of text_config, vision_config and rope_parameters of the first.
        """
        decoder = dataclasses.asdict(self.text)
        rope = {
            "rope_type": "default",
            "rope_theta": decoder.pop("rope_theta"),
            "mrope_section": list(decoder.pop("mrope_section")),
            **rope,
        }
        decoder |= {"hidden_act": "silu", "attention_dropout": 0.0, "use_cache": True}
        tops = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name not in ("text", "vision")
        }
        return {
            "architectures": [name],
            **tops,
            "text_config": decoder | {"rope_parameters": rope} | text,
            "vision_config": _lists(dataclasses.asdict(self.vision) | vision),
        }

    def resized(
        self, *, text: Mapping[str, Any], vision: Mapping[str, Any], tied: bool | None = None
    ) -> Self:
        """The same model in another size.

        Args:
          text, vision: the fields that change. Image features follow the width of the decoder; with another
            vocabulary, its last words stand for images.
          tied: whether the head is the embedding; None leaves that.

        Raises:
          ValueError: the fields contradict each other.
        """
        decoder = dataclasses.replace(self.text, **text)
        tower = dataclasses.replace(self.vision, **{"out_hidden_size": decoder.hidden_size, **vision})
        changes: dict[str, Any] = {"text": decoder, "vision": tower}
        if decoder.vocab_size != self.text.vocab_size:
            tokens = ("vision_start_token_id", "vision_end_token_id", "image_token_id", "video_token_id")
            more = {field.name for field in dataclasses.fields(self) if field.name.endswith("_token_id")}
            names = (*sorted(more - set(tokens)), *tokens)
            last = range(decoder.vocab_size - len(names), decoder.vocab_size)
            changes |= zip(names, last, strict=True)
        if tied is not None:
            changes["tie_word_embeddings"] = tied
        return dataclasses.replace(self, **changes)


def _lists(settings: Mapping[str, Any]) -> dict[str, Any]:
    """As JSON reads it back."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in settings.items()}


def require_positive(config: Any, where: str) -> None:
    """All plain numbers of a part are sizes, counts or scales.

    Raises:
      ValueError: naming the one that is not.
    """
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        require(field.type not in (int, float) or value > 0, f"{where}.{field.name}", value, "more than 0")


def require(ok: bool, key: str, value: Any, expected: str) -> None:
    """Raises a ValueError about `key` unless `ok`."""
    if not ok:
        raise ValueError(f"{key} is {value!r}, expected {expected}")
