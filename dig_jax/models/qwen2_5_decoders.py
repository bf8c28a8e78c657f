"""The published decoders of Qwen2.5: several families are built on them."""

from dig_jax.models.architecture import TextConfig

# Width, MLP width, layers, query and key/value heads, vocabulary, tied head.
_SIZES: dict[str, tuple[int, int, int, int, int, int, bool]] = {
    "1.5B": (1536, 8960, 28, 12, 2, 151936, True),
    "3B": (2048, 11008, 36, 16, 2, 151936, True),
    "7B": (3584, 18944, 28, 28, 4, 152064, False),
    "32B": (5120, 27648, 64, 40, 8, 152064, False),
    "72B": (8192, 29568, 80, 64, 8, 152064, False),
}


def decoder(
    size: str, *, mrope_section: tuple[int, int, int], max_position_embeddings: int
) -> tuple[TextConfig, bool]:
    """The decoder of Qwen2.5-`size`, and whether its head is its embedding.

    Args:
      size: such as "3B".
      mrope_section, max_position_embeddings: those of the family.
    """
    width, inner, layers, heads, kv_heads, vocab, tied = _SIZES[size]
    text = TextConfig(
        vocab_size=vocab,
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=128,
        rms_norm_eps=1e-6,
        rope_theta=1e6,
        mrope_section=mrope_section,
        max_position_embeddings=max_position_embeddings,
        initializer_range=0.02,
    )
    return text, tied
