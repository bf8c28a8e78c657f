"""A folder goes in and out bit for bit; one is assembled from three; objects stand anywhere in a turn."""

import dataclasses
import json
import re

import numpy as np
import pytest
from etils import epath
from flax import nnx

from configs import base
from dig_jax import assemble
from dig_jax.data.encode import ExampleEncoder
from dig_jax.data.example import Example, Turn, marked_parts
from dig_jax.data.images import ImageConfig
from dig_jax.data.tokenizer import load_tokenizer
from dig_jax.models import families
from dig_jax.models.clip_dino_qwen.published import architecture
from dig_jax.models.hf import checkpoint
from dig_jax.models.nn import freeze
from dig_jax.run import loading
from tests.helpers.make_tiny_model import make_tokenizer
from tests.models.clip_dino_qwen.configs import tiny_config
from tests.models.clip_dino_qwen.reference import checkpoint_name, make_reference, towers_and_decoder
from tests.models.clip_dino_qwen.test_parity_mutations import logits_of
from tests.models.conftest import PromptMaker
from tests.models.hf.test_checkpoint import assert_same_bits, tensors
from tests.models.parity import check_logits


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """Folders of the three parts, as transformers writes them, and the models themselves."""
    torch = pytest.importorskip("torch")
    folder, tokenizer = tmp_path_factory.mktemp("parts"), make_tokenizer()
    config = tiny_config(tokenizer)
    torch.manual_seed(0)
    models = dict(zip(("clip", "dino", "qwen"), towers_and_decoder(config), strict=True))
    models["qwen"] = models["qwen"].to(torch.bfloat16)
    for name, model in models.items():
        model.save_pretrained(folder / name)
    tokenizer.save_pretrained(folder / "qwen")
    (folder / "qwen" / "generation_config.json").write_text(json.dumps({"temperature": 0.7, "top_p": 0.8}))
    return folder, models, config


def flags(folder, out):
    return [f"--{name}={folder / name}" for name in ("clip", "dino", "qwen")] + [f"--out={out}"]


@pytest.fixture(scope="module")
def assembled(published, tmp_path_factory):
    folder, _, config = published
    out = tmp_path_factory.mktemp("assembled") / "model"
    sizes = [f"--image_size={config.vision.image_size}", "--crop_tokens=4"]
    assert assemble.main([*flags(folder, out), *sizes]) == 0
    return out


def test_load_and_save_keep_every_bit(assembled, tmp_path):
    checkpoint.save_model(tmp_path / "copy", checkpoint.load_model(assembled))
    assert_same_bits(tensors(tmp_path / "copy"), tensors(assembled))
    assert families.load_config(tmp_path / "copy") == families.load_config(assembled)


