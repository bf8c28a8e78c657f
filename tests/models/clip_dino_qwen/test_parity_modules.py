"""The parts of TinyGroundingGPT give the numbers of transformers', layer by layer."""

import functools

import jax
import numpy as np
import pytest
from flax import nnx

from dig_jax.models.clip_dino_qwen import vision
from dig_jax.models.clip_dino_qwen.config import DinoConfig
from tests.models.clip_dino_qwen.reference import MEANS, STDS, as_pixels
from tests.models.conftest import Example
from tests.models.parity import QUICK, case, check_logits, run_ours

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def pair():
    return case("two towers")


@functools.partial(jax.jit, compiler_options=QUICK)
def states(towers, patches):
    """The tokens before the blocks and after each of them, of CLIP and of DINOv2."""
    clip, dino = towers.clip, towers.dino
    x = clip.pre_norm(clip.embed(vision.normalised(patches, MEANS[0], STDS[0]), clip.pos_embed[...]))
    y = dino.embed(vision.normalised(patches, MEANS[1], STDS[1]), dino.positions())
    return [run_by_layer(tower, tokens) for tower, tokens in ((clip, x), (dino, y))]


def run_by_layer(tower, x):
    graphdef, stacked = nnx.split(tower.blocks)
    seen = [x]
    for layer in range(jax.tree.leaves(stacked)[0].shape[0]):
        block = nnx.merge(graphdef, jax.tree.map(lambda p, layer=layer: p[layer], stacked))
        seen.append(block(seen[-1], tower.attention))
    return seen


def test_every_layer_of_both_towers_equals_that_of_transformers(pair):
    torch, theirs = pair.reference.torch, pair.reference.model
    patches = np.random.default_rng(0).uniform(0, 1, (2, 16, 192)).astype(np.float32)
    ours = states(pair.model.vision, patches)
    pixels = torch.cat([as_pixels(torch, image, theirs.config) for image in patches])
    for seen, tower, mean, std in zip(ours, (theirs.clip, theirs.dino), MEANS, STDS, strict=True):
        shifted = (pixels - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
        with torch.no_grad():
            hidden = tower(shifted, output_hidden_states=True).hidden_states
        assert len(hidden) == len(seen) + 1  # the last layer, which is not ours to compute
        for state, right in zip(seen, hidden[:-1], strict=True):
            error = np.abs(state - right.numpy()).max() / right.abs().max().item()  # states are up to ten
            assert error < TOLERANCE


@pytest.mark.parametrize("offset", [0.0, 0.1])
def test_positions_are_stretched_as_by_torch_from_37_to_24_places(offset):
    torch = pytest.importorskip("torch")
    table = np.random.default_rng(0).standard_normal((37, 37, 4)).astype(np.float32)
    sides = {"scale_factor": (24 + offset) / 37} if offset else {"size": (24, 24)}
    theirs = torch.nn.functional.interpolate(
        torch.tensor(table).movedim(2, 0)[None], mode="bicubic", align_corners=False, **sides
    )
    dino = DinoConfig(1, 4, 4, 1, positions_per_side=37, final_norm=False, interpolate_offset=offset)
    stretch = vision.stretching(dino, 24)
    ours = np.einsum("as,bt,stc->cab", stretch, stretch, table)
    np.testing.assert_allclose(ours, theirs[0], atol=TOLERANCE, rtol=0)


def with_objects(pair, objects):
    """A row of an image and so many objects, in a text; without any image at -1."""
    config, rng = pair.model.config, np.random.default_rng(objects + 1)
    ids, images = list(rng.integers(0, 300, 4)), []
    for number in range(objects + 1):
        word = config.object_pad_token_id if number else config.image_token_id
        ids += [rng.integers(300), *[word] * (16 // config.placeholders[word] ** 2), rng.integers(300)]
        images.append((rng.uniform(0, 1, (16, 192)).astype(np.float32), (4, 4)))
    return Example(np.array(ids, np.int32), images)


def test_rows_of_no_image_and_of_one_and_five_objects_stand_side_by_side(pair):
    examples = [with_objects(pair, objects) for objects in (-1, 1, 5)]
    ours = run_ours(pair.model, pair.make.pad(*examples))
    check_logits(ours.logits, pair.reference.logits(*examples))
