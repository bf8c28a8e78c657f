"""The architectures of the published dense Qwen3-VL models, for work that needs no weights.

Instruct and Thinking models of a size are alike. A checkpoint's own config.json is what counts wherever there
is one.
"""

from dig_jax.models.architecture import QWEN_TOKENS, TextConfig
from dig_jax.models.qwen3_vl.config import Qwen3VLConfig, VisionConfig

# Text: width, MLP width, layers, query heads, tied head. Vision: width, MLP width, depth, DeepStack blocks.
_SIZES: dict[str, tuple[tuple[int, int, int, int, bool], tuple[int, int, int, tuple[int, ...]]]] = {
    "2B": ((2048, 6144, 28, 16, True), (1024, 4096, 24, (5, 11, 17))),
    "4B": ((2560, 9728, 36, 32, True), (1024, 4096, 24, (5, 11, 17))),
    "8B": ((4096, 12288, 36, 32, False), (1152, 4304, 27, (8, 16, 24))),
    "32B": ((5120, 25600, 64, 64, False), (1152, 4304, 27, (8, 16, 24))),
}
SIZES = tuple(_SIZES)


def architecture(size: str) -> Qwen3VLConfig:
    """The architecture of Qwen3-VL-`size`.

    Raises:
      ValueError: there is no published dense model of that size.
    """
    if size not in _SIZES:
        raise ValueError(f"no published Qwen3-VL architecture is called {size!r}: give {', '.join(_SIZES)}")
    (width, inner, layers, heads, tied), (vision_width, vision_inner, depth, taps) = _SIZES[size]
    text = TextConfig(
        vocab_size=151936,
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=8,
        head_dim=128,
        rms_norm_eps=1e-6,
        rope_theta=5e6,
        mrope_section=(24, 20, 20),
        max_position_embeddings=262144,
        initializer_range=0.02,
    )
    vision = VisionConfig(
        depth=depth,
        hidden_size=vision_width,
        intermediate_size=vision_inner,
        num_heads=16,
        in_channels=3,
        patch_size=16,
        temporal_patch_size=2,
        spatial_merge_size=2,
        out_hidden_size=width,
        num_position_embeddings=2304,
        deepstack_visual_indexes=taps,
        initializer_range=0.02,
    )
    return Qwen3VLConfig(
        text=text,
        vision=vision,
        tie_word_embeddings=tied,
        **QWEN_TOKENS,
    )
