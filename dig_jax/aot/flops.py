"""Floating-point operations of a model's phases, counted from its architecture.

The compiler's own count takes the body of a loop once, and layers, micro-batches and slices of the head are
loops; kernels it does not count at all. A multiply-add is two operations; norms, softmax and other
element-wise work are left out, as is usual, and so are the products of adapters (3.6% at rank 64 and 4B).
Of experts, those are counted that a token goes through, and no others.

Shape letters: P prompt tokens, N patches of one prompt, G completions per prompt, R response tokens.
"""

from collections.abc import Set

from dig_jax.aot.inputs import Workload
from dig_jax.models import families
from dig_jax.models.architecture import Architecture


def vision_forward(architecture: Architecture, patches: int, images: int) -> float:
    """Of the vision tower, for one prompt whose N patches belong to equal images."""
    return 2 * families.of(architecture).vision_products(architecture.vision, patches, images)


def layer_products(architecture: Architecture) -> float:
    """Multiply-adds of a token with all weights of the decoder's layers."""
    text = architecture.text
    heads = 2 * text.num_attention_heads + 2 * text.num_key_value_heads
    attention = text.hidden_size * text.head_dim * heads
    return text.num_hidden_layers * (attention + text.mlp_products)


def head_products(architecture: Architecture) -> float:
    """Multiply-adds of a token with the output head."""
    return architecture.text.hidden_size * architecture.text.vocab_size


def seen(architecture: Architecture, pairs: float) -> float:
    """Multiply-adds of attention for so many (query token, visible key token) pairs, in all layers."""
    text = architecture.text
    return text.num_hidden_layers * 2 * text.num_attention_heads * text.head_dim * pairs


def prefill(architecture: Architecture, work: Workload) -> float:
    """Of reading one prompt: vision tower, decoder, and the head on its last token."""
    length = work.bucket.prompt_length
    products = length * layer_products(architecture) + seen(architecture, length * (length + 1) / 2)
    images = vision_forward(architecture, work.bucket.num_patches, work.images)
    return images + 2 * (products + head_products(architecture))


def decode(architecture: Architecture, context: float) -> float:
    """Of one more token of one completion, which sees `context` tokens."""
    products = layer_products(architecture) + head_products(architecture) + seen(architecture, context)
    return 2 * products


def forward(architecture: Architecture, work: Workload) -> float:
    """Of one prompt and its G responses of R tokens, with the log-probs of those."""
    images = vision_forward(architecture, work.bucket.num_patches, work.images)
    return images + 2 * (_weight_products(architecture, work) + _attention_products(architecture, work))


def update(architecture: Architecture, work: Workload, trained: Set[str], adapters: bool) -> float:
    """Of `forward` and its backward pass.

    That has two products for each one of the forward pass, the gradients of both factors, but for weights
    that stay as they are, and for a vision tower in which nothing is trained.

    Args:
        architecture: of the model.
        work: of the update.
        trained: parts of the model (`freeze.PARTS`) with trained parameters.
        adapters: those are adapters alone.
    """
    with_weights = 2 if adapters else 3
    tower = with_weights if "vision" in trained else 1
    decoder = with_weights if "text" in trained else 2
    images = vision_forward(architecture, work.bucket.num_patches, work.images)
    products = decoder * _weight_products(architecture, work) + 3 * _attention_products(architecture, work)
    return tower * images + 2 * products


def _weight_products(architecture: Architecture, work: Workload) -> float:
    """Multiply-adds of the decoder and its head with weights, for a prompt and its responses."""
    responses = work.group * work.response
    tokens, learnt = work.bucket.prompt_length + responses, responses + work.earlier
    return tokens * layer_products(architecture) + learnt * head_products(architecture)


def _attention_products(architecture: Architecture, work: Workload) -> float:
    """Multiply-adds of the decoder's attention, for a prompt and its responses."""
    length, group, tokens = work.bucket.prompt_length, work.group, work.response
    visible = length * (length + 1) / 2 + group * (tokens * length + tokens * (tokens + 1) / 2)
    return seen(architecture, visible)
