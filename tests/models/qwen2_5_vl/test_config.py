"""config.json of Qwen2.5-VL: flat as on the hub, nested as by transformers 5, and what lies between."""

import copy
import dataclasses
import json

import pytest

from dig_jax.models import families
from dig_jax.models.qwen2_5_vl.config import Qwen2_5VLConfig
from dig_jax.models.qwen2_5_vl.published import SIZES, architecture


def hub_config(size):
    """As transformers 4.41 wrote it: no text_config, `in_chans`, and keys that nothing reads."""
    text = architecture(size).to_dict()["text_config"]
    vision = architecture(size).to_dict()["vision_config"]
    rope, channels = text.pop("rope_parameters"), vision.pop("in_channels")
    del text["model_type"], vision["model_type"]
    return {
        **text,
        "architectures": ["Qwen2_5_VLForConditionalGeneration"],
        "model_type": "qwen2_5_vl",
        "bos_token_id": 151643,
        "eos_token_id": 151645,
        "image_token_id": 151655,
        "video_token_id": 151656,
        "vision_start_token_id": 151652,
        "vision_end_token_id": 151653,
        "vision_token_id": 151654,
        "sliding_window": 32768,
        "max_window_layers": 28,
        "tie_word_embeddings": size == "3B",
        "torch_dtype": "bfloat16",
        "transformers_version": "4.41.2",
        "rope_theta": rope["rope_theta"],
        "rope_scaling": {"type": "mrope", "mrope_section": rope["mrope_section"]},
        "vision_config": {**vision, "in_chans": channels, "spatial_patch_size": 14},
    }


@pytest.mark.parametrize("size", SIZES)
def test_the_flat_file_of_the_hub_is_read(size):
    assert Qwen2_5VLConfig.from_dict(hub_config(size)) == architecture(size)


@pytest.mark.parametrize("size", ["3B", "7B"])
def test_transformers_makes_the_same_of_the_flat_file_and_of_ours(size):
    from transformers import Qwen2_5_VLConfig

    for file in (hub_config(size), architecture(size).to_dict()):
        nested = json.loads(Qwen2_5_VLConfig.from_dict(file).to_json_string(use_diff=False))
        assert "text_config" in nested and "hidden_size" not in nested
        assert Qwen2_5VLConfig.from_dict(nested) == architecture(size)


def test_text_keys_that_stand_twice_have_to_agree():
    config = hub_config("7B")
    config["text_config"] = {**config, "model_type": "qwen2_5_vl_text", "image_token_id": None}
    del config["text_config"]["vision_config"]
    assert Qwen2_5VLConfig.from_dict(config) == architecture("7B")
    config["hidden_size"] = 1024
    with pytest.raises(ValueError, match="hidden_size is 1024, but text_config has 3584"):
        Qwen2_5VLConfig.from_dict(config)


def test_keys_of_the_tower_that_4_49_leaves_out_have_the_values_of_its_class():
    config = hub_config("7B")
    kept = ("hidden_size", "in_chans", "spatial_patch_size", "tokens_per_second")
    config["vision_config"] = {key: config["vision_config"][key] for key in kept}
    assert Qwen2_5VLConfig.from_dict(config) == architecture("7B")


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        ("", "use_sliding_window", True, "use_sliding_window is True, but only False is supported"),
        ("", "layer_types", ["sliding_attention"], "layer_types is .* only 'full_attention' is supported"),
        ("", "attention_chunk", 7, "unknown key 'attention_chunk'"),
        ("rope_scaling", "type", "yarn", "type is 'yarn'"),
        ("rope_scaling", "factor", 4.0, "unknown key 'factor'"),
        ("vision_config", "window_size", 100, "window_size is 100, expected a multiple of .*28"),
        ("vision_config", "in_chans", 1, "in_chans is 1, but in_channels has 3"),
        ("vision_config", "fullatt_block_indexes", [7, 40], r"\(7, 40\), expected increasing block numbers"),
    ],
)
def test_what_would_be_another_model_is_refused(section, key, value, message):
    config = copy.deepcopy(hub_config("7B"))
    (config[section] if section else config)[key] = value
    with pytest.raises(ValueError, match=message):
        Qwen2_5VLConfig.from_dict(config)


def test_attention_inside_windows_is_counted_as_such():
    """Two images of 32x32 patches: 28 of 32 blocks see 64 patches each, and not 1,024."""
    products = families.of_type("qwen2_5_vl").vision_products
    vision = architecture("7B").vision
    whole = dataclasses.replace(vision, fullatt_block_indexes=tuple(range(32)))
    saved = products(whole, 2048, 2) - products(vision, 2048, 2)
    assert saved == 28 * 2 * 1280 * 2048 * (1024 - 64)


def test_a_published_model_is_found_by_its_name():
    assert families.published("Qwen2.5-VL-32B") == architecture("32B")
    assert families.published("7B") == architecture("7B")  # no other family has one
    assert families.of(families.published("32B")).title == "Qwen3-VL"
