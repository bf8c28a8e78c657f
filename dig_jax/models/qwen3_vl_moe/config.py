"""Configuration of Qwen3-VL with a mixture of experts, in both layouts of config.json.

That of the hub checkpoints (transformers 4.57) has `num_experts`, that of transformers 5 `num_local_experts`.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Self

from dig_jax.models.architecture import MoETextConfig
from dig_jax.models.hf.config_reader import Section
from dig_jax.models.qwen3_vl.config import Qwen3VLConfig, VisionConfig, read_text, read_vision


@dataclasses.dataclass(frozen=True)
class Qwen3VLMoeConfig(Qwen3VLConfig):
    """A Qwen3-VL model all of whose decoder layers have experts."""

    text: MoETextConfig

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> Self:
        """See `Architecture.from_dict`."""
        top = Section(config, "config.json", problems=[])
        top.require("model_type", "qwen3_vl_moe")
        text, vision = top.section("text_config"), top.section("vision_config")
        fields = top.fields(cls, but=("text", "vision"))
        text_fields = _read_experts(text) | read_text(text, "qwen3_vl_moe_text")
        vision_fields = read_vision(vision, "qwen3_vl_moe_vision", "qwen3_vl_moe")
        # transformers 5 writes true here, the default of the class, into files of models that are not tied.
        # It goes by the top level, and so do we: what stands here means nothing.
        text.known.add("tie_word_embeddings")
        for section in (top, text, vision):
            section.check_generic_keys("Qwen3VLMoeForConditionalGeneration")
            section.note_unknown()
        if top.problems:
            raise ValueError(
                "\n  ".join(["not the configuration of a Qwen3-VL model with experts:", *top.problems])
            )
        return cls(text=MoETextConfig(**text_fields), vision=VisionConfig(**vision_fields), **fields)

    def to_dict(self) -> dict[str, Any]:
        """See `Architecture.to_dict`."""
        written = super().to_dict()
        written["text_config"] |= {
            "model_type": "qwen3_vl_moe_text",
            "norm_topk_prob": True,
            "decoder_sparse_step": 1,
            "mlp_only_layers": [],
            "tie_word_embeddings": self.tie_word_embeddings,
        }
        written["vision_config"]["model_type"] = "qwen3_vl_moe_vision"
        written |= {"model_type": "qwen3_vl_moe", "architectures": ["Qwen3VLMoeForConditionalGeneration"]}
        # Experts are written as transformers 5 has them where their shape does not tell (`hf.experts`).
        return written | ({"transformers_version": "5.0.0"} if self.text.square_experts else {})


def _read_experts(text: Section) -> dict[str, Any]:
    """What `MoETextConfig` has beside `TextConfig`; other keys must say what this model does."""
    text.allow("norm_topk_prob", True)  # transformers normalises whatever it says
    # Layer i has experts if i is not in mlp_only_layers and decoder_sparse_step divides i + 1. All layers of
    # the released models have; ours are stacked, and have to be alike.
    text.allow("decoder_sparse_step", 1)
    text.allow("mlp_only_layers", [], None)
    text.allow("sliding_window", None)
    # How to train: `config.moe` says that here.
    text.known |= {"router_aux_loss_coef", "output_router_logits"}
    name = "num_experts" if "num_experts" in text.values else "num_local_experts"
    count = text.field(name, int)
    text.agree("num_local_experts", count, name)
    names = ("num_experts_per_tok", "moe_intermediate_size")
    return {"num_experts": count} | {name: text.field(name, int) for name in names}
