"""The gate of the parity tests notices the mistakes that ports of Qwen2.5-VL make."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from dig_jax.models.families import abstract_model
from dig_jax.models.nn.decoder import TextDecoder
from dig_jax.models.nn.layers import Linear, RMSNorm
from dig_jax.models.qwen2_5_vl import vision
from dig_jax.models.qwen3_vl.text import rotary_axes as interleaved
from tests.models.parity import case, check_logits, logits_of, one_dimensional_positions


@pytest.fixture(scope="module")
def pair():
    return case("windows")


@pytest.fixture(scope="module")
def prompts(pair):
    return pair.make.pad(*pair.examples("three images"))


@pytest.fixture(scope="module")
def theirs(pair):
    return pair.reference.logits(*pair.examples("three images"))


def some_slow(mistakes, *, keep):
    """All names; those after the first `keep` are compiled in the slow tests alone."""
    slow = [pytest.param(name, marks=pytest.mark.slow) for name in list(mistakes)[keep:]]
    return [*list(mistakes)[:keep], *slow]


def with_vision(pair, **changes):
    """The weights in a model whose tower has other settings."""
    config = pair.model.config
    config = dataclasses.replace(config, vision=dataclasses.replace(config.vision, **changes))
    return nnx.merge(nnx.split(abstract_model(config))[0], nnx.state(pair.model, nnx.Param))


SETTINGS = {
    "every block attends to the whole image": {"fullatt_block_indexes": (0, 1, 2, 3)},
    "every block attends inside windows": {"fullatt_block_indexes": ()},
    "the wrong blocks attend to the whole image": {"fullatt_block_indexes": (0, 2)},
    "windows are twice as large": {"window_size": 64},
}


@pytest.mark.parametrize("mistake", some_slow(SETTINGS, keep=2))
def test_a_wrong_setting_of_the_tower_fails_the_gate(pair, prompts, theirs, mistake):
    with pytest.raises(AssertionError, match="logits differ"):
        check_logits(logits_of(with_vision(pair, **SETTINGS[mistake]), prompts), theirs)


def cut_in_packed_order(patch_image, coords, grid, side):
    """Lengths of windows on patches that nobody has reordered."""
    order = jnp.cumsum(jnp.ones_like(patch_image), axis=1) - 1
    return patch_image * patch_image.shape[1] + order // side**2


def across_images(patch_image, coords, grid, side):
    return vision.windows(jnp.minimum(patch_image, 1), coords, grid, side)


def from_the_bottom(patch_image, coords, grid, side):
    """The partial windows at the top left instead of the bottom right."""
    return vision.windows(patch_image, grid - 1 - coords, grid, side)


def layer_norm(self, x):
    centred = x - x.mean(axis=-1, keepdims=True)
    scale = jax.lax.rsqrt(jnp.mean(centred**2, axis=-1, keepdims=True) + self.eps)
    return centred * scale * self.scale[...]


def tanh_gelu(patch):
    gelu = jax.nn.gelu
    patch.setattr(jax.nn, "gelu", lambda x, approximate: gelu(x, approximate=True))


def call_with(module, patched, attribute, value):
    """`module`'s call sees another `attribute` of `patched`."""

    def change(patch):
        call = module.__call__

        def changed(self, *args):
            with pytest.MonkeyPatch.context() as inside:
                inside.setattr(patched, attribute, value)
                return call(self, *args)

        patch.setattr(module, "__call__", changed)

    return change


def without_bias(self, x, forward=Linear.__call__):
    return forward(self, x) - (0 if self.bias is None else self.bias[...])


def interleaved_sections(patch):
    def rotation(self, positions, original=TextDecoder.rotation):
        with pytest.MonkeyPatch.context() as inside:
            inside.setattr(self, "axes_of", interleaved)
            return original(self, positions)

    patch.setattr(TextDecoder, "rotation", rotation)


WINDOWS = {
    "windows of patches in packed order": cut_in_packed_order,
    "windows across images": across_images,
    "windows cut from the bottom right": from_the_bottom,
}
MISTAKES = {
    "LayerNorm in the tower": call_with(vision.VisionBlock, RMSNorm, "__call__", layer_norm),
    "no bias in the tower's MLP": call_with(vision.VisionMLP, Linear, "__call__", without_bias),
    "tanh GELU in the merger": tanh_gelu,
    "interleaved M-RoPE": interleaved_sections,
}


@pytest.mark.parametrize("mistake", some_slow(WINDOWS, keep=1))
def test_windows_cut_otherwise_fail_the_gate(pair, prompts, theirs, monkeypatch, mistake):
    arrays = map(jnp.asarray, (prompts.patch_image, prompts.patch_coords, prompts.patch_grid))
    cut = WINDOWS[mistake](*arrays, pair.model.config.vision.window)
    monkeypatch.setattr(vision, "windows", lambda *args: cut)
    with pytest.raises(AssertionError, match="logits differ"):
        check_logits(logits_of(pair.model, prompts), theirs)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_the_code_fails_the_gate(pair, prompts, theirs, monkeypatch, mistake):
    MISTAKES[mistake](monkeypatch)
    with pytest.raises(AssertionError, match="logits differ"):
        check_logits(logits_of(pair.model, prompts), theirs)


def test_a_decoder_without_biases_fails_the_gate(pair, prompts, theirs):
    graphdef, params = nnx.split(pair.model, nnx.Param)

    def drop(path, param):
        return param.replace(0 * param[...]) if path[0] == "text" and path[-1] == "bias" else param

    with pytest.raises(AssertionError, match="logits differ"):
        check_logits(logits_of(nnx.merge(graphdef, nnx.map_state(drop, params)), prompts), theirs)


def test_one_dimensional_positions_fail_the_gate(pair, prompts, theirs):
    with pytest.raises(AssertionError, match="logits differ"):
        check_logits(logits_of(pair.model, one_dimensional_positions(prompts)), theirs)


def test_without_a_mistake_the_gate_is_passed_and_other_windows_do_not_compile_again(pair, prompts, theirs):
    run = jax.jit(lambda model, prompts: model.logits(model(prompts)[0]))
    check_logits(run(pair.model, prompts), theirs)
    examples = pair.examples("one image")
    check_logits(run(pair.model, pair.make.pad(*examples)), pair.reference.logits(*examples))
    assert run._cache_size() == 1
