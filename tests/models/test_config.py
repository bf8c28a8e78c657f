"""Reading config.json in both layouts, at full size, and refusing what the model does not do."""

import copy
import json
import math

import jax
import pytest
from flax import nnx

from dig_jax.models.qwen3_vl.config import Qwen3VLConfig
from dig_jax.models.qwen3_vl.model import Qwen3VL

# text: hidden, intermediate, layers, heads, tied; vision: hidden, intermediate, depth, taps; parameters.
SIZES = {
    "2B": ((2048, 6144, 28, 16, True), (1024, 4096, 24, [5, 11, 17]), 2_127_532_032),
    "4B": ((2560, 9728, 36, 32, True), (1024, 4096, 24, [5, 11, 17]), 4_437_815_808),
    "8B": ((4096, 12288, 36, 32, False), (1152, 4304, 27, [8, 16, 24]), 8_767_123_696),
    "32B": ((5120, 25600, 64, 64, False), (1152, 4304, 27, [8, 16, 24]), 33_357_390_064),
}


def hub_config(size: str) -> dict:
    """config.json as the hub has it, written by transformers 4.57."""
    (hidden, inner, layers, heads, tied), (vision_hidden, vision_inner, depth, taps), _ = SIZES[size]
    return {
        "architectures": ["Qwen3VLForConditionalGeneration"],
        "model_type": "qwen3_vl",
        "image_token_id": 151655,
        "video_token_id": 151656,
        "vision_start_token_id": 151652,
        "vision_end_token_id": 151653,
        "tie_word_embeddings": tied,
        "transformers_version": "4.57.0.dev0",
        "text_config": {
            "model_type": "qwen3_vl_text",
            "attention_bias": False,
            "attention_dropout": 0.0,
            "bos_token_id": 151643,
            "eos_token_id": 151645,
            "dtype": "bfloat16",
            "head_dim": 128,
            "hidden_act": "silu",
            "hidden_size": hidden,
            "initializer_range": 0.02,
            "intermediate_size": inner,
            "max_position_embeddings": 262144,
            "num_attention_heads": heads,
            "num_hidden_layers": layers,
            "num_key_value_heads": 8,
            "rms_norm_eps": 1e-6,
            "rope_scaling": {
                "mrope_interleaved": True,
                "mrope_section": [24, 20, 20],
                "rope_type": "default",
            },
            "rope_theta": 5000000,
            "use_cache": True,
            "vocab_size": 151936,
        },
        "vision_config": {
            "model_type": "qwen3_vl",
            "deepstack_visual_indexes": taps,
            "depth": depth,
            "hidden_act": "gelu_pytorch_tanh",
            "hidden_size": vision_hidden,
            "in_channels": 3,
            "initializer_range": 0.02,
            "intermediate_size": vision_inner,
            "num_heads": 16,
            "num_position_embeddings": 2304,
            "out_hidden_size": hidden,
            "patch_size": 16,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
        },
    }


@pytest.mark.parametrize("size", SIZES)
def test_full_size_models_have_the_published_number_of_parameters(size):
    config = Qwen3VLConfig.from_dict(hub_config(size))
    model = nnx.eval_shape(lambda: Qwen3VL(config, rngs=nnx.Rngs(0)))
    assert sum(math.prod(p.shape) for p in jax.tree.leaves(nnx.state(model, nnx.Param))) == SIZES[size][2]


def test_every_parameter_names_all_its_axes():
    model = nnx.eval_shape(lambda: Qwen3VL(Qwen3VLConfig.from_dict(hub_config("8B")), rngs=nnx.Rngs(0)))
    names = set()
    for path, parameter in nnx.to_flat_state(nnx.state(model, nnx.Param)):
        axes = parameter.get_metadata("out_sharding")
        assert len(axes) == len(parameter.shape), path
        assert "layers" not in axes[1:], path
        names |= set(axes)
    assert names == {
        *("vocab", "embed", "heads", "kv_heads", "head_dim", "mlp", "layers"),
        *("vision_embed", "vision_heads", "vision_mlp", None),
    }


def test_both_layouts_give_the_same_configuration():
    old = hub_config("4B")
    new = copy.deepcopy(old)
    text = new["text_config"]
    text["rope_parameters"] = {**text.pop("rope_scaling"), "rope_theta": text.pop("rope_theta")}
    new["vision_config"]["model_type"] = "qwen3_vl_vision"
    assert Qwen3VLConfig.from_dict(old) == Qwen3VLConfig.from_dict(new)


def test_the_written_layout_reads_back_and_survives_json():
    config = Qwen3VLConfig.from_dict(hub_config("32B"))
    assert Qwen3VLConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_transformers_reads_the_written_layout_the_same_way():
    pytest.importorskip("torch")
    from transformers import Qwen3VLConfig as Theirs

    config = Qwen3VLConfig.from_dict(hub_config("8B"))
    theirs = Theirs.from_dict(config.to_dict())
    assert Qwen3VLConfig.from_dict(theirs.to_dict()) == config
    assert (
        Theirs.from_dict(hub_config("8B")).text_config.rope_parameters == theirs.text_config.rope_parameters
    )


def set_in(config: dict, path: str, value: object) -> dict:
    *parents, key = path.split(".")
    for parent in parents:
        config = config[parent]
    config[key] = value
    return config


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("model_type", "qwen3_vl_moe", "model_type is 'qwen3_vl_moe', but only 'qwen3_vl'"),
        ("text_config.rope_scaling.rope_type", "yarn", "rope_type is 'yarn', but only 'default'"),
        ("text_config.rope_scaling.mrope_interleaved", False, "mrope_interleaved is False"),
        ("text_config.rope_scaling", None, "rope_scaling is null"),
        ("text_config.attention_bias", True, "attention_bias is True"),
        ("text_config.hidden_act", "gelu", "hidden_act is 'gelu'"),
        ("text_config.num_attention_heads", 12, "num_attention_heads is 12, expected a multiple of num_key"),
        ("text_config.head_dim", 64, "mrope_section is .* expected three numbers that sum to head_dim / 2"),
        ("vision_config.num_position_embeddings", 2000, "num_position_embeddings is 2000, expected a square"),
        ("vision_config.deepstack_visual_indexes", [5, 24], "deepstack_visual_indexes is .* below depth"),
        ("vision_config.num_heads", 10, "hidden_size is 1024, expected num_heads"),
        ("vision_config.out_hidden_size", 99, "out_hidden_size is 99, expected text_config.hidden_size"),
    ],
)
def test_a_setting_the_model_can_not_do_is_an_error_that_names_it(path, value, message):
    config = hub_config("4B")
    set_in(config, path, value)
    with pytest.raises(ValueError, match=message):
        Qwen3VLConfig.from_dict(config)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("text_config", "config.json: missing key 'text_config'"),
        ("tie_word_embeddings", "config.json: missing key 'tie_word_embeddings'"),
        ("text_config.rope_theta", "text_config: missing key 'rope_theta'"),
        ("vision_config.depth", "vision_config: missing key 'depth'"),
    ],
)
def test_a_missing_key_is_an_error_that_names_it(path, message):
    config = hub_config("4B")
    del set_in(config, path, None)[path.split(".")[-1]]
    with pytest.raises(ValueError, match=message):
        Qwen3VLConfig.from_dict(config)
