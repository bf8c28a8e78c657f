"""Our model beside transformers' with the same weights: how the parity tests make both, run both and compare.

The models are random, with attention far from uniform, and with norms and biases off their initial ones and
zeros, so that none of them can be ignored unnoticed. Logits have a standard deviation of about a half.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from dig_jax.models.families import layouts
from dig_jax.models.inputs import Prompts
from dig_jax.models.qwen3_vl.config import Qwen3VLConfig
from dig_jax.models.qwen3_vl.model import Qwen3VL
from dig_jax.models.qwen3_vl.published import architecture
from tests.models.conftest import Example, PromptMaker, Reference

LOGITS_TOLERANCE = 1e-5  # absolute
GRADIENT_TOLERANCE = 1e-4  # relative L2, per tensor


def small_config(
    *,
    text_layers: int = 4,
    width: int = 64,
    heads: int = 4,
    kv_heads: int = 2,
    head_dim: int = 32,
    mrope_section: tuple[int, int, int] = (6, 5, 5),
    depth: int = 6,
    vision_width: int = 48,
    vision_heads: int = 4,
    taps: tuple[int, ...] = (1, 2, 4),
    positions: int = 36,
    patch_size: int = 8,
    tied: bool = False,
) -> Qwen3VLConfig:
    """A model of half a million parameters whose dimensions differ, so that a mix-up shows.

    The last four words of the vocabulary stand for images; tests draw text below 300.
    """
    return architecture("2B").resized(
        text={
            "vocab_size": 320,
            "hidden_size": width,
            "intermediate_size": width + 48,
            "num_hidden_layers": text_layers,
            "num_attention_heads": heads,
            "num_key_value_heads": kv_heads,
            "head_dim": head_dim,
            "mrope_section": mrope_section,
            "initializer_range": 0.5 * width**-0.5,
        },
        vision={
            "depth": depth,
            "hidden_size": vision_width,
            "intermediate_size": vision_width + 32,
            "num_heads": vision_heads,
            "patch_size": patch_size,
            "num_position_embeddings": positions,
            "deepstack_visual_indexes": taps,
            "initializer_range": vision_width**-0.5,
        },
        tied=tied,
    )


# Few and many layers and taps, text and vision of different depths, tied and not, several ratios of query to
# key heads, tables of positions larger and smaller than the images, patches of three sizes.
CONFIGS = {
    "three taps": small_config(),
    "one tap, tied": small_config(
        text_layers=2,
        width=80,
        heads=6,
        kv_heads=1,
        head_dim=16,
        mrope_section=(4, 2, 2),
        depth=3,
        vision_width=40,
        vision_heads=5,
        taps=(2,),
        positions=49,
        patch_size=16,
        tied=True,
    ),
    "five taps": small_config(
        text_layers=7,
        width=56,
        heads=3,
        kv_heads=3,
        head_dim=24,
        mrope_section=(4, 4, 4),
        depth=5,
        vision_width=32,
        vision_heads=2,
        taps=(0, 1, 2, 3, 4),
        positions=16,
        patch_size=4,
    ),
}
MORE_CONFIGS = {
    "no taps": small_config(text_layers=3, depth=4, taps=(), kv_heads=4, tied=True),
    "one layer and one block": small_config(text_layers=1, depth=1, taps=(0,), heads=8, kv_heads=2),
    "as many taps as layers": small_config(text_layers=4, depth=9, taps=(0, 3, 4, 8), positions=121),
    "wide heads": small_config(heads=2, kv_heads=1, head_dim=128, mrope_section=(24, 20, 20), vision_heads=1),
}

# 143 million parameters, with the depths, heads and taps of the 2B model.
MID_CONFIG = architecture("2B").resized(
    text={
        "vocab_size": 8192,
        "hidden_size": 512,
        "intermediate_size": 1280,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "initializer_range": 0.5 * 512**-0.5,
    },
    vision={
        "hidden_size": 384,
        "intermediate_size": 1024,
        "num_heads": 8,
        "initializer_range": 384**-0.5,
    },
)
MID_ROWS = [([(12, 20), (14, 10)], 60), ([(20, 14)], 30)]  # images, and words of text before them
MID_BUCKET = {"prompt_length": 192, "num_patches": 384}

# Images of the three rows of a batch, in patches: (rows, columns).
BATCHES = {
    "text only": [[], [], []],
    "one image": [[(4, 6)], [(14, 2)], [(6, 10)]],
    "two images": [[(4, 6), (10, 2)], [(2, 2), (6, 6)], [(2, 18), (4, 2)]],
    "three images": [[(4, 6), (2, 8), (6, 4)], [(2, 2), (6, 2), (2, 10)], [(10, 2), (2, 4), (4, 4)]],
    "unequal rows": [[(4, 6), (2, 8), (6, 4)], [], [(2, 14)]],
}


def random_model(
    config: Qwen3VLConfig, *, dtype: Any = jnp.float32, weights: Any = jnp.float32, seed: int = 0
) -> Qwen3VL:
    """A model that computes in `dtype`, with float32 parameters whose values fit `weights`.

    Drawn by NumPy: compiling twenty random number generators would take longer than a test.
    """
    abstract = nnx.eval_shape(lambda: Qwen3VL(config, rngs=nnx.Rngs(0), dtype=dtype))
    graphdef, _ = nnx.split(abstract)
    rng = np.random.default_rng(seed)
    drawn = []
    for path, variable in nnx.to_flat_state(nnx.state(abstract, nnx.Param)):
        noise = rng.standard_normal(variable.shape).astype(np.float32)
        if path[-1] in ("scale", "bias"):
            value = (path[-1] == "scale") + 0.1 * noise
        else:
            part = config.vision if path[0] == "vision" else config.text
            value = part.initializer_range * noise
        drawn.append((path, variable.replace(jnp.asarray(value).astype(weights).astype(jnp.float32))))
    return nnx.merge(graphdef, nnx.from_flat_state(drawn))


def checkpoint(params: nnx.State, config: Qwen3VLConfig) -> dict[str, np.ndarray]:
    """Parameters, or their gradients, under the names of a checkpoint."""
    tensors: dict[str, np.ndarray] = {}
    plan = layouts(params, config)
    for path, variable in nnx.to_flat_state(params):
        layout, array = plan[path], np.asarray(variable.get_value())
        layers = array if layout.stacked else array[None]
        tensors |= {name: layout.to_file(layer) for name, layer in zip(layout.names, layers, strict=True)}
    return tensors


def reference_of(model: Qwen3VL, dtype: str = "float32") -> Reference:
    """transformers' model with the weights of `model`, for computing in `dtype`."""
    torch = pytest.importorskip("torch")
    from transformers import AutoModelForImageTextToText
    from transformers import Qwen3VLConfig as TheirConfig

    torch.set_num_threads(1)
    config = TheirConfig.from_dict(model.config.to_dict())
    theirs = AutoModelForImageTextToText.from_config(config, dtype=getattr(torch, dtype))
    tensors = checkpoint(nnx.state(model, nnx.Param), model.config)
    if model.config.tie_word_embeddings:
        tensors["lm_head.weight"] = tensors["model.language_model.embed_tokens.weight"]
    theirs.load_state_dict({name: torch.tensor(array) for name, array in tensors.items()})
    return Reference(torch, theirs.eval())


