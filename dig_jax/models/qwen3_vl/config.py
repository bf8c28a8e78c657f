"""Qwen3-VL configuration: what a checkpoint's config.json says, checked once on the way in.

Field names are those of Hugging Face. Two layouts of config.json are read: that of the hub checkpoints
(transformers 4.57: `rope_theta` and `rope_scaling` in text_config) and that of transformers 5
(`rope_parameters`). The second is written. A key that this module has never heard of may well change the
model, so it is an error. Instruct and Thinking checkpoints of one size have the same config.json.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from dig_jax.machines import textfile

# Keys that transformers 4.57 to 5.23 write for any kind of model, without effect on what this one computes.
# The weights have the dtype of their files whatever is said here (saving a converted model, transformers 5
# leaves a stale one in the parts), and decoding has its settings in generation_config.json.
IGNORED_KEYS = frozenset(
    """
    transformers_version dtype torch_dtype _name_or_path _commit_hash _attn_implementation_autoset
    use_cache return_dict output_attentions output_hidden_states torchscript tf_legacy_loss use_bfloat16
    bos_token_id eos_token_id pad_token_id sep_token_id decoder_start_token_id tokenizer_class prefix
    id2label label2id problem_type finetuning_task task_specific_params
    max_length min_length do_sample early_stopping num_beams num_beam_groups diversity_penalty temperature
    top_k top_p typical_p repetition_penalty length_penalty no_repeat_ngram_size encoder_no_repeat_ngram_size
    bad_words_ids num_return_sequences output_scores return_dict_in_generate remove_invalid_values
    forced_bos_token_id forced_eos_token_id suppress_tokens begin_suppress_tokens
    exponential_decay_length_penalty unsloth_fixed unsloth_version
    """.split()  # noqa: SIM905 (as a list of strings it would fill a screen)
)

# Keys of the same kind that would change it, with the values that do not.
NEUTRAL_VALUES: Mapping[str, tuple[Any, ...]] = {
    "add_cross_attention": (False,),
    "architectures": (["Qwen3VLForConditionalGeneration"], None),
    "chunk_size_feed_forward": (0,),
    "cross_attention_hidden_size": (None,),
    "is_decoder": (False,),
    "is_encoder_decoder": (False,),
    "pruned_heads": ({},),
    "quantization_config": (None,),
    "tie_encoder_decoder": (False,),
}


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
        _require_positive(self, "vision_config")
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
        _require_positive(self, "text_config")
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
        tokens = (
            self.image_token_id,
            self.video_token_id,
            self.vision_start_token_id,
            self.vision_end_token_id,
        )
        _require(
            len(set(tokens)) == 4 and all(0 <= token < self.text.vocab_size for token in tokens),
            "image_token_id, video_token_id, vision_start_token_id, vision_end_token_id",
            tokens,
            f"four different words below text_config.vocab_size ({self.text.vocab_size})",
        )

    def resized(
        self, *, text: Mapping[str, Any], vision: Mapping[str, Any], tied: bool | None = None
    ) -> "Qwen3VLConfig":
        """The same model in another size.

        Args:
          text, vision: the fields that change. Image features follow the width of the decoder; with another
            vocabulary, its last four words stand for images.
          tied: whether the head is the embedding; None leaves that.

        Raises:
          ValueError: the fields contradict each other.
        """
        decoder = dataclasses.replace(self.text, **text)
        tower = dataclasses.replace(self.vision, **{"out_hidden_size": decoder.hidden_size, **vision})
        changes: dict[str, Any] = {"text": decoder, "vision": tower}
        if decoder.vocab_size != self.text.vocab_size:
            names = ("vision_start_token_id", "vision_end_token_id", "image_token_id", "video_token_id")
            changes |= zip(names, range(decoder.vocab_size - 4, decoder.vocab_size), strict=True)
        if tied is not None:
            changes["tie_word_embeddings"] = tied
        return dataclasses.replace(self, **changes)

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> "Qwen3VLConfig":
        """Reads the content of a config.json.

        Raises:
          ValueError: naming every key that is missing, unknown, contradicts another or asks for something
            that this model does not do.
        """
        top = _Section(config, "config.json", problems=[])
        model_type = config.get("model_type")
        if model_type != "qwen3_vl":
            raise ValueError(
                f"config.json: model_type is {model_type!r}, but only 'qwen3_vl' is supported: the dense "
                "Qwen3-VL models of 2B, 4B, 8B and 32B"
            )
        top.require("model_type", "qwen3_vl")
        text, vision = top.section("text_config"), top.section("vision_config")
        fields = top.fields(cls, but=("text", "vision"))
        text_fields, vision_fields = _read_text(text), _read_vision(vision)
        text.agree("tie_word_embeddings", fields["tie_word_embeddings"], "config.json")
        for section in (top, text, vision):
            section.check_generic_keys()
            section.note_unknown()
        if top.problems:
            raise ValueError("\n  ".join(["not the configuration of a dense Qwen3-VL model:", *top.problems]))
        return cls(text=TextConfig(**text_fields), vision=VisionConfig(**vision_fields), **fields)

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


class _Section:
    """One object of a config.json, read key by key; what nobody has asked for in the end is unknown.

    Problems are noted in a list that the sections of a file share, so that all are reported at once. A value
    read with a problem is None.
    """

    def __init__(self, values: Any, where: str, problems: list[str]) -> None:
        if not isinstance(values, Mapping):
            raise ValueError(f"{where} is {values!r}, expected an object in braces")
        self.values, self.where, self.problems = values, where, problems
        self.known: set[str] = set()

    def note(self, problem: str) -> None:
        self.problems.append(f"{self.where}: {problem}")

    def section(self, key: str) -> "_Section":
        """The object under `key`, which has to be there."""
        self.known.add(key)
        if key not in self.values:
            raise ValueError(
                f"{self.where}: missing key {key!r}; expected the config.json of a Qwen3-VL model"
            )
        where = key if self.where == "config.json" else f"{self.where}.{key}"
        return _Section(self.values[key], where, self.problems)

    def require(self, key: str, *supported: Any) -> None:
        """Notes a problem unless the key is there with one of these values."""
        if key in self.values:
            self.allow(key, *supported)
        else:
            self.note(f"missing key {key!r}")

    def allow(self, key: str, *supported: Any) -> None:
        """Notes a problem if the key is there with another value than these."""
        self.known.add(key)
        value = self.values.get(key, supported[0])
        if value not in supported:
            self.note(f"{key} is {value!r}, but only {' or '.join(map(repr, supported))} is supported")

    def agree(self, key: str, other: Any, whose: str) -> None:
        """Notes a problem if the key is there with another value than `other`; None says nothing."""
        self.known.add(key)
        if other is not None and self.values.get(key) not in (None, other):
            self.note(f"{key} is {self.values[key]!r}, but {whose} has {other!r}")

    def field(self, key: str, kind: Any) -> Any:
        """The value of a key that has to be there, a list as a tuple."""
        self.known.add(key)
        if key not in self.values:
            return self.note(f"missing key {key!r}")
        value = self.values[key]
        kind = kind if kind in textfile.KINDS else tuple  # of a field: tuple[int, ...]
        if not textfile.is_a(value, kind):
            return self.note(f"{key} is {value!r}, expected {textfile.KINDS[kind]}")
        return tuple(value) if isinstance(value, list) else value

    def fields(self, cls: type, *, but: Sequence[str] = ()) -> dict[str, Any]:
        """A value for every field of the dataclass `cls`, except those named in `but`."""
        return {f.name: self.field(f.name, f.type) for f in dataclasses.fields(cls) if f.name not in but}

    def check_generic_keys(self) -> None:
        """The keys that any model's configuration may have."""
        self.known |= IGNORED_KEYS
        for key, values in NEUTRAL_VALUES.items():
            self.allow(key, *values)
        self.agree("torch_dtype", self.values.get("dtype"), "dtype, its newer name,")

    def note_unknown(self) -> None:
        for key in sorted(self.values.keys() - self.known):
            of_experts = "expert" in key or key.startswith(("moe_", "router_", "mlp_only", "decoder_sparse"))
            self.note(
                f"{key} belongs to a mixture of experts (model_type 'qwen3_vl_moe'), which is not supported"
                if of_experts
                else f"unknown key {key!r}; it may change the model; remove it if it can not"
            )


