"""Our model beside transformers' with the same weights: how the parity tests make both, run both and compare.

The models are random, with attention far from uniform, and with norms and biases off their initial ones and
zeros, so that none of them can be ignored unnoticed. Logits have a standard deviation of about a half.
"""

import dataclasses
import functools
import importlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from dig_jax.models import families
from dig_jax.models.architecture import Architecture
from dig_jax.models.inputs import Prompts
from dig_jax.models.nn.multimodal import VisionLanguageModel
from dig_jax.models.nn.routing import Routing
from tests.models.conftest import Example, PromptMaker, Reference

LOGITS_TOLERANCE = 1e-5  # absolute
GRADIENT_TOLERANCE = 1e-4  # relative L2, per tensor

# Programs that run a few times: the CPU's compiler takes half as long where it optimises nothing.
QUICK = {"xla_backend_optimization_level": 0}

# The room of tests of each family; its `configs` has small models, and where transformers has no class for
# the whole of one, a `make_reference`.
ROOMS = {
    family.model_type: importlib.import_module(f"tests.models.{family.model_type}.configs")
    for family in families.FAMILIES
}
CONFIGS: dict[str, Architecture] = {n: c for room in ROOMS.values() for n, c in room.CONFIGS.items()}
MORE_CONFIGS: dict[str, Architecture] = {
    name: config for room in ROOMS.values() for name, config in room.MORE_CONFIGS.items()
}

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
    config: Architecture, *, dtype: Any = jnp.float32, weights: Any = jnp.float32, seed: int = 0
) -> VisionLanguageModel:
    """A model that computes in `dtype`, with float32 parameters whose values fit `weights`.

    Drawn by NumPy: compiling twenty random number generators would take longer than a test.
    """
    abstract = families.abstract_model(config, dtype=dtype)
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


def checkpoint(params: nnx.State, config: Architecture) -> dict[str, np.ndarray]:
    """Parameters, or their gradients, under the names that transformers has for them in memory."""
    tensors: dict[str, np.ndarray] = {}
    plan, name_of = families.layouts(params, config), families.of(config).module_name
    for path, variable in nnx.to_flat_state(params):
        layout, array = plan[path].with_experts(flipped=True), np.asarray(variable.get_value())
        layers = array if layout.stacked else array[None]
        tensors |= {
            name_of(name): layout.to_file(layer) for name, layer in zip(layout.names, layers, strict=True)
        }
    return tensors


def reference_of(model: VisionLanguageModel, dtype: str = "float32") -> Reference:
    """transformers' model with the weights of `model`, for computing in `dtype`."""
    torch = pytest.importorskip("torch")
    own = getattr(ROOMS[families.of(model.config).model_type], "make_reference", None)
    if own is not None:
        torch.set_num_threads(1)
        return own(model.config, checkpoint(nnx.state(model, nnx.Param), model.config), dtype)
    from transformers import CONFIG_MAPPING, AutoModelForImageTextToText

    torch.set_num_threads(1)
    settings = model.config.to_dict()
    config = CONFIG_MAPPING[settings["model_type"]].from_dict(settings)
    theirs = AutoModelForImageTextToText.from_config(config, dtype=getattr(torch, dtype))
    tensors = checkpoint(nnx.state(model, nnx.Param), model.config)
    if model.config.tie_word_embeddings:
        tensors["lm_head.weight"] = tensors["model.language_model.embed_tokens.weight"]
    theirs.load_state_dict({name: torch.tensor(array) for name, array in tensors.items()})
    return Reference(torch, theirs.eval())


@dataclasses.dataclass
class Case:
    """A configuration on both sides."""

    model: VisionLanguageModel
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
        """The batch for a model of full depth."""
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
    gradients: dict[str, np.ndarray]  # of the loss, under the names of transformers


@functools.partial(jax.jit, compiler_options=QUICK)
def _logits_loss_and_gradients(
    model: VisionLanguageModel, prompts: Prompts, weights: jax.Array, routing: Routing | None
) -> Any:
    graphdef, params = nnx.split(model, nnx.Param)

    def loss(params: nnx.State) -> tuple[jax.Array, jax.Array]:
        merged = nnx.merge(graphdef, params)
        logits = merged.logits(merged(prompts, routing=routing)[0])
        logprobs = jax.nn.log_softmax(logits[:, :-1])
        chosen = jnp.take_along_axis(logprobs, prompts.tokens[:, 1:, None], axis=-1)[..., 0]
        return -jnp.sum(chosen * weights), logits

    (value, logits), gradients = jax.value_and_grad(loss, has_aux=True)(params)
    return logits, value, gradients


def run_ours(model: VisionLanguageModel, prompts: Prompts, routing: Routing | None = None) -> Outcome:
    """Args: routing: the experts to take; None: the model chooses, where it has any."""
    real = np.arange(1, prompts.tokens.shape[1]) < prompts.length[:, None]
    weights = (real / real.sum()).astype(np.float32)
    logits, loss, gradients = _logits_loss_and_gradients(model, prompts, weights, routing)
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
    """The gate for gradients, tensor by tensor; where theirs are zero (no image), so must ours be.

    A bias of keys that nothing rotates has a gradient of zero, but for rounding, and so has the router of
    single experts, whose weight is 1: what is a ten-millionth of all gradients has to be as small on both
    sides.
    """
    assert ours.keys() == theirs.keys()
    norms = {name: np.linalg.norm(gradient) or np.float32(1e-30) for name, gradient in theirs.items()}
    rounding = 1e-7 * np.linalg.norm(list(norms.values()))
    for name, norm in norms.items():
        if name.endswith(("bias", "mlp.gate.weight")) and 1e-30 < norm < rounding:
            norms[name] = rounding / GRADIENT_TOLERANCE
    errors = {name: np.linalg.norm(ours[name] - theirs[name]) / norms[name] for name in theirs}
    worst = max(errors, key=lambda name: errors[name])
    assert errors[worst] < GRADIENT_TOLERANCE, f"the gradient of {worst} differs by {errors[worst]:.1e}"


def logits_of(model: VisionLanguageModel, prompts: Prompts) -> jax.Array:
    """Traced anew, whatever was compiled before: for models with a mistake put in."""
    return jax.jit(lambda model, prompts: model.logits(model(prompts)[0]))(model, prompts)


def one_dimensional_positions(prompts: Prompts) -> Prompts:
    """A mistake: as in a model of text: every token one further, on all axes."""
    count = np.arange(prompts.tokens.shape[1]) * np.ones_like(prompts.length)[:, None]
    return prompts.replace(positions=np.repeat(count[:, None], 3, axis=1).astype(np.int32))