@dataclasses.dataclass
class Case:
    """A configuration on both sides."""

    model: Qwen3VL
    reference: Reference

    @property
    def make(self) -> PromptMaker:
        return PromptMaker(self.model.config)

    def examples(self, batch: str, seed: int = 0) -> list[Example]:
        """Rows of 3, 8 and 13 words of text and the images of `BATCHES`."""
        return [
            self.make.example(grids, text=3 + 5 * row, seed=seed + row)
            for row, grids in enumerate(BATCHES[batch])
        ]

    def mid_examples(self) -> list[Example]:
        """The batch for the model of `MID_CONFIG`."""
        return [self.make.example(grids, text=text, seed=text) for grids, text in MID_ROWS]


@functools.cache
def case(name: str) -> Case:
    """One of `CONFIGS` or `MORE_CONFIGS`, made once for all tests."""
    model = random_model((CONFIGS | MORE_CONFIGS)[name])
    return Case(model, reference_of(model))


@dataclasses.dataclass
class Outcome:
    """Of a run on a batch of examples."""

    logits: list[np.ndarray]  # [T,V] of every example, without padding
    loss: float  # mean negative log-probability of every next token
    gradients: dict[str, np.ndarray]  # of the loss, under the names of a checkpoint


@jax.jit
def _logits_loss_and_gradients(model: Qwen3VL, prompts: Prompts, weights: jax.Array) -> Any:
    graphdef, params = nnx.split(model, nnx.Param)

    def loss(params: nnx.State) -> tuple[jax.Array, jax.Array]:
        merged = nnx.merge(graphdef, params)
        logits = merged.logits(merged(prompts)[0])
        logprobs = jax.nn.log_softmax(logits[:, :-1])
        chosen = jnp.take_along_axis(logprobs, prompts.tokens[:, 1:, None], axis=-1)[..., 0]
        return -jnp.sum(chosen * weights), logits

    (value, logits), gradients = jax.value_and_grad(loss, has_aux=True)(params)
    return logits, value, gradients


