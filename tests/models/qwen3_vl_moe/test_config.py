"""Reading config.json of Qwen3-VL with experts: both layouts, published sizes, and what is refused."""

import copy
import json
import math

import jax
import pytest
from flax import nnx

from dig_jax.aot import flops
from dig_jax.models import families
from dig_jax.models.qwen3_vl.config import Qwen3VLConfig
from dig_jax.models.qwen3_vl_moe.config import Qwen3VLMoeConfig
from dig_jax.models.qwen3_vl_moe.published import architecture
from tests.models.qwen3_vl import test_config as dense

# Width, layers, query heads, inner width of an expert and of the MLP that is not there; parameters of the
# model, of a vision tower alone, and those of a token's decoder and head (10^9).
SIZES = {
    "30B-A3B": (2048, 48, 32, 768, 6144, 31_070_754_032, 538_631_408, 3.04),
    "235B-A22B": (4096, 94, 64, 1536, 12288, 235_670_022_896, 576_388_336, 21.57),
}


def hub_config(size: str) -> dict:
    """config.json as the hub has it, written by transformers 4.57."""
    width, layers, heads, expert, inner, *_ = SIZES[size]
    config = dense.hub_config("8B")
    config |= {"model_type": "qwen3_vl_moe", "architectures": ["Qwen3VLMoeForConditionalGeneration"]}
    config["vision_config"] |= {"model_type": "qwen3_vl_moe", "out_hidden_size": width}
    config["text_config"] |= {
        "model_type": "qwen3_vl_moe_text",
        "decoder_sparse_step": 1,
        "hidden_size": width,
        "intermediate_size": inner,
        "mlp_only_layers": [],
        "moe_intermediate_size": expert,
        "norm_topk_prob": True,
        "num_attention_heads": heads,
        "num_experts": 128,
        "num_experts_per_tok": 8,
        "num_hidden_layers": layers,
        "num_key_value_heads": 4,
        "router_aux_loss_coef": 0.001,
    }
    return config


@pytest.fixture(scope="module")
def theirs():
    """transformers' own class, which needs no torch."""
    from transformers import Qwen3VLMoeConfig as Theirs

    return Theirs


def transformers_5_config(size: str, theirs, folder) -> dict:
    """The same as the installed transformers writes it."""
    theirs.from_dict(hub_config(size)).save_pretrained(folder)
    return json.loads((folder / "config.json").read_text())


@pytest.mark.parametrize("size", SIZES)
def test_full_size_models_have_the_published_number_of_parameters(size):
    config = architecture(size)
    *_, total, vision, active = SIZES[size]
    shapes = nnx.state(families.abstract_model(config), nnx.Param)
    count = {name: sum(math.prod(p.shape) for p in jax.tree.leaves(part)) for name, part in shapes.items()}
    assert sum(count.values()) == total and count["vision"] == vision
    assert flops.decode(config, context=0) / 2e9 == pytest.approx(active, abs=0.01)


@pytest.mark.parametrize("size", SIZES)
def test_both_layouts_say_what_the_table_of_published_models_says(size, theirs, tmp_path):
    assert Qwen3VLMoeConfig.from_dict(hub_config(size)) == architecture(size)
    newer = transformers_5_config(size, theirs, tmp_path)
    assert "num_local_experts" in newer["text_config"] and "num_experts" not in newer["text_config"]
    assert "rope_scaling" not in newer["text_config"]
    assert Qwen3VLMoeConfig.from_dict(newer) == architecture(size)


def test_a_tie_that_the_text_part_contradicts_is_that_of_the_top_level(theirs, tmp_path):
    """As transformers 5 writes it, and reads it."""
    config = transformers_5_config("30B-A3B", theirs, tmp_path)
    config["text_config"]["tie_word_embeddings"] = True
    assert Qwen3VLMoeConfig.from_dict(config).tie_word_embeddings is False
    assert theirs.from_dict(config).tie_word_embeddings is False


@pytest.mark.parametrize("size", SIZES)
def test_the_written_layout_reads_back_here_and_in_transformers(size, theirs, tmp_path):
    config = architecture(size)
    written = json.loads(json.dumps(config.to_dict()))
    assert Qwen3VLMoeConfig.from_dict(written) == config
    assert "transformers_version" not in written
    (tmp_path / "config.json").write_text(json.dumps(written))
    loaded = theirs.from_pretrained(tmp_path)
    assert Qwen3VLMoeConfig.from_dict(loaded.to_dict()) == config


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("norm_topk_prob", False, "norm_topk_prob is False, but only True"),
        ("mlp_only_layers", [0], "mlp_only_layers is .0., but only .. or None"),
        ("decoder_sparse_step", 2, "decoder_sparse_step is 2, but only 1"),
        ("sliding_window", 4096, "sliding_window is 4096, but only None"),
        ("num_local_experts", 64, "num_local_experts is 64, but num_experts has 128"),
        ("num_experts_per_tok", 200, r"num_experts_per_tok is 200, expected at most num_experts \(128\)"),
        ("num_experts", 0, "num_experts is 0, expected more than 0"),
        ("moe_intermediate_size", "768", "moe_intermediate_size is '768', expected a whole number"),
        ("shared_expert_intermediate_size", 768, "shared_expert_intermediate_size belongs to a mixture"),
    ],
)
def test_what_this_model_does_not_do_is_an_error_that_names_it(key, value, message):
    config = hub_config("30B-A3B")
    config["text_config"][key] = value
    with pytest.raises(ValueError, match=message):
        Qwen3VLMoeConfig.from_dict(config)


@pytest.mark.parametrize("key", ["num_experts", "num_experts_per_tok", "moe_intermediate_size"])
def test_a_missing_key_is_an_error_that_names_it(key):
    config = hub_config("30B-A3B")
    del config["text_config"][key]
    with pytest.raises(ValueError, match="missing key '(num_local_experts|num_experts_per_tok|moe_inter)"):
        Qwen3VLMoeConfig.from_dict(config)


def test_neither_kind_of_model_is_read_as_the_other():
    with pytest.raises(ValueError, match="model_type is 'qwen3_vl', but only 'qwen3_vl_moe'"):
        Qwen3VLMoeConfig.from_dict(dense.hub_config("8B"))
    with pytest.raises(ValueError, match="model_type is 'qwen3_vl_moe', but only 'qwen3_vl'"):
        Qwen3VLConfig.from_dict(hub_config("30B-A3B"))


def test_the_generic_keys_of_transformers_4_57_are_no_obstacle():
    config = hub_config("30B-A3B")
    expected = Qwen3VLMoeConfig.from_dict(copy.deepcopy(config))
    for part in (config, config["text_config"], config["vision_config"]):
        part.update({key: value for key, value in dense.GENERIC_KEYS_OF_4_57.items() if key not in part})
    assert Qwen3VLMoeConfig.from_dict(config) == expected


def test_the_family_is_found_by_the_name_of_its_sizes():
    assert (
        families.published("30B-A3B") == families.published("Qwen3-VL-MoE-30B-A3B") == architecture("30B-A3B")
    )
    assert families.of(architecture("235B-A22B")).model_type == "qwen3_vl_moe"
