"""The gate of the parity tests notices the mistakes that ports make, most of them made in published ones."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from dig_jax.models.inputs import patch_coords
from dig_jax.models.nn import decoder
from dig_jax.models.nn.attention import PlainAttention
from dig_jax.models.nn.layers import Rotation, rope_frequencies
from dig_jax.models.qwen3_vl import vision
from dig_jax.models.qwen3_vl.model import Qwen3VL
from tests.models.parity import case, check_logits, logits_of, one_dimensional_positions


@pytest.fixture(scope="module")
def compiled():
    """One program for the mutations of weights and inputs."""
    return jax.jit(lambda model, prompts: model.logits(model(prompts)[0]))


@pytest.fixture(scope="module")
def pair():
    return case("three taps")


@pytest.fixture(scope="module")
def examples(pair):
    return pair.examples("three images")


@pytest.fixture(scope="module")
def theirs(pair, examples):
    return pair.reference.logits(*examples)


def test_without_a_mistake_the_gate_is_passed(pair, examples, theirs, compiled):
    check_logits(compiled(pair.model, pair.make.pad(*examples)), theirs)


def flip_gelu(module, monkeypatch):
    """Exact GELU where the tanh approximation belongs, and the other way round."""
    gelu = jax.nn.gelu
    forward = module.__call__

    def swapped(self, *args):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(jax.nn, "gelu", lambda x, approximate: gelu(x, approximate=not approximate))
            return forward(self, *args)

    monkeypatch.setattr(module, "__call__", swapped)


def flip_both_gelus(monkeypatch):
    flip_gelu(vision.VisionMLP, monkeypatch)
    flip_gelu(vision.PatchMerger, monkeypatch)


def drop_deepstack(monkeypatch):
    monkeypatch.setattr(decoder, "add_deepstack", lambda x, layer, deepstack: x)


def deepstack_one_layer_late(monkeypatch):
    add = decoder.add_deepstack
    late = lambda x, layer, deepstack: jnp.where(layer > 0, add(x, layer - 1, deepstack), x)  # noqa: E731
    monkeypatch.setattr(decoder, "add_deepstack", late)


def sections_in_blocks(monkeypatch):
    """M-RoPE as in Qwen2-VL: all frequencies for time first, then rows, then columns."""

    def blocks(self, positions):
        axis = np.repeat(np.arange(3), self.config.mrope_section)
        frequencies = rope_frequencies(self.config.rope_theta, self.config.head_dim)
        return Rotation.from_angles(positions.astype(jnp.float32)[..., axis] * frequencies)

    monkeypatch.setattr(decoder.TextDecoder, "rotation", blocks)


def see_other_images(monkeypatch):
    packed = PlainAttention.packed
    monkeypatch.setattr(PlainAttention, "packed", lambda self, x, segment: packed(self, x, 0 * segment))


MISTAKES_IN_CODE = {
    "no DeepStack": drop_deepstack,
    "DeepStack one layer late": deepstack_one_layer_late,
    "M-RoPE sections in blocks": sections_in_blocks,
    "images see each other": see_other_images,
    "exact GELU in the blocks": lambda patch: flip_gelu(vision.VisionMLP, patch),
    "tanh GELU in the mergers": lambda patch: flip_gelu(vision.PatchMerger, patch),
    "both GELUs swapped": flip_both_gelus,
}


@pytest.mark.parametrize("mistake", MISTAKES_IN_CODE)
def test_a_mistake_in_the_code_fails_the_gate(pair, examples, theirs, monkeypatch, mistake):
    MISTAKES_IN_CODE[mistake](monkeypatch)
    with pytest.raises(AssertionError, match="logits differ"):
        check_logits(logits_of(pair.model, pair.make.pad(*examples)), theirs)


def test_the_rope_theta_that_transformers_takes_when_none_is_given_fails_the_gate(pair, examples, theirs):
    config = pair.model.config
    wrong = dataclasses.replace(config, text=dataclasses.replace(config.text, rope_theta=500_000.0))
    graphdef, _ = nnx.split(nnx.eval_shape(lambda: Qwen3VL(wrong, rngs=nnx.Rngs(0))))
    model = nnx.merge(graphdef, nnx.state(pair.model, nnx.Param))
    with pytest.raises(AssertionError, match="logits differ"):
        check_logits(logits_of(model, pair.make.pad(*examples)), theirs)


def test_the_mergers_of_deepstack_in_reverse_order_fail_the_gate(pair, examples, theirs, compiled):
    graphdef, params = nnx.split(pair.model, nnx.Param)

    def reverse(path, param):
        return param.replace(param[...][::-1]) if "deepstack_mergers" in path else param

    model = nnx.merge(graphdef, nnx.map_state(reverse, params))
    with pytest.raises(AssertionError, match="logits differ"):
        check_logits(compiled(model, pair.make.pad(*examples)), theirs)


def text_goes_on_after_the_last_patch(prompts):
    """The position after an image counts its tokens, instead of its longer side."""
    positions = prompts.positions.copy()
    positions[:, 0] = np.arange(prompts.tokens.shape[1])
    return prompts.replace(positions=positions)


def in_raster_order(prompts, change):
    """`change(row, slice of its patches, grid, order)` for every image; order: raster place of each patch."""
    for row, numbers in enumerate(prompts.patch_image):
        for number in range(1, numbers.max() + 1):
            mine = np.flatnonzero(numbers == number)
            rows, columns = prompts.patch_grid[row, mine[0]]
            coords = patch_coords((rows, columns), 2)
            change(row, mine, columns, coords[:, 0] * columns + coords[:, 1])


def coordinates_in_raster_order(prompts):
    """Patches placed row by row, as if they were not in merge blocks."""
    coords = prompts.patch_coords.copy()

    def change(row, mine, columns, order):
        coords[row, mine] = np.stack(np.divmod(np.arange(len(mine)), columns), axis=-1)

    in_raster_order(prompts, change)
    return prompts.replace(patch_coords=coords)


def patches_in_raster_order(prompts):
    """Patches and their places in rows, so that four in a row are merged instead of two by two."""
    coords, patches = prompts.patch_coords.copy(), prompts.patches.copy()

    def change(row, mine, columns, order):
        coords[row, mine[order]] = prompts.patch_coords[row, mine]
        patches[row, mine[order]] = prompts.patches[row, mine]

    in_raster_order(prompts, change)
    return prompts.replace(patch_coords=coords, patches=patches)


def corners_not_aligned(prompts):
    """The table of positions is stretched over one patch more than there are."""
    return prompts.replace(patch_grid=prompts.patch_grid + 1)


MISTAKES_IN_INPUTS = [
    one_dimensional_positions,
    text_goes_on_after_the_last_patch,
    coordinates_in_raster_order,
    patches_in_raster_order,
    corners_not_aligned,
]


@pytest.mark.parametrize("mistake", MISTAKES_IN_INPUTS, ids=lambda mistake: mistake.__name__)
def test_a_mistake_in_the_inputs_fails_the_gate(pair, examples, theirs, compiled, mistake):
    with pytest.raises(AssertionError, match="logits differ"):
        check_logits(compiled(pair.model, mistake(pair.make.pad(*examples))), theirs)
