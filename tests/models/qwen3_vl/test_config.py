"""Reading config.json in both layouts, at full size, and refusing what the model does not do."""

import copy
import json
import math

import jax
import pytest
from flax import nnx

from dig_jax.models.qwen3_vl.config import Qwen3VLConfig
from dig_jax.models.qwen3_vl.model import Qwen3VL
from dig_jax.models.qwen3_vl.published import architecture

# text: hidden, intermediate, layers, heads, tied; vision: hidden, intermediate, depth, taps; parameters.
SIZES = {
    "2B": ((2048, 6144, 28, 16, True), (1024, 4096, 24, [5, 11, 17]), 2_127_532_032),
    "4B": ((2560, 9728, 36, 32, True), (1024, 4096, 24, [5, 11, 17]), 4_437_815_808),
    "8B": ((4096, 12288, 36, 32, False), (1152, 4304, 27, [8, 16, 24]), 8_767_123_696),
    "32B": ((5120, 25600, 64, 64, False), (1152, 4304, 27, [8, 16, 24]), 33_357_390_064),
}

# What `to_dict` of transformers 4.57.1 adds to each part of a configuration.
GENERIC_KEYS_OF_4_57 = {
    **{"return_dict": True, "output_hidden_states": False, "output_attentions": False, "torchscript": False},
    **{"pruned_heads": {}, "chunk_size_feed_forward": 0, "tf_legacy_loss": False, "use_bfloat16": False},
    **{"is_encoder_decoder": False, "is_decoder": False, "cross_attention_hidden_size": None},
    **{"add_cross_attention": False, "tie_encoder_decoder": False, "finetuning_task": None},
    **{"id2label": {"0": "LABEL_0", "1": "LABEL_1"}, "label2id": {"LABEL_0": 0, "LABEL_1": 1}},
    **{"task_specific_params": None, "problem_type": None, "tokenizer_class": None, "prefix": None},
    **{"bos_token_id": None, "pad_token_id": None, "eos_token_id": None, "sep_token_id": None},
    **{"decoder_start_token_id": None, "max_length": 20, "min_length": 0, "do_sample": False},
    **{"early_stopping": False, "num_beams": 1, "temperature": 1.0, "top_k": 50, "top_p": 1.0},
    **{"typical_p": 1.0, "repetition_penalty": 1.0, "length_penalty": 1.0, "no_repeat_ngram_size": 0},
    **{"encoder_no_repeat_ngram_size": 0, "bad_words_ids": None, "num_return_sequences": 1},
    **{"output_scores": False, "return_dict_in_generate": False, "forced_bos_token_id": None},
    **{"forced_eos_token_id": None, "remove_invalid_values": False, "suppress_tokens": None},
    **{"exponential_decay_length_penalty": None, "begin_suppress_tokens": None, "num_beam_groups": 1},
    **{"diversity_penalty": 0.0, "_name_or_path": "", "tie_word_embeddings": True},
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
            # A value that is the default of the class is left out.
            **({"tie_word_embeddings": True} if tied else {}),
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


def transformers_5_config(size: str) -> dict:
    """The same as `save_pretrained` of transformers 5.23 writes it."""
    config = hub_config(size)
    config["transformers_version"] = "5.23.0"
    text, vision = config["text_config"], config["vision_config"]
    text["rope_parameters"] = {**text.pop("rope_scaling"), "rope_theta": text.pop("rope_theta")}
    text["pad_token_id"] = None
    vision["model_type"] = "qwen3_vl_vision"
    vision["rope_parameters"] = {"rope_theta": 10000.0, "rope_type": "axial"}
    return config


LAYOUTS = {"hub": hub_config, "transformers 5": transformers_5_config}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_full_size_models_have_the_published_number_of_parameters(size, layout):
    config = Qwen3VLConfig.from_dict(LAYOUTS[layout](size))
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


@pytest.mark.parametrize("size", SIZES)
def test_both_layouts_give_the_same_configuration(size):
    assert Qwen3VLConfig.from_dict(hub_config(size)) == Qwen3VLConfig.from_dict(transformers_5_config(size))


@pytest.mark.parametrize("size", SIZES)
def test_the_table_of_published_models_says_what_their_checkpoints_say(size):
    assert architecture(size) == Qwen3VLConfig.from_dict(hub_config(size))


@pytest.mark.parametrize("size", SIZES)
def test_the_written_layout_reads_back_and_survives_json(size):
    config = Qwen3VLConfig.from_dict(hub_config(size))
    assert Qwen3VLConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_the_generic_keys_of_transformers_4_57_are_no_obstacle():
    config = hub_config("8B")
    expected = Qwen3VLConfig.from_dict(config)
    for part in (config, config["text_config"], config["vision_config"]):
        part.update({key: value for key, value in GENERIC_KEYS_OF_4_57.items() if key not in part})
    config["text_config"]["tie_word_embeddings"] = False
    assert Qwen3VLConfig.from_dict(config) == expected


@pytest.fixture(scope="module")
def theirs():
    """transformers' own class, which needs no torch."""
    from transformers import Qwen3VLConfig as Theirs

    return Theirs


@pytest.mark.parametrize("size", SIZES)
def test_transformers_makes_of_the_hub_layout_the_very_file_tested_here(size, theirs, tmp_path):
    theirs.from_dict(hub_config(size)).save_pretrained(tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    written["transformers_version"] = "5.23.0"
    assert written == transformers_5_config(size)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_all_keys_that_transformers_holds_in_memory_are_no_obstacle(layout, theirs):
    config = LAYOUTS[layout]("8B")
    in_memory = theirs.from_dict(copy.deepcopy(config)).to_dict()
    assert len(in_memory["text_config"]) > len(config["text_config"]) + 5
    assert Qwen3VLConfig.from_dict(in_memory) == Qwen3VLConfig.from_dict(config)


def test_transformers_reads_the_written_layout_the_same_way(theirs, tmp_path):
    config = Qwen3VLConfig.from_dict(hub_config("8B"))
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    loaded = theirs.from_pretrained(tmp_path)
    assert Qwen3VLConfig.from_dict(loaded.to_dict()) == config
    original = theirs.from_dict(hub_config("8B"))
    assert loaded.text_config.rope_parameters == original.text_config.rope_parameters
    assert loaded.vision_config.rope_parameters == original.vision_config.rope_parameters


def test_a_converted_model_that_transformers_saved_reads_although_its_dtypes_differ():
    """`model.to(float16).save_pretrained(...)` leaves the dtype of the parts as it was."""
    config = transformers_5_config("4B")
    config["dtype"], config["vision_config"]["dtype"] = "float16", "float32"
    assert Qwen3VLConfig.from_dict(config) == Qwen3VLConfig.from_dict(hub_config("4B"))


def set_in(config: dict, path: str, value: object) -> dict:
    *parents, key = path.split(".")
    for parent in parents:
        config = config[parent]
    config[key] = value
    return config


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("text_config.rope_scaling.rope_type", "yarn", "rope_type is 'yarn', but only 'default'"),
        ("text_config.rope_scaling.mrope_interleaved", False, "mrope_interleaved is False, but only True"),
        ("text_config.attention_bias", True, "text_config: attention_bias is True"),
        ("text_config.attention_dropout", 0.1, "text_config: attention_dropout is 0.1, but only 0 is"),
        ("text_config.hidden_act", "gelu", "text_config: hidden_act is 'gelu'"),
        ("text_config.model_type", "qwen3", "text_config: model_type is 'qwen3', but only 'qwen3_vl_text'"),
        ("vision_config.hidden_act", "gelu", "vision_config: hidden_act is 'gelu', but only 'gelu_pyt"),
        ("vision_config.model_type", "qwen2_vl", "vision_config: model_type is 'qwen2_vl'"),
        ("vision_config.rope_parameters", {"rope_theta": 1e6}, "rope_theta is 1000000.0, but only 10000.0"),
        ("architectures", ["Qwen3VLForX"], "architectures is .'Qwen3VLForX'., but only .'Qwen3VLForCond"),
        ("is_encoder_decoder", True, "config.json: is_encoder_decoder is True, but only False"),
        ("quantization_config", {"quant_method": "fp8"}, "quantization_config is .*, but only None"),
    ],
)
def test_a_setting_the_model_can_not_do_is_an_error_that_names_it(path, value, message):
    config = hub_config("4B")
    set_in(config, path, value)
    with pytest.raises(ValueError, match=message):
        Qwen3VLConfig.from_dict(config)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("text_config.num_attention_heads", 12, "num_attention_heads is 12, expected a multiple of num_key"),
        ("text_config.head_dim", 64, "mrope_section is .* expected three numbers that sum to head_dim / 2"),
        ("text_config.hidden_size", "2560", "hidden_size is '2560', expected a whole number"),
        ("text_config.num_key_value_heads", None, "num_key_value_heads is None, expected a whole number"),
        ("text_config.num_hidden_layers", 0, "num_hidden_layers is 0, expected more than 0"),
        ("text_config.rms_norm_eps", "1e-6", "rms_norm_eps is '1e-6', expected a number"),
        ("vision_config.depth", True, "depth is True, expected a whole number"),
        ("vision_config.patch_size", [16, 16], "patch_size is .16, 16., expected a whole number"),
        ("vision_config.num_position_embeddings", 2000, "num_position_embeddings is 2000, expected a square"),
        ("vision_config.deepstack_visual_indexes", [5, 24], "deepstack_visual_indexes is .* below depth"),
        ("vision_config.deepstack_visual_indexes", 5, "deepstack_visual_indexes is 5, expected a list of"),
        ("vision_config.num_heads", 10, "hidden_size is 1024, expected num_heads"),
        ("vision_config.out_hidden_size", 99, "out_hidden_size is 99, expected text_config.hidden_size"),
        (
            "image_token_id",
            151936,
            "image_token_id, .* expected four different words below text_config.vocab",
        ),
        ("video_token_id", 151655, "video_token_id, .* is .151655, 151655, 151652, 151653., expected four"),
        ("tie_word_embeddings", None, "config.json: tie_word_embeddings is None, expected true or false"),
        ("vision_config", "none", "vision_config is 'none', expected an object"),
    ],
)
def test_an_impossible_value_is_an_error_that_names_it(path, value, message):
    config = hub_config("4B")
    set_in(config, path, value)
    with pytest.raises(ValueError, match=message):
        Qwen3VLConfig.from_dict(config)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("text_config", "config.json: missing key 'text_config'"),
        ("tie_word_embeddings", "config.json: missing key 'tie_word_embeddings'"),
        ("text_config.rope_theta", "text_config.rope_scaling: missing key 'rope_theta'"),
        ("text_config.rope_scaling", "text_config.rope_parameters: missing key 'mrope_section'"),
        ("text_config.rope_scaling.mrope_section", "text_config.rope_scaling: missing key 'mrope_section'"),
        ("vision_config.depth", "vision_config: missing key 'depth'"),
    ],
)
def test_a_missing_key_is_an_error_that_names_it(path, message):
    config = hub_config("4B")
    del set_in(config, path, None)[path.split(".")[-1]]
    with pytest.raises(ValueError, match=message):
        Qwen3VLConfig.from_dict(config)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("logit_scale", "config.json: unknown key 'logit_scale'"),
        ("text_config.sliding_window", "text_config: unknown key 'sliding_window'"),
        ("text_config.rope_parameters.factor", "text_config.rope_parameters: unknown key 'factor'"),
        ("text_config.rope_parameters.temperature", "rope_parameters: unknown key 'temperature'"),
        ("vision_config.window_size", "vision_config: unknown key 'window_size'"),
        ("vision_config.rope_parameters.factor", "vision_config.rope_parameters: unknown key 'factor'"),
    ],
)
def test_an_unknown_key_is_an_error_that_names_it(path, message):
    config = transformers_5_config("4B")
    set_in(config, path, 4)
    with pytest.raises(ValueError, match=message):
        Qwen3VLConfig.from_dict(config)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("text_config.tie_word_embeddings", False, "tie_word_embeddings is False, but config.json has True"),
        ("text_config.rope_theta", 1e6, "rope_theta is 1000000.0, but rope_parameters.rope_theta is 5000000"),
        (
            "text_config.rope_scaling",
            {"mrope_section": [16, 24, 24]},
            "rope_scaling.mrope_section is .16, 24, 24., but rope_parameters.mrope_section is .24, 20, 20.",
        ),
        ("text_config.torch_dtype", "float32", "torch_dtype is 'float32', but dtype, .* has 'bfloat16'"),
    ],
)
def test_two_keys_that_contradict_each_other_are_an_error_that_names_both(path, value, message):
    config = transformers_5_config("4B")
    set_in(config, path, value)
    with pytest.raises(ValueError, match=message):
        Qwen3VLConfig.from_dict(config)


