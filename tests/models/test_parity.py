"""Our float32 model gives the numbers of transformers' Qwen3-VL: logits, gradients, cached decoding.

The model is random with attention far from uniform, images are non-square, and norms and biases are
perturbed. Gates: logits 1e-5 absolute (measured 2e-6 at logits up to 2), gradients 1e-4 relative L2 per
tensor (measured 3e-6).
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from dig_jax.models.attention import PlainAttention
from dig_jax.models.qwen3_vl import hf, text, vision
from dig_jax.models.qwen3_vl.model import Qwen3VL

LOGITS_TOLERANCE = 1e-5
GRADIENT_TOLERANCE = 1e-4

ONE_IMAGE = [(4, 6)]
IMAGES = [(4, 6), (2, 8), (6, 4)]  # of different shapes, none square


def our_logits(model, prompts):
    return model.logits(model(prompts)[0])


jitted_logits = jax.jit(our_logits)


def worst(ours, theirs):
    """Largest difference over the real tokens of all rows."""
    return max(np.abs(np.asarray(a)[: len(b)] - b).max() for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("grids", [[], ONE_IMAGE, IMAGES], ids=["text only", "one image", "three images"])
def test_logits_of_a_prompt(model, reference, make, grids):
    example = make.example(grids)
    error = worst(jitted_logits(model, make.pad(example)), reference.logits(example))
    assert error < LOGITS_TOLERANCE


def test_logits_of_a_batch_with_unequal_lengths_and_numbers_of_images(model, reference, make):
    examples = [
        make.example(IMAGES, seed=1),
        make.example([], text=9, seed=2),
        make.example([(2, 4)], seed=3),
    ]
    error = worst(jitted_logits(model, make.pad(*examples)), reference.logits(*examples))
    assert error < LOGITS_TOLERANCE


def test_logits_with_a_tied_head(tiny_qwen3vl_thinking, reference_loader, make):
    model, reference = hf.load_model(tiny_qwen3vl_thinking), reference_loader(tiny_qwen3vl_thinking)
    assert model.head is None
    example = make.example(ONE_IMAGE)
    error = worst(jitted_logits(model, make.pad(example)), reference.logits(example))
    assert error < LOGITS_TOLERANCE


def test_gradients_of_every_tensor(model, reference, make):
    examples = [make.example(IMAGES, seed=4), make.example([(2, 4)], text=3, seed=5)]
    prompts = make.pad(*examples)
    # The loss covers the text after each prompt's first token: only real tokens, predicted from real tokens.
    last = min(len(example.ids) for example in examples) - 1
    targets = np.stack([example.ids[-last:] for example in examples])
    starts = np.array([len(example.ids) - 1 - last for example in examples])

    graphdef, params = nnx.split(model, nnx.Param)

    def loss(params):
        logits = our_logits(nnx.merge(graphdef, params), prompts)
        rows = jnp.stack([row[start : start + last] for row, start in zip(logits, starts, strict=True)])
        return -jnp.take_along_axis(jax.nn.log_softmax(rows), targets[..., None], axis=-1).mean()

    value, gradients = jax.jit(jax.value_and_grad(loss))(params)

    torch = reference.torch
    reference.model.zero_grad()
    logits = reference.forward(*examples)[:, -1 - last : -1]
    reference_loss = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), torch.tensor(targets, dtype=torch.long).flatten()
    )
    reference_loss.backward()
    theirs = {name: p.grad.numpy() for name, p in reference.model.named_parameters()}
    ours = dict(hf.checkpoint_tensors(gradients, model.config, None))

    assert abs(value - reference_loss.item()) < 1e-6
    assert ours.keys() == theirs.keys()
    errors = {
        name: np.linalg.norm(ours[name] - theirs[name]) / np.linalg.norm(theirs[name]) for name in theirs
    }
    assert max(errors.values()) < GRADIENT_TOLERANCE, max(errors.items(), key=lambda item: item[1])


def test_decoding_with_the_cache_equals_their_generate(model, reference, make):
    """Twelve greedy tokens past three images, in a batch of two prompts of unequal length."""
    examples = [make.example(IMAGES, seed=6), make.example([(2, 4)], text=3, seed=7)]
    new = 12
    reference.model.model.rope_deltas = None
    generated = reference.model.generate(
        **reference.inputs(*examples),
        max_new_tokens=new,
        min_new_tokens=new,
        do_sample=False,
        output_logits=True,
        return_dict_in_generate=True,
    )
    tokens = generated.sequences[:, -new:].numpy()
    theirs = np.stack([step.numpy() for step in generated.logits], axis=1)  # [B,new,V]

    prompts = make.pad(*examples)
    hidden, prompt_cache = jax.jit(Qwen3VL.prefill)(model, prompts)
    ours = [model.logits(hidden[jnp.arange(2), prompts.length - 1])]
    cache = model.init_response_cache(2, 1, new)
    decode = jax.jit(Qwen3VL.decode)
    for step in range(new - 1):
        states, cache = decode(model, tokens[:, None, step], step, prompt_cache, cache)
        ours.append(model.logits(states[:, 0]))
    assert np.abs(np.stack(ours, axis=1) - theirs).max() < LOGITS_TOLERANCE


def flip_gelu(module, monkeypatch):
    """Exact GELU where the tanh approximation belongs, and the other way round."""
    gelu = jax.nn.gelu
    forward = module.__call__

    def swapped(self, *args):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(jax.nn, "gelu", lambda x, approximate: gelu(x, approximate=not approximate))
            return forward(self, *args)

    monkeypatch.setattr(module, "__call__", swapped)


def drop_deepstack(monkeypatch):
    monkeypatch.setattr(text, "add_deepstack", lambda x, layer, deepstack: x)


def deepstack_one_layer_late(monkeypatch):
    add = text.add_deepstack
    late = lambda x, layer, deepstack: jnp.where(layer > 0, add(x, layer - 1, deepstack), x)  # noqa: E731
    monkeypatch.setattr(text, "add_deepstack", late)


def sections_in_blocks(monkeypatch):
    """M-RoPE as in Qwen2-VL: all frequencies for time first, then rows, then columns."""

    def blocks(positions, config):
        axis = np.repeat(np.arange(3), config.mrope_section)
        half = config.head_dim // 2
        frequencies = (config.rope_theta ** -(np.arange(half) / half)).astype(np.float32)
        return text.Rotation.from_angles(positions.astype(jnp.float32)[..., axis] * frequencies)

    monkeypatch.setattr(text, "mrope", blocks)


def see_other_images(monkeypatch):
    packed = PlainAttention.packed
    monkeypatch.setattr(PlainAttention, "packed", lambda self, x, segment: packed(self, x, 0 * segment))


MUTATIONS = {
    "no DeepStack": drop_deepstack,
    "DeepStack one layer late": deepstack_one_layer_late,
    "M-RoPE sections in blocks": sections_in_blocks,
    "images see each other": see_other_images,
    "exact GELU in the blocks": lambda patch: flip_gelu(vision.VisionMLP, patch),
    "tanh GELU in the mergers": lambda patch: flip_gelu(vision.PatchMerger, patch),
}


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_the_comparison_notices(model, reference, make, monkeypatch, mutation):
    """Each of these mistakes, made in published ports, fails the gate by a factor of ten or more."""
    MUTATIONS[mutation](monkeypatch)
    example = make.example(IMAGES)
    mutated = jax.jit(lambda model, prompts: our_logits(model, prompts))
    error = worst(mutated(model, make.pad(example)), reference.logits(example))
    assert error > 10 * LOGITS_TOLERANCE


def one_dimensional_positions(prompts):
    count = np.arange(prompts.tokens.shape[1]) * (
        np.arange(prompts.tokens.shape[1]) < prompts.length[:, None]
    )
    return prompts.replace(positions=np.repeat(count[:, None], 3, axis=1).astype(np.int32))


def raster_order(prompts):
    """Patches placed row by row, as if they were not in merge blocks."""
    coords = np.zeros_like(prompts.patch_coords)
    for number in range(1, prompts.patch_image.max() + 1):
        mine = prompts.patch_image == number
        width = prompts.patch_grid[mine][0, 1]
        coords[mine] = np.stack(np.divmod(np.arange(mine.sum()), width), axis=-1)
    return prompts.replace(patch_coords=coords)


@pytest.mark.parametrize("wrong", [one_dimensional_positions, raster_order])
def test_the_comparison_notices_wrong_inputs(model, reference, make, wrong):
    example = make.example(IMAGES)
    ours = jitted_logits(model, wrong(make.pad(example)))
    error = worst(ours, reference.logits(example))
    assert error > 10 * LOGITS_TOLERANCE
