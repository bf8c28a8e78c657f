"""Experts: every form is the plain one, values and gradients, on one device and split over several."""

import dataclasses
import functools
import json
import os
import re
import subprocess
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dig_jax.models.nn import expert_parallel, kernels
from dig_jax.models.nn.expert_parallel import Split, split_mlp
from dig_jax.models.nn.expert_rows import sort_choices
from dig_jax.models.nn.experts import PLAIN, Experts, experts_mlp
from dig_jax.models.nn.grouped import LoopGrouped, OfStack, tile_for
from dig_jax.models.nn.megablox import MegabloxGrouped
from dig_jax.models.nn.triton_grouped import TritonGrouped

FORMS = {
    "loop": LoopGrouped(),
    "triton": TritonGrouped(interpret=True),
    "megablox": MegabloxGrouped(interpret=True),
}
WIDTH, EXPERTS, CHOICES, INNER = 32, 8, 3, 16


@dataclasses.dataclass(frozen=True)
class Layer:
    """Tokens, their choices, experts, and what the loss multiplies results with."""

    x: jax.Array
    ids: jax.Array
    weights: jax.Array
    gate_up: jax.Array
    down: jax.Array
    cotangent: jax.Array

    def results(self, run) -> list[jax.Array]:
        """The result of `run(x, ids, weights, gate_up, down)`, and gradients by all of these but the ids."""

        def loss(x, weights, gate_up, down):
            y = run(x, self.ids, weights, gate_up, down)
            return jnp.sum(y * self.cotangent), y

        gradient = jax.jit(jax.grad(loss, argnums=(0, 1, 2, 3), has_aux=True))
        gradients, y = gradient(self.x, self.weights, self.gate_up, self.down)
        return [y, *gradients]


def draw(tokens: int = 37, favour: float = 0.5) -> Layer:
    """Random; the larger `favour`, the more choices fall on the last experts, and none on the first."""
    rng = np.random.default_rng(0)

    def normal(*shape: int, scale: float = 1.0) -> jax.Array:
        return jnp.asarray(rng.normal(scale=scale, size=shape), jnp.float32)

    order = np.argsort(rng.normal(size=(tokens, EXPERTS)) - favour * np.arange(EXPERTS), axis=1)
    return Layer(
        normal(tokens, WIDTH),
        jnp.asarray(order[:, :CHOICES], jnp.int32),
        jnp.asarray(rng.random((tokens, CHOICES)), jnp.float32),
        normal(EXPERTS, WIDTH, 2 * INNER, scale=0.2),
        normal(EXPERTS, INNER, WIDTH, scale=0.2),
        normal(tokens, WIDTH),
    )