def test_keys_of_both_layouts_that_agree_are_no_contradiction():
    old, new = hub_config("4B"), transformers_5_config("4B")
    both = copy.deepcopy(new)
    both["text_config"] |= {key: old["text_config"][key] for key in ("rope_scaling", "rope_theta")}
    assert Qwen3VLConfig.from_dict(both) == Qwen3VLConfig.from_dict(new)
    new["text_config"]["rope_scaling"] = None
    assert Qwen3VLConfig.from_dict(both) == Qwen3VLConfig.from_dict(new)


def test_a_mixture_of_experts_is_refused_by_its_name_and_by_its_keys():
    config = hub_config("4B")
    config["model_type"] = "qwen3_vl_moe"
    with pytest.raises(ValueError, match="model_type is 'qwen3_vl_moe', but only 'qwen3_vl' is supported"):
        Qwen3VLConfig.from_dict(config)
    config["model_type"] = "qwen3_vl"
    config["text_config"] |= {"num_experts": 128, "moe_intermediate_size": 768}
    with pytest.raises(ValueError, match="moe_intermediate_size belongs to a mixture of experts") as error:
        Qwen3VLConfig.from_dict(config)
    assert "num_experts belongs to a mixture of experts, which is not supported" in str(error.value)


def test_all_problems_of_a_file_are_told_at_once():
    config = hub_config("4B")
    del config["vision_config"]["depth"]
    config["text_config"]["hidden_act"] = "relu"
    config["text_config"]["head_dmi"] = config["text_config"].pop("head_dim")
    with pytest.raises(ValueError) as error:
        Qwen3VLConfig.from_dict(config)
    assert str(error.value).split("\n  ")[1:] == [
        "text_config: hidden_act is 'relu', but only 'silu' is supported",
        "text_config: missing key 'head_dim'",
        "vision_config: missing key 'depth'",
        "text_config: unknown key 'head_dmi'; it may change the model; remove it if it can not",
    ]
