"""Every part of the model gives the numbers of its counterpart in transformers, in float32.

One pass of theirs over a prompt with three images is recorded, inputs and outputs of all parts, and ours get
the same inputs: a failure here says which part is wrong.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx

from dig_jax.models.inputs import Prompts
from dig_jax.models.nn.attention import PLAIN
from dig_jax.models.nn.layers import rope_frequencies
from dig_jax.models.nn.patches import rope
from dig_jax.models.qwen3_vl.model import Qwen3VL
from tests.models.conftest import PromptMaker
from tests.models.parity import case, random_model, reference_of
from tests.models.qwen3_vl.configs import CONFIGS, MID_CONFIG, small_config

TOLERANCE = 1e-5  # of values up to 1, and relative to the largest where that is more


@dataclasses.dataclass
class Recording:
    """What went in and out of every part of their model, by name; and ours, with the same prompt unpadded."""

    model: Qwen3VL
    prompts: Prompts
    inputs: dict[str, np.ndarray]
    outputs: dict[str, Any]

    @property
    def grids(self) -> tuple[np.ndarray, ...]:
        return self.prompts.patch_image, self.prompts.patch_coords, self.prompts.patch_grid

    @property
    def vision_rotation(self) -> Any:
        return rope(self.prompts.patch_coords, self.model.config.vision.head_dim)

    @property
    def text_rotation(self) -> Any:
        return self.model.text.rotation(np.moveaxis(self.prompts.positions, 1, -1))

    def check(self, name: str, ours: Any) -> None:
        """Compares with the output of their part, or the first of its outputs."""
        theirs = self.outputs[name]
        error = np.abs(np.asarray(ours).reshape(theirs.shape) - theirs).max()
        assert error < TOLERANCE * max(1, np.abs(theirs).max()), f"{name} differs by {error:.1e}"


def record(model: Any, run: Callable[[], Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """First input and output, where they are arrays, of every part of `model` during `run()`, by name."""
    inputs: dict[str, Any] = {}
    outputs: dict[str, Any] = {}

    def hook_for(name: str) -> Any:
        def hook(module: Any, args: Any, kwargs: Any, output: Any) -> None:
            values = [*args, *kwargs.values()][0], output[0] if isinstance(output, tuple) else output
            for kept, value in zip((inputs, outputs), values, strict=True):
                if hasattr(value, "numpy"):
                    kept[name] = value.numpy()

        return hook

    hooks = [
        module.register_forward_hook(hook_for(name), with_kwargs=True)
        for name, module in model.named_modules()
    ]
    run()
    for hook in hooks:
        hook.remove()
    return inputs, outputs


@pytest.fixture(scope="module", params=CONFIGS)
def recording(request: pytest.FixtureRequest) -> Recording:
    pair = case(request.param)
    example = pair.examples("three images")[0]
    inputs, outputs = record(pair.reference.model.model, lambda: pair.reference.logits(example))
    prompts = pair.make.pad(
        example, prompt_length=len(example.ids), num_patches=len(inputs["visual.patch_embed"])
    )
    return Recording(pair.model, prompts, inputs, outputs)


def layer(stacked: nnx.Module, index: int) -> Any:
    """One layer of a stack."""
    graphdef, params = nnx.split(stacked)
    return nnx.merge(graphdef, jax.tree.map(lambda x: x[index], params))


def call(part: Any, x: np.ndarray) -> Any:
    return jax.jit(lambda part, x: part(x))(part, x)


def test_patch_embedding(recording):
    name = "visual.patch_embed"
    recording.check(name, call(recording.model.vision.patch_embed, recording.inputs[name][None]))


def test_interpolated_table_of_positions(recording):
    """What is added to the patch embedding before the first block."""
    _, coords, grid = recording.grids
    ours = jax.jit(lambda tower: tower.position_embedding(coords, grid))(recording.model.vision)
    theirs = recording.inputs["visual.blocks.0"] - recording.outputs["visual.patch_embed"]
    np.testing.assert_allclose(ours[0], theirs, atol=TOLERANCE)


def test_the_real_table_of_positions_over_large_and_narrow_images():
    """48 x 48 positions stretched over images of up to three megapixels."""
    grids = [(96, 38), (2, 58), (48, 48), (50, 4)]
    config = small_config(text_layers=1, depth=1, taps=(), positions=48 * 48)
    model = random_model(config)
    theirs, torch = reference_of(model), pytest.importorskip("torch")
    example = PromptMaker(config).example(grids)
    pixels = torch.tensor(np.concatenate([patches for patches, _ in example.images]))
    tower = theirs.model.model.visual
    with torch.no_grad():
        grid_thw = torch.tensor([(1, *grid) for grid in grids])
        inputs, outputs = record(tower, lambda: tower(pixels, grid_thw=grid_thw))
    prompts = PromptMaker(config).pad(example, prompt_length=len(example.ids), num_patches=len(pixels))
    ours = model.vision.position_embedding(prompts.patch_coords, prompts.patch_grid)
    np.testing.assert_allclose(ours[0], inputs["blocks.0"] - outputs["patch_embed"], atol=TOLERANCE)


def test_rotary_angles_of_patches(recording):
    half = recording.model.config.vision.head_dim // 2
    cos = recording.outputs["visual.rotary_pos_emb"]
    np.testing.assert_allclose(recording.vision_rotation.cos[0], cos[:, :half], atol=1e-6)


@pytest.mark.parametrize("part", ["norm1", "norm2", "mlp"])
def test_parts_of_a_vision_block(recording, part):
    name = f"visual.blocks.1.{part}"
    block = layer(recording.model.vision.blocks, 1)
    recording.check(name, call(getattr(block, part), recording.inputs[name][None]))


@pytest.mark.parametrize("part", ["attn", ""], ids=["attention", "whole"])
def test_a_vision_block_and_its_attention(recording, part):
    name = f"visual.blocks.1.{part}".rstrip(".")
    block = layer(recording.model.vision.blocks, 1)
    patch_image, _, _ = recording.grids

    def run(block: Any, x: np.ndarray) -> Any:
        module = block.attn if part else block
        return module(x, recording.vision_rotation, lambda qkv: PLAIN.packed(qkv, patch_image))

    recording.check(name, jax.jit(run)(block, recording.inputs[name][None]))


def test_merger(recording):
    name = "visual.merger"
    recording.check(name, call(recording.model.vision.merger, recording.inputs[name][None]))


def test_every_deepstack_merger(recording):
    for index in range(len(recording.model.config.vision.deepstack_visual_indexes)):
        name = f"visual.deepstack_merger_list.{index}"
        merger = layer(recording.model.vision.deepstack_mergers, index)
        recording.check(name, call(merger, recording.inputs[name][None]))


def test_the_vision_tower(recording):
    features, deepstack = jax.jit(Qwen3VL.encode_images)(recording.model, recording.prompts)
    recording.check("visual.merger", features)
    for index, tap in enumerate(deepstack):
        recording.check(f"visual.deepstack_merger_list.{index}", tap)


def test_rotary_angles_of_text_and_images(recording):
    half = recording.model.config.text.head_dim // 2
    cos = recording.outputs["language_model.rotary_emb"]
    np.testing.assert_allclose(recording.text_rotation.cos, cos[..., :half], atol=1e-6)


def test_rotary_angles_of_a_real_model_up_to_its_longest_context():
    """Frequencies that were exact, and not rounded as PyTorch rounds them, would be off by 0.03 here."""
    torch = pytest.importorskip("torch")
    from transformers import Qwen3VLTextConfig
    from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLTextRotaryEmbedding

    config = MID_CONFIG.text
    text = nnx.eval_shape(lambda: Qwen3VL(MID_CONFIG, rngs=nnx.Rngs(0))).text
    positions = np.random.default_rng(0).integers(0, config.max_position_embeddings, (1, 1000, 3))
    theirs = Qwen3VLTextRotaryEmbedding(Qwen3VLTextConfig(**MID_CONFIG.to_dict()["text_config"]))
    cos, _ = theirs(torch.zeros(1), torch.tensor(positions).permute(2, 0, 1))
    ours = jax.jit(text.rotation)(positions)
    error = np.abs(np.asarray(ours.cos) - cos[..., :64].numpy()).max(axis=(0, 1))  # of each frequency
    # Their power function is not correctly rounded: by the processor, one to seven of the 64 were seen to
    # differ in the last bit.
    assert np.sum(error > 1e-6) <= 16 and np.median(error) < 1e-6
    last_bit = 2**-22 * config.max_position_embeddings * rope_frequencies(config.rope_theta, config.head_dim)
    assert np.all(error <= last_bit + 1e-6)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("input_layernorm", "input_norm"),
        ("post_attention_layernorm", "post_norm"),
        ("self_attn.q_norm", "attn.q_norm"),
        ("self_attn.k_norm", "attn.k_norm"),
        ("mlp", "mlp"),
    ],
)
def test_parts_of_a_decoder_layer(recording, theirs, ours):
    name = f"language_model.layers.1.{theirs}"
    part = layer(recording.model.text.layers, 1)
    for attribute in ours.split("."):
        part = getattr(part, attribute)
    recording.check(name, call(part, recording.inputs[name]))


def test_attention_of_a_decoder_layer(recording):
    name = "language_model.layers.1.self_attn"
    attention = layer(recording.model.text.layers, 1).attn

    def run(attention: Any, x: np.ndarray) -> Any:
        return attention.o_proj(PLAIN.causal(attention.project(x, recording.text_rotation)))

    recording.check(name, jax.jit(run)(attention, recording.inputs[name]))


def test_a_whole_decoder_layer(recording):
    name = "language_model.layers.1"

    def run(layer: Any, x: np.ndarray) -> Any:
        return layer([x], [recording.text_rotation], lambda qkv: [PLAIN.causal(qkv)])[0][0]

    recording.check(name, jax.jit(run)(layer(recording.model.text.layers, 1), recording.inputs[name]))


def test_the_final_norm(recording):
    name = "language_model.norm"
    recording.check(name, call(recording.model.text.norm, recording.inputs[name]))