def run_ours(model: Qwen3VL, prompts: Prompts) -> Outcome:
    real = np.arange(1, prompts.tokens.shape[1]) < prompts.length[:, None]
    weights = (real / real.sum()).astype(np.float32)
    logits, loss, gradients = _logits_loss_and_gradients(model, prompts, weights)
    rows = [row[:length] for row, length in zip(np.asarray(logits), prompts.length, strict=True)]
    return Outcome(rows, float(loss), checkpoint(gradients, model.config))


def run_theirs(reference: Reference, examples: Sequence[Example]) -> Outcome:
    """Logits at padding are left out of the loss too: eager and fused attention differ there."""
    torch = reference.torch
    reference.model.zero_grad()
    logits = reference.forward(*examples).float()
    rows = [row[-len(example.ids) :] for row, example in zip(logits, examples, strict=True)]
    targets = torch.tensor(np.concatenate([example.ids[1:] for example in examples]), dtype=torch.long)
    loss = torch.nn.functional.cross_entropy(torch.cat([row[:-1] for row in rows]), targets)
    loss.backward()
    gradients = {
        name: np.zeros(p.shape, np.float32) if p.grad is None else p.grad.float().numpy()
        for name, p in reference.model.named_parameters()
    }
    return Outcome([row.detach().numpy() for row in rows], loss.item(), gradients)


def check_logits(ours: Sequence[Any], theirs: Sequence[np.ndarray]) -> None:
    """The gate of the parity tests: logits [T,V] of every example, ours perhaps with padding after them."""
    errors = [np.abs(np.asarray(a)[: len(b)] - b).max() for a, b in zip(ours, theirs, strict=True)]
    assert max(errors) < LOGITS_TOLERANCE, f"logits differ by {max(errors):.1e}"


def check_gradients(ours: Mapping[str, np.ndarray], theirs: Mapping[str, np.ndarray]) -> None:
    """The gate for gradients, tensor by tensor; where theirs are zero (no image), so must ours be."""
    assert ours.keys() == theirs.keys()
    norms = {name: np.linalg.norm(gradient) or np.float32(1e-30) for name, gradient in theirs.items()}
    errors = {name: np.linalg.norm(ours[name] - theirs[name]) / norms[name] for name in theirs}
    worst = max(errors, key=lambda name: errors[name])
    assert errors[worst] < GRADIENT_TOLERANCE, f"the gradient of {worst} differs by {errors[worst]:.1e}"
