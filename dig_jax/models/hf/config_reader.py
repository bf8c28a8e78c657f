"""Reading config.json key by key, for all families: what is missing, unknown or not supported is one error.

A key that nobody has heard of may well change the model, so it is an error. Two layouts are read: that of hub
checkpoints, written by transformers 4 (`rope_theta` and `rope_scaling`), and that of transformers 5
(`rope_parameters`).
"""

import dataclasses
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
    "chunk_size_feed_forward": (0,),
    "cross_attention_hidden_size": (None,),
    "is_decoder": (False,),
    "is_encoder_decoder": (False,),
    "pruned_heads": ({},),
    "quantization_config": (None,),
    "tie_encoder_decoder": (False,),
}

_NOTHING: Mapping[str, Any] = {}


class Section:
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

    def section(self, key: str) -> "Section":
        """The object under `key`, which has to be there."""
        self.known.add(key)
        if key not in self.values:
            raise ValueError(
                f"{self.where}: missing key {key!r}; expected the config.json of a vision-language model"
            )
        where = key if self.where == "config.json" else f"{self.where}.{key}"
        return Section(self.values[key], where, self.problems)

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

    def fields(
        self, cls: type, *, but: Sequence[str] = (), defaults: Mapping[str, Any] = _NOTHING
    ) -> dict[str, Any]:
        """A value for every field of the dataclass `cls`, except those named in `but`.

        `defaults` has the values of keys that need not be there.
        """
        self.known |= defaults.keys()
        return {
            f.name: defaults[f.name]
            if f.name in defaults and f.name not in self.values
            else self.field(f.name, f.type)
            for f in dataclasses.fields(cls)
            if f.name not in but
        }

    def check_generic_keys(self, architecture: str) -> None:
        """The keys that any model's configuration may have; `architecture` is the class of this one."""
        self.known |= IGNORED_KEYS
        self.allow("architectures", [architecture], None)
        for key, values in NEUTRAL_VALUES.items():
            self.allow(key, *values)
        self.agree("torch_dtype", self.values.get("dtype"), "dtype, its newer name,")

    def note_unknown(self) -> None:
        for key in sorted(self.values.keys() - self.known):
            of_experts = "expert" in key or key.startswith(("moe_", "router_", "mlp_only", "decoder_sparse"))
            self.note(
                f"{key} belongs to a mixture of experts, which is not supported"
                if of_experts
                else f"unknown key {key!r}; it may change the model; remove it if it can not"
            )


def check_tower_rope(vision: Section) -> None:
    """The rotary embedding of a tower, which newer files spell out and none changes."""
    if vision.values.get("rope_parameters") is not None:
        rope = vision.section("rope_parameters")
        rope.allow("rope_type", "axial", "default")
        rope.allow("rope_theta", 10_000.0)
        rope.note_unknown()
    vision.known.add("rope_parameters")


def rope_settings(text: Section) -> Section:
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
    return Section(merged, f"text_config.{names[0] if names else 'rope_parameters'}", text.problems)