def _read_text(text: _Section) -> dict[str, Any]:
    """The fields of `TextConfig`."""
    text.allow("model_type", "qwen3_vl_text")
    text.require("hidden_act", "silu")
    text.require("attention_bias", False)
    text.allow("attention_dropout", 0)
    rope = _rope_settings(text)
    rope.require("rope_type", "default")
    rope.allow("type", "default")  # the name of rope_type in older files
    rope.require("mrope_interleaved", True)
    settings = {
        "rope_theta": rope.field("rope_theta", float),
        "mrope_section": rope.field("mrope_section", tuple),
    }
    rope.note_unknown()
    return settings | text.fields(TextConfig, but=tuple(settings))


def _rope_settings(text: _Section) -> _Section:
    """rope_parameters, or rope_scaling with rope_theta; where a file has both layouts they have to agree."""
    merged: dict[str, Any] = {}
    origin: dict[str, str] = {}

    def merge(values: Mapping[str, Any], where: str) -> None:
        for key, value in values.items():
            if merged.setdefault(key, value) != value:
                text.note(f"{where}{key} is {value!r}, but {origin[key]}{key} is {merged[key]!r}")
            origin.setdefault(key, where)

    text.known |= {"rope_parameters", "rope_scaling", "rope_theta"}
    names = [name for name in ("rope_parameters", "rope_scaling") if text.values.get(name) is not None]
    for name in names:
        merge(text.section(name).values, f"{name}.")
    if "rope_theta" in text.values:
        merge({"rope_theta": text.values["rope_theta"]}, "")
    return _Section(merged, f"text_config.{names[0] if names else 'rope_parameters'}", text.problems)


def _read_vision(vision: _Section) -> dict[str, Any]:
    """The fields of `VisionConfig`."""
    vision.allow("model_type", "qwen3_vl_vision", "qwen3_vl")
    vision.require("hidden_act", "gelu_pytorch_tanh")
    vision.known.add("tie_word_embeddings")  # transformers 4.57 gives one to every part
    if vision.values.get("rope_parameters") is not None:
        rope = vision.section("rope_parameters")
        rope.allow("rope_type", "axial", "default")
        rope.allow("rope_theta", 10_000.0)
        rope.note_unknown()
    vision.known.add("rope_parameters")
    return vision.fields(VisionConfig)


def _require_positive(config: Any, where: str) -> None:
    """All plain numbers of a part are sizes, counts or scales."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        _require(field.type not in (int, float) or value > 0, f"{where}.{field.name}", value, "more than 0")


def _require(ok: bool, key: str, value: Any, expected: str) -> None:
    if not ok:
        raise ValueError(f"{key} is {value!r}, expected {expected}")