def furthest(found: list[jax.Array], expected: list[jax.Array]) -> float:
    """The largest difference, relative to the largest entry."""
    return max(float(jnp.abs(a - b).max() / jnp.abs(b).max()) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("form", FORMS)
def test_a_form_is_the_plain_one_where_experts_are_used_unevenly_and_one_not_at_all(form):
    layer = draw(favour=1.0)
    assert np.bincount(layer.ids.ravel(), minlength=EXPERTS).min() == 0
    found = layer.results(functools.partial(experts_mlp, how=Experts(FORMS[form])))
    assert furthest(found, layer.results(experts_mlp)) < 2e-6


def test_kernels_that_read_stacks_take_the_experts_of_the_layer_that_is_meant():
    layer, how = draw(), Experts(FORMS["megablox"])
    assert [form for form, kernels in FORMS.items() if kernels.reads_stacks] == ["megablox"]
    expected = experts_mlp(layer.x, layer.ids, layer.weights, layer.gate_up, layer.down)
    for number in (0, 2):
        found = experts_mlp(layer.x, layer.ids, layer.weights, *stacked(layer, number), how)
        assert furthest([found], [expected]) < 2e-6


def stacked(layer: Layer, number: int) -> list[OfStack]:
    """The kernels as those of layer `number` of three, of which the others are of another scale."""
    scales = jnp.where(jnp.arange(3) == number, 1.0, 7.0)[:, None, None, None]
    return [OfStack(scales * kernel, jnp.int32(number)) for kernel in (layer.gate_up, layer.down)]


def test_the_plain_form_is_the_formula():
    layer = draw(tokens=2)
    y = experts_mlp(layer.x, layer.ids, layer.weights, layer.gate_up, layer.down)
    expected = np.zeros((2, WIDTH))
    for token, choices in enumerate(np.asarray(layer.ids)):
        for choice, expert in enumerate(choices):
            gate, up = np.split(np.asarray(layer.x[token] @ layer.gate_up[expert], np.float64), 2)
            made = gate / (1 + np.exp(-gate)) * up @ np.asarray(layer.down[expert])
            expected[token] += layer.weights[token, choice] * made
    np.testing.assert_allclose(y, expected, rtol=2e-5, atol=1e-5)


def test_choices_are_sorted_by_expert_and_padded_to_whole_tiles():
    sort = sort_choices(jnp.array([[2, 0], [2, 3]]), num_experts=4, tile=2, block=1)
    assert sort.sizes.tolist() == [2, 0, 2, 2]
    # Choices are numbered 0, 1 (of the first token), 2, 3; 4 stands for padding.
    assert sort.source.tolist()[:6] == [1, 4, 0, 2, 3, 4] and set(sort.source.tolist()[6:]) <= {4}
    assert sort.place.tolist() == [[2, 0], [3, 4]]


def test_tiles_are_half_of_what_an_expert_has_on_average():
    assert [tile_for(choices, 128, 16, 128) for choices in (512, 4096, 65536)] == [16, 32, 128]


def test_choices_that_find_no_place_go_in_further_rounds_and_none_is_lost(monkeypatch):
    """Room for 12 of 111 choices: ten rounds, forward and backward. On a mesh: split_experts.py."""
    monkeypatch.setattr(expert_parallel, "LEAST_PLACES", 1)
    layer, split = draw(), Split((), (), (), room=0.1)
    assert split.places(layer.ids.size) == 12
    found = layer.results(functools.partial(split_mlp, LoopGrouped(), split))
    assert furthest(found, layer.results(experts_mlp)) < 2e-6


@pytest.mark.slow
def test_experts_split_over_a_mesh_equal_the_plain_form():
    """Over `expert`, `tensor`, both, with and without room, tokens that do not divide, and out of a stack."""
    command = [sys.executable, "-m", "tests.models.nn.split_experts"]
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": "8"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    errors = json.loads(done.stdout)
    assert len(errors) == 11 and max(errors.values()) < 2e-6, errors


def device(platform: str, compute_capability: str = "9.0") -> types.SimpleNamespace:
    return types.SimpleNamespace(platform=platform, compute_capability=compute_capability)


@pytest.mark.parametrize(
    ("where", "dtype", "expected"),
    [
        (device("cpu"), jnp.bfloat16, "loop"),
        (device("tpu"), jnp.bfloat16, "megablox"),
        (device("tpu"), jnp.float32, "loop"),
        (device("gpu"), jnp.bfloat16, "triton"),
        (device("gpu", "7.5"), jnp.bfloat16, "loop"),
        (device("gpu"), jnp.float32, "loop"),
    ],
)
def test_auto_takes_the_kernels_that_can_run(where, dtype, expected):
    chosen = kernels.choose_experts("auto", where, dtype, 1.5)
    assert chosen.form.name == expected
    assert chosen == kernels.choose_experts(expected, where, dtype, 1.5)
    assert kernels.choose_experts("plain", where, dtype, PLAIN.room) == PLAIN


@pytest.mark.parametrize(
    ("name", "where", "dtype", "message"),
    [
        (
            "sparse",
            device("gpu"),
            jnp.bfloat16,
            "'sparse': expected one of auto, plain, loop, triton, megablox",
        ),
        ("triton", device("cpu"), jnp.bfloat16, "'triton' needs an NVIDIA GPU, but the model runs on cpu"),
        (
            "triton",
            device("gpu", "7.5"),
            jnp.bfloat16,
            "needs an NVIDIA GPU of compute capability 8.0 or more",
        ),
        (
            "megablox",
            device("cpu"),
            jnp.bfloat16,
            "'megablox' needs a TPU, but the model runs on cpu devices",
        ),
        ("megablox", device("tpu"), jnp.float32, "needs model.dtype=bfloat16, not float32; use 'auto'"),
    ],
)
def test_kernels_that_can_not_run_are_refused(name, where, dtype, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        kernels.choose_experts(name, where, dtype, 1.5)
