"""A folder of Qwen2.5-VL goes in and out bit for bit, under the names that transformers writes."""

import json
import shutil

import jax
import numpy as np
import pytest
from etils import epath
from flax import nnx
from safetensors.numpy import save_file

from configs import base
from dig_jax.data.tokenizer import load_tokenizer
from dig_jax.machines import parallel
from dig_jax.models import families
from dig_jax.models.hf import checkpoint, peft
from dig_jax.models.nn import freeze, lora
from dig_jax.models.qwen2_5_vl.published import architecture
from dig_jax.run import loading
from tests.helpers.drawn_pairs import draw_pair, write_pairs
from tests.models.conftest import load_reference
from tests.models.hf.test_checkpoint import assert_same_bits, tensors


def test_load_and_save_keep_every_bit(tiny_qwen2_5_vl, tmp_path):
    checkpoint.save_model(tmp_path / "copy", checkpoint.load_model(tiny_qwen2_5_vl))
    assert_same_bits(tensors(tmp_path / "copy"), tensors(tiny_qwen2_5_vl))
    assert families.load_config(tmp_path / "copy") == families.load_config(tiny_qwen2_5_vl)


def test_transformers_saves_the_names_that_we_write_and_either_are_read(tiny_qwen2_5_vl, tmp_path):
    reference = load_reference(tiny_qwen2_5_vl)
    reference.model.save_pretrained(tmp_path / "saved")
    assert_same_bits(tensors(tmp_path / "saved"), tensors(tiny_qwen2_5_vl))
    shutil.copytree(tiny_qwen2_5_vl, tmp_path / "long", ignore=shutil.ignore_patterns("*.safetensors*"))
    in_memory = {name: tensor.numpy() for name, tensor in reference.model.state_dict().items()}
    assert "model.language_model.norm.weight" in in_memory
    save_file(in_memory, tmp_path / "long" / "model.safetensors")
    ours = jax.tree.leaves(checkpoint.load_model(tiny_qwen2_5_vl))
    for a, b in zip(ours, jax.tree.leaves(checkpoint.load_model(tmp_path / "long")), strict=True):
        np.testing.assert_array_equal(a, b)


def test_its_template_begins_with_a_system_turn_and_opens_no_thought(tiny_qwen2_5_vl):
    tokenizer = load_tokenizer(tiny_qwen2_5_vl)
    assert tokenizer.render(
        [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "?"}]}]
    ) == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
        "<|vision_start|><|image_pad|><|vision_end|>?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert not tokenizer.opens_thinking


def test_a_tokenizer_with_more_tokens_than_a_flat_config_has_rows_is_refused(tiny_qwen2_5_vl, tmp_path):
    folder = shutil.copytree(tiny_qwen2_5_vl, tmp_path / "flat")
    settings = json.loads((folder / "config.json").read_text())
    settings |= settings.pop("text_config") | {"model_type": "qwen2_5_vl"}
    (folder / "config.json").write_text(json.dumps(settings))
    load_tokenizer(folder)
    (folder / "config.json").write_text(json.dumps(settings | {"vocab_size": 100}))
    with pytest.raises(ValueError, match=r"no row for.*: vocab_size in config.json is 100"):
        load_tokenizer(folder)


def test_it_is_asked_and_trained_in_pixels_of_the_image_as_it_sees_it(tiny_qwen2_5_vl, tmp_path):
    config = base.get_config()
    config.algorithm, config.batch.prompts, config.data.max_pixels = "sft", 1, 100 * 100
    pair = draw_pair(0)  # 128x128 pixels
    write_pairs(tmp_path / "pairs", {"train": [pair]})
    config.data.train = (str(tmp_path / "pairs"),)
    folder = epath.Path(tiny_qwen2_5_vl)
    tokenizer = load_tokenizer(folder)
    task = loading.make_task(config, folder, tokenizer)
    batch = loading.train_loader(config, task, folder, tokenizer).batch(0)
    (example,) = batch.examples
    assert "pixels of the image, which is 84 wide and 84 high" in example.messages[0].parts[-1]
    answer = tokenizer.decode(batch.answers[0][batch.answer_mask[0] > 0])
    assert json.loads(answer) == np.rint(pair.boxes * 84).tolist()
    assert task.score([answer], [example]).terms["f1"][0] == 1
    config.data.box_convention = "thousandths"
    other = loading.make_task(config, folder, tokenizer)
    assert "integers from 0 to 1000" in other.question(example.sizes)


def test_adapters_are_written_under_the_names_of_transformers_modules(tiny_qwen2_5_vl, tmp_path):
    model = checkpoint.load_model(tiny_qwen2_5_vl)
    targets = "text/layers/attn/q_proj|vision/blocks/attn/qkv|vision/merger/fc1"
    lora.add(model, lora.LoRAConfig(2, 4.0, targets), frozenset(), nnx.Rngs(0))
    params = nnx.state(model, nnx.Param)
    peft.check_base(epath.Path(tiny_qwen2_5_vl), params, model.config)
    options = {"rank": 2, "alpha": 4.0, "base": "base", "dtype": np.float32}
    peft.write_adapters(epath.Path(tmp_path), params, model.config, **options)
    modules = {name for name, _ in load_reference(tiny_qwen2_5_vl).model.named_modules()}
    written = {name.removeprefix("base_model.model.").rpartition(".lora_")[0] for name in tensors(tmp_path)}
    assert "model.language_model.layers.3.self_attn.q_proj" in written
    assert "model.visual.merger.mlp.0" in written  # which is not the only module that ends in 0
    endings = json.loads((tmp_path / "adapter_config.json").read_text())["target_modules"]
    assert {name for name in modules if any(f".{name}".endswith(f".{end}") for end in endings)} == written


def test_every_parameter_has_a_part_and_a_place_on_a_mesh():
    """Of 7B on two by two by two devices: each is split where the table says, down to the vision MLP."""
    shapes = nnx.state(families.abstract_model(architecture("7B")), nnx.Param)
    parts = {freeze.part_of(path) for path, _ in nnx.to_flat_state(shapes)}
    assert parts == {"vision", "projector", "text"}

    class Sizes:
        shape = {"data": 2, "fsdp": 2, "tensor": 2}

    specs = {
        "/".join(map(str, path)): tuple(
            parallel.mesh_axes(variable.get_metadata()["out_sharding"], variable.shape, Sizes, str(path))
        )
        for path, variable in nnx.to_flat_state(shapes)
    }
    assert specs["text/layers/attn/q_proj/bias"] == (None, "tensor", None)
    assert specs["vision/blocks/mlp/gate_proj/kernel"] == (None, "fsdp", "tensor")
    assert specs["vision/merger/fc2/kernel"] == ("tensor", "fsdp")
