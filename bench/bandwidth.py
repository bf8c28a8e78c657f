"""How much of a GPU's memory bandwidth decoding reaches.

A decoding step computes little and reads much: every weight of decoder and head once, and the keys and values
of all tokens so far. The time that takes at the memory's peak is the least a step can take.
"""

import jax

from bench.peaks import PEAKS
from dig_jax.models.nn.multimodal import VisionLanguageModel


def weight_bytes(model: VisionLanguageModel) -> int:
    """Bytes of the weights that every decoding step reads: decoder layers, final norm and output head.

    The vision tower has done its work, and of an embedding table that is not the head a step reads only the
    rows of its tokens.
    """
    read = [model.text.layers, model.text.norm, model.text.embedding if model.head is None else model.head]
    leaves = [leaf for part in read for leaf in jax.tree.leaves(part)]
    return sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)


def cache_bytes(model: VisionLanguageModel, prompt_length: int, group: int, step: int) -> int:
    """Bytes of keys and values that step number `step` has to read: one prompt, shared, and G responses.

    Args:
      model: gives the layers, heads and the dtype of the cache.
      prompt_length: tokens of the prompt.
      group: G.
      step: tokens that each response has in the cache.
    """
    text = model.config.text
    per_token = 2 * text.num_hidden_layers * text.num_key_value_heads * text.head_dim
    return per_token * (prompt_length + group * step) * jax.numpy.dtype(model.dtype).itemsize


def mean_step_bytes(model: VisionLanguageModel, prompt_length: int, group: int, new_tokens: int) -> float:
    """Bytes per step, on the average of the steps that draw tokens 1 to `new_tokens` - 1."""
    steps = range(new_tokens - 1)
    caches = sum(cache_bytes(model, prompt_length, group, step) for step in steps) / len(steps)
    return weight_bytes(model) + caches


def describe(step_bytes: float, step_seconds: float, device_kind: str) -> str:
    """The bandwidth reached, and its share of the device's peak where that is known."""
    reached = step_bytes / step_seconds
    text = f"{step_bytes / 1e6:,.0f} MB per decoding step, {reached / 1e9:,.0f} GB/s"
    peak = PEAKS.get(device_kind)
    if peak is None:
        return f"{text} (no peak known for {device_kind!r}: add it to bench/peaks.py)"
    return f"{text}, {reached / peak.bandwidth:.0%} of the {peak.bandwidth / 1e9:,.0f} GB/s of {device_kind}"
