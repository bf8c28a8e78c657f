"""The architectures of the published Qwen3-VL models with experts, for work that needs no weights."""

import dataclasses

from dig_jax.models.architecture import MoETextConfig
from dig_jax.models.qwen3_vl import published
from dig_jax.models.qwen3_vl_moe.config import Qwen3VLMoeConfig

# Width, layers, query heads, inner width of an expert, and of the MLP that no layer has.
_SIZES: dict[str, tuple[int, int, int, int, int]] = {
    "30B-A3B": (2048, 48, 32, 768, 6144),
    "235B-A22B": (4096, 94, 64, 1536, 12288),
}
SIZES = tuple(_SIZES)


def architecture(size: str) -> Qwen3VLMoeConfig:
    """The architecture of Qwen3-VL-`size`; the tower is that of the 8B.

    Raises:
      ValueError: there is no published model with experts of that size.
    """
    if size not in _SIZES:
        raise ValueError(
            f"no published Qwen3-VL architecture with experts is called {size!r}: give {', '.join(_SIZES)}"
        )
    width, layers, heads, expert, inner = _SIZES[size]
    dense = published.architecture("8B")
    same = {field.name: getattr(dense.text, field.name) for field in dataclasses.fields(dense.text)}
    text = MoETextConfig(
        **same
        | {
            "hidden_size": width,
            "intermediate_size": inner,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": 4,
        },
        num_experts=128,
        num_experts_per_tok=8,
        moe_intermediate_size=expert,
    )
    tops = {field.name: getattr(dense, field.name) for field in dataclasses.fields(dense)}
    tower = dataclasses.replace(dense.vision, out_hidden_size=width)
    return Qwen3VLMoeConfig(**tops | {"text": text, "vision": tower})