def test_images_and_objects_stand_where_the_text_says_in_any_turn(assembled):
    """Pictures of odd shapes, two of them as objects, in two questions with an answer between them."""
    tokenizer, config = load_tokenizer(assembled), families.load_config(assembled)
    turns = (
        Turn("user", marked_parts("<image>\nIs this <object> in it?", objects=1)),
        Turn("assistant", ("Yes.",)),
        Turn("user", marked_parts("And <object>?", images=1, objects=2)),
    )
    rng = np.random.default_rng(0)
    images = tuple(rng.integers(0, 255, (*size, 3), np.uint8) for size in ((40, 70), (9, 5), (32, 32)))
    example = Example("one", turns, images, None, "none")
    encode = ExampleEncoder(tokenizer, ImageConfig.from_folder(assembled), config, max_answer_length=0)
    bucket = encode.need(example.shape)
    assert bucket.num_patches == 3 * 16  # an image has 4x4 patches
    prompts = encode([example], bucket).prompts
    kept = [i for i in prompts.tokens[0] if i not in config.placeholders]
    assert [np.sum(prompts.tokens == word) for word in config.placeholders] == [16, 2 * 4]
    assert tokenizer.hf.decode(kept) == (
        "<|im_start|>user\n<|vision_start|><|vision_end|>\nIs this <|object_ref_start|><|object_ref_end|> in"
        " it?<|im_end|>\n<|im_start|>assistant\nYes.<|im_end|>\n<|im_start|>user\nAnd"
        " <|object_ref_start|><|object_ref_end|>?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert prompts.positions[0].tolist() == [list(range(len(prompts.tokens[0])))] * 3
    assert prompts.patches.min() >= 0 and prompts.patches.max() <= 1
    assert encode.most(encode.needs([example.shape]), 32 * 32) == bucket


def test_boxes_are_shares_of_the_square(assembled):
    boxes = loading.box_format(base.get_config(), epath.Path(assembled))
    assert boxes.write(np.array([[0, 0, 1, 1]]), (50, 100)) == "[[0.000,0.250,1.000,0.750]]"


def test_three_folders_make_one_bit_for_bit(published, assembled):
    """But for the rows of the words around images and objects: they are the mean of those of text."""
    _, models, config = published
    vision = dataclasses.replace(config.vision, initializer_range=0.02)
    assert families.load_config(assembled) == dataclasses.replace(config, vision=vision)
    ours = tensors(assembled)
    theirs = {
        checkpoint_name(f"{part}.{name}"): tensor
        for part, model in models.items()
        for name, tensor in model.state_dict().items()
    }
    markers = [config.vision_start_token_id, config.vision_end_token_id]
    markers += [config.object_start_token_id, config.object_end_token_id]
    for name in ours.keys() & theirs.keys():
        left, right = np.asarray(ours[name], np.float32), theirs[name].float().numpy()
        if name in ("model.embed_tokens.weight", "lm_head.weight"):
            text = right[: config.object_start_token_id - 3]
            np.testing.assert_allclose(left[markers], [text.mean(axis=0)] * 4, atol=1e-3)
            left, right = np.delete(left, markers, axis=0), np.delete(right, markers, axis=0)
        np.testing.assert_array_equal(left.reshape(right.shape), right, err_msg=name)
    assert {name for name in ours if name not in theirs} == {
        f"projector.fc{layer}.{kind}" for layer in (1, 2) for kind in ("weight", "bias")
    }
    left_out = theirs.keys() - ours.keys()
    assert {name for name in left_out if "encoder" not in name} == {
        "clip.post_layernorm.weight",
        "clip.post_layernorm.bias",
        "dino.embeddings.mask_token",
        "dino.layernorm.weight",
        "dino.layernorm.bias",
    }
    layers = {re.sub(r"(encoder.layers?.\d+).*", r"\1", name) for name in left_out if "encoder" in name}
    assert layers == {"clip.encoder.layers.2", "dino.encoder.layer.3"}  # the last of each tower
    assert json.loads((assembled / "generation_config.json").read_text())["top_p"] == 0.8


@pytest.mark.slow
def test_what_is_assembled_computes_what_the_three_compute(published, assembled):
    _, _, config = published
    model = checkpoint.load_model(assembled, param_dtype=np.float32)
    weights = {name: np.asarray(tensor, np.float32) for name, tensor in tensors(assembled).items()}
    reference = make_reference(config, weights, "float32")
    make = PromptMaker(config)
    example = make.example([(4, 4), (4, 4)])
    check_logits(logits_of(model, make.pad(example)), reference.logits(example))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--image_size=64"], "image_size is 32, but --image_size=64: CLIP sees its own alone"),
        (["--image_size=32", "--crop_tokens=9"], "crop_tokens=9: of 4x4 patches there can be 16, 4, 1"),
        (["--image_size=32", "--crop_tokens=4", "--dino_layer=-3"], "dino_layer=-3: expected -2 or -1"),
    ],
)
def test_parts_that_do_not_fit_are_refused(published, tmp_path, capsys, more, message):
    assert assemble.main([*flags(published[0], tmp_path / "out"), *more]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_folder_of_another_model_is_named(published, tmp_path, capsys):
    folder = published[0]
    swapped = [f"--clip={folder / 'dino'}", f"--dino={folder / 'dino'}", f"--qwen={folder / 'qwen'}"]
    assert assemble.main([*swapped, f"--out={tmp_path / 'out'}"]) == 1
    assert "model_type is 'dinov2', expected that of CLIP" in capsys.readouterr().err


def test_every_parameter_has_a_part_and_an_axis_to_be_split_along():
    shapes = nnx.state(families.abstract_model(architecture("7B")), nnx.Param)
    flat = list(nnx.to_flat_state(shapes))
    assert {freeze.part_of(path) for path, _ in flat} == {"vision", "projector", "text"}
    assert {path[2] for path, _ in flat if freeze.part_of(path) == "projector"} == {"fc1", "fc2"}
    assert all(len(variable.get_metadata()["out_sharding"]) == len(variable.shape) for _, variable in flat)
