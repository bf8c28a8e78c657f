"""config.json of TinyGroundingGPT, and the sizes of the paper's models."""

import copy

import jax
import pytest
from flax import nnx

from dig_jax.aot.inputs import pair_bucket
from dig_jax.models import families
from dig_jax.models.clip_dino_qwen.config import ClipDinoQwenConfig
from dig_jax.models.clip_dino_qwen.published import SIZES, architecture

CLIP, DINO = 303_507_456, 304_368_640  # as published, with the last layers and what comes after them
LAYER, CLASS_NORM, MASK = 12_596_224, 2 * 1024, 1024  # of CLIP; DINOv2's has two layer scales more
QWEN = {"1.5B": 1_543_714_304, "3B": 3_085_938_688, "7B": 7_615_616_512}
PROJECTOR = {"1.5B": 5_508_096, "3B": 8_392_704, "7B": 20_192_256}


@pytest.mark.parametrize("size", SIZES)
def test_parts_have_the_published_numbers_of_parameters_without_what_is_left_out(size):
    model = families.abstract_model(families.published(f"TinyGroundingGPT-{size}"))

    def count(part):
        return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(part, nnx.Param)))

    assert count(model.vision.clip) == CLIP - LAYER - CLASS_NORM
    assert count(model.vision.dino) == DINO - LAYER - 2 * 1024 - CLASS_NORM - MASK
    assert count(model.vision.merger) == PROJECTOR[size]
    head = 0 if model.head is None else model.head.size
    assert count(model.text) + head == QWEN[size]


def test_an_image_has_576_tokens_and_an_object_144():
    config = architecture("3B")
    assert {word: (24 // side) ** 2 for word, side in config.placeholders.items()} == {
        151655: 576,
        151654: 144,
    }
    assert families.published("1.5B") == architecture("1.5B")  # no other family has one


def test_what_is_written_is_read_back():
    for size in SIZES:
        assert ClipDinoQwenConfig.from_dict(architecture(size).to_dict()) == architecture(size)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("vision_config.object_side", 5, "object_side is 5, expected a divisor of the 24 patches"),
        ("vision_config.hidden_act", "gelu", "hidden_act is 'gelu', but only 'quick_gelu' is supported"),
        ("vision_config.dino.registers", 4, "vision_config.dino: unknown key 'registers'"),
        ("vision_config.dino.interpolate_offset", 1.5, "interpolate_offset is 1.5, expected 0 or more"),
        ("vision_config.image_size", 340, "image_size is 340, expected a multiple of patch_size"),
        ("object_pad_token_id", 151655, "different words below text_config.vocab_size"),
        ("text_config.use_sliding_window", True, "use_sliding_window is True, but only False is supported"),
    ],
)
def test_what_would_be_another_model_is_refused(path, value, message):
    config = copy.deepcopy(architecture("1.5B").to_dict())
    *sections, key = path.split(".")
    section = config
    for name in sections:
        section = section[name]
    section[key] = value
    with pytest.raises(ValueError, match=message):
        ClipDinoQwenConfig.from_dict(config)


def test_pairs_are_compiled_at_the_size_that_images_get():
    """Two images of 576 tokens with two markers each, and 150 words: 1,306, rounded up to 21 times 64."""
    bucket = pair_bucket(architecture("3B"), 336, 336, text_tokens=150)
    assert (bucket.prompt_length, bucket.num_patches) == (1344, 1152)
    with pytest.raises(ValueError, match="sees every image at 336x336"):
        pair_bucket(architecture("3B"), 448, 448, text_tokens=150)


def test_multiply_adds_of_the_towers_by_hand():
    """Of one image: 577 tokens in 46 layers, 576 patches of 588 values twice, and the projector."""
    products = families.of_type("clip_dino_qwen").vision_products(architecture("1.5B").vision, 576, 1)
    blocks = 46 * 577 * (4 * 1024**2 + 2 * 1024 * 4096 + 2 * 1024 * 577)
    assert products == blocks + 2 * 576 * 588 * 1024 + 576 * (2048 + 1536) * 1536
