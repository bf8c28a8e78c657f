"""The gate of the parity tests notices the mistakes that ports of these parts make."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from dig_jax.models.clip_dino_qwen import model, vision
from dig_jax.models.inputs import rope_positions
from dig_jax.models.nn.decoder import TextDecoder
from tests.models.clip_dino_qwen.test_parity_modules import with_objects
from tests.models.parity import QUICK, case, check_logits


@pytest.fixture(scope="module")
def pair():
    return case("two towers")


@pytest.fixture(scope="module")
def prompts(pair):
    return pair.make.pad(with_objects(pair, 1))


@pytest.fixture(scope="module")
def theirs(pair):
    return pair.reference.logits(with_objects(pair, 1))


def logits_of(changed, prompts):
    """Traced anew, and compiled without much optimising."""

    @functools.partial(jax.jit, compiler_options=QUICK)
    def run(changed, prompts):
        return changed.logits(changed(prompts)[0])

    return run(changed, prompts)


def gelu_in_clip(patch, pair):
    pair.model.vision.clip.blocks.mlp.activation = vision.exact_gelu


def quick_gelu_in_dino(patch, pair):
    pair.model.vision.dino.blocks.mlp.activation = vision.quick_gelu


def tanh_gelu(patch, pair):
    gelu = jax.nn.gelu
    patch.setattr(jax.nn, "gelu", lambda x, approximate: gelu(x, approximate=True))


def no_pre_norm(patch, pair):
    patch.setattr(
        vision.ClipTower, "__call__", lambda self, x: self.run(self.embed(x, self.pos_embed[...]))[:, 1:]
    )


def no_layer_scale(patch, pair):
    patch.setattr(vision.Scale, "__call__", lambda self, x: x)


def class_token_kept(patch, pair):
    """The features begin with the class token, and the last patch is lost."""
    patch.setattr(
        vision.DinoTower, "__call__", lambda self, x: self.run(self.embed(x, self.positions()))[:, :-1]
    )


def other_bicubic(patch, pair):
    patch.setattr(vision, "BICUBIC", -0.5)


def one_normalisation(patch, pair):
    patch.setattr(vision, "DINO_MEAN", vision.CLIP_MEAN)
    patch.setattr(vision, "DINO_STD", vision.CLIP_STD)


def dino_first(patch, pair):
    joined = jnp.concatenate

    def swapped(parts, axis=0):
        return joined(parts[::-1] if axis == -1 and parts[0].shape[-1] == 48 else parts, axis=axis)

    patch.setattr(vision.jnp, "concatenate", swapped)


def first_patch_of_a_square(patch, pair):
    def first(x, side, by):
        squares = x.reshape(len(x), side // by, by, side // by, by, -1)[:, :, 0, :, 0]
        kept = squares.reshape(len(x), -1, x.shape[-1])
        return jnp.pad(kept, ((0, 0), (0, x.shape[1] - kept.shape[1]), (0, 0)))

    patch.setattr(vision, "_average", first)


def averaged_after_the_projector(patch, pair):
    project, average = vision.Projector.__call__, vision._average

    def call(self, tokens):
        features = project(self, tokens)
        as_object = jnp.arange(len(features))[:, None, None] == 1
        return jnp.where(as_object, average(features, 4, 2), features)

    patch.setattr(vision, "_average", lambda x, side, by: x)
    patch.setattr(vision.Projector, "__call__", call)


def patches_of_an_object_taken_for_an_image(patch, pair):
    patch.setattr(
        model.ClipDinoQwen, "_objects", lambda self, tokens, room: jnp.zeros((len(tokens), room), bool)
    )


def other_theta(patch, pair):
    def rotation(self, positions, original=TextDecoder.rotation):
        return original(self, positions * 2)

    patch.setattr(TextDecoder, "rotation", rotation)


MISTAKES = [
    gelu_in_clip,
    *(
        pytest.param(mistake, marks=pytest.mark.slow)
        for mistake in (
            no_layer_scale,
            other_bicubic,
            quick_gelu_in_dino,
            tanh_gelu,
            no_pre_norm,
            class_token_kept,
            one_normalisation,
            dino_first,
            first_patch_of_a_square,
            averaged_after_the_projector,
            patches_of_an_object_taken_for_an_image,
            other_theta,
        )
    ),
]


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.__name__)
def test_a_mistake_in_the_code_fails_the_gate(pair, prompts, theirs, monkeypatch, mistake):
    copy = nnx.clone(pair.model)
    mistake(monkeypatch, type(pair)(copy, pair.reference))
    with pytest.raises(AssertionError, match="logits differ"):
        check_logits(logits_of(copy, prompts), theirs)


def test_without_a_mistake_the_gate_is_passed(pair, prompts, theirs):
    check_logits(logits_of(pair.model, prompts), theirs)


@pytest.mark.slow
def test_positions_by_rows_and_columns_fail_the_gate(pair, prompts, theirs):
    (example,) = [with_objects(pair, 1)]
    spread, _ = rope_positions(example.ids, [(4, 4)] * 2, pair.model.config.placeholders)
    positions = np.array(prompts.positions)
    positions[0, :, : len(example.ids)] = spread
    with pytest.raises(AssertionError, match="logits differ"):
        check_logits(logits_of(pair.model, prompts.replace(positions=positions)), theirs)


@pytest.mark.slow
def test_a_decoder_without_biases_fails_the_gate(pair, prompts, theirs):
    graphdef, params = nnx.split(pair.model, nnx.Param)

    def drop(path, param):
        return param.replace(0 * param[...]) if path[0] == "text" and path[-1] == "bias" else param

    with pytest.raises(AssertionError, match="logits differ"):
        check_logits(logits_of(nnx.merge(graphdef, nnx.map_state(drop, params)), prompts), theirs)
