"""Odd values in the settings files of a model folder: one error with file, key and what was expected."""

import json
import shutil

import pytest
from etils import epath

from dig_jax.data.images import ImageConfig
from dig_jax.data.prompts import prompt_ids
from dig_jax.data.tokenizer import load_tokenizer
from dig_jax.generate import model_sampling
from dig_jax.models import families

PREPROCESSOR, GENERATION = "preprocessor_config.json", "generation_config.json"


@pytest.fixture
def folder(tiny_qwen3vl, tmp_path):
    """A model folder without weights, to be changed."""
    shutil.copytree(tiny_qwen3vl, tmp_path / "model", ignore=shutil.ignore_patterns("*.safetensors*"))
    ImageConfig(16, 2, 2, 4096, 65536, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)).save(
        tmp_path / "model", "Qwen3VLProcessor"
    )
    return epath.Path(tmp_path / "model")


def change(file, **values):
    settings = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps(settings | values))


def read(folder, file):
    """What reads this file."""
    if file == PREPROCESSOR:
        return ImageConfig.from_folder(folder)
    if file == GENERATION:
        return model_sampling(folder, opens_thinking=False)
    return families.load_config(folder)


@pytest.mark.parametrize(
    ("file", "values", "message"),
    [
        (PREPROCESSOR, {"do_resize": None}, "do_resize is None; only True is supported"),
        (PREPROCESSOR, {"do_resize": "yes"}, "do_resize is yes; only True is supported"),
        (PREPROCESSOR, {"rescale_factor": None}, "rescale_factor is None; only 0.0039"),
        (PREPROCESSOR, {"size": 448}, r"size is 448; expected an object"),
        (PREPROCESSOR, {"size": {"shortest_edge": "1024"}}, 'size.shortest_edge is "1024"; expected a whole'),
        (PREPROCESSOR, {"min_pixels": [4]}, r"min_pixels is \[4\]; expected a whole number"),
        (PREPROCESSOR, {"patch_size": 16.5}, "patch_size is 16.5; expected a whole number"),
        (PREPROCESSOR, {"patch_size": True}, "patch_size is true; expected a whole number"),
        (PREPROCESSOR, {"patch_size": 0}, "patch_size must be at least 1, got 0"),
        (PREPROCESSOR, {"image_mean": 0.5}, "image_mean is 0.5; expected a list of numbers"),
        (PREPROCESSOR, {"image_std": ["a", "b", "c"]}, "image_std is .*; expected a list of numbers"),
        (PREPROCESSOR, {"image_std": [0.5, 0, 0.5]}, "std must be above 0"),
        (GENERATION, {"do_sample": "true"}, 'do_sample is "true"; expected true or false'),
        (GENERATION, {"do_sample": True, "temperature": "0.7"}, 'temperature is "0.7"; expected a number'),
        (GENERATION, {"do_sample": True, "top_k": 20.5}, "top_k is 20.5; expected a whole number"),
        (GENERATION, {"do_sample": True, "top_p": float("nan")}, "top_p is NaN; expected a number"),
        ("config.json", {"image_token_id": None}, "image_token_id is None, expected a whole number"),
        ("config.json", {"image_token_id": 10**30}, "image_token_id is 10*, expected a whole number"),
        ("config.json", {"text_config": [1]}, r"text_config is \[1\], expected an object"),
    ],
)
def test_an_odd_value_is_named_with_its_file(folder, file, values, message):
    change(folder / file, **values)
    with pytest.raises(ValueError, match=f"{folder / file}: (.|\n)*{message}"):
        read(folder, file)


@pytest.mark.parametrize("value", [10**400, float("inf"), float("nan"), "5000000", None, True])
def test_a_number_of_the_model_is_a_finite_number(folder, value):
    text = json.loads((folder / "config.json").read_text())["text_config"]
    change(folder / "config.json", text_config=text | {"rms_norm_eps": value})
    with pytest.raises(ValueError, match="config.json: (.|\n)*rms_norm_eps is .*, expected a number"):
        families.load_config(folder)


@pytest.mark.parametrize("values", [{"temperature": 0}, {"top_p": 0}, {"top_p": 1.5}, {"top_k": -1}])
def test_sampling_that_cannot_be_is_named_and_not_replaced(folder, values):
    change(folder / GENERATION, do_sample=True, **values)
    with pytest.raises(ValueError, match=f"{folder / GENERATION}: {next(iter(values))} is .*; expected"):
        model_sampling(folder, opens_thinking=False)


@pytest.mark.parametrize("values", [{"min_pixels": 0}, {"min_pixels": 2**62, "max_pixels": 2**62}])
def test_pixels_that_no_image_has_are_refused_and_not_passed_over(folder, values):
    change(folder / PREPROCESSOR, **values)
    with pytest.raises(ValueError, match=f"{folder / PREPROCESSOR}: .*min_pixels must be at"):
        ImageConfig.from_folder(folder)


def test_a_tokenizer_that_transformers_numbers_anew_is_refused(folder):
    change(folder / "tokenizer_config.json", added_tokens_decoder={})
    with pytest.raises(ValueError, match=r"tokenizer.json: \d+ added tokens, such .* not of the same model"):
        load_tokenizer(folder)


def test_a_length_that_is_no_number_is_named(folder):
    change(folder / "tokenizer_config.json", model_max_length="long")
    with pytest.raises(ValueError, match="tokenizer_config.json: model_max_length is 'long'; expected a num"):
        load_tokenizer(folder)


def test_what_a_null_leaves_to_the_rest_is_no_error(folder):
    before = ImageConfig.from_folder(folder)
    change(folder / PREPROCESSOR, min_pixels=None, max_pixels=None, crop_size=None, do_pad=None)
    change(folder / "config.json", quantization_config=None, unsloth_fixed=True, unsloth_version="2025.10")
    change(folder / GENERATION, do_sample=True, temperature=None, top_k=None, top_p=None)
    assert ImageConfig.from_folder(folder) == before
    assert model_sampling(folder, opens_thinking=False) == {"temperature": 1.0, "top_p": 1.0, "top_k": 0}
    families.load_config(folder)


def test_an_empty_processor_config_is_named(folder):
    (folder / PREPROCESSOR).unlink()
    (folder / "processor_config.json").write_text('{"image_processor": null}')
    with pytest.raises(ValueError, match="processor_config.json: no value for patch_size"):
        ImageConfig.from_folder(folder)
    (folder / "processor_config.json").write_text('{"image_processor": [1]}')
    with pytest.raises(ValueError, match="processor_config.json: image_processor is .*expected an object"):
        ImageConfig.from_folder(folder)


@pytest.mark.parametrize(
    "template",
    ["{{ raise_exception('a system message is required') }}", "{% for m in messages %}", "{{ 1 / 0 }}"],
)
def test_a_chat_template_that_cannot_be_used_is_named(folder, template):
    (folder / "chat_template.jinja").write_text(template)
    with pytest.raises(
        ValueError, match="chat_template.jinja: the chat template cannot render a user's turn"
    ):
        load_tokenizer(folder)


def test_a_chat_template_without_images_is_named(folder):
    template = "{% for m in messages %}{% for c in m.content %}{{ c.text }}{% endfor %}{% endfor %}"
    (folder / "chat_template.jinja").write_text(template)
    with pytest.raises(ValueError, match="0 image placeholders for 1 images; .*chat_template.jinja"):
        prompt_ids(load_tokenizer(folder), "?", [(2, 2)], {})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"template": "x"}, "missing key 'chat_template'"),
        ({"chat_template": ["x"]}, r'chat_template is \["x"\]; expected a text'),
    ],
)
def test_a_chat_template_file_without_one_is_named(folder, content, message):
    (folder / "chat_template.jinja").unlink()
    (folder / "chat_template.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=f"chat_template.json: {message}"):
        load_tokenizer(folder)


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "config.json", PREPROCESSOR])
def test_a_git_lfs_pointer_is_told_as_such(folder, name):
    (folder / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(ValueError, match=rf"{name} is a Git LFS pointer.*`git lfs pull`"):
        ImageConfig.from_folder(folder) if name == PREPROCESSOR else load_tokenizer(folder)


def test_a_tokenizer_with_more_tokens_than_the_model_has_rows_is_refused(folder):
    tokenizer = load_tokenizer(folder)
    rows = tokenizer.vocab_size - 1
    text = json.loads((folder / "config.json").read_text())["text_config"]
    change(folder / "config.json", text_config=text | {"vocab_size": rows})
    with pytest.raises(ValueError, match=rf"has 1 tokens that the model has no row for, .* \({rows}\)"):
        load_tokenizer(folder)


def test_a_tokenizer_of_another_model_is_refused(folder):
    change(folder / "config.json", image_token_id=7)
    with pytest.raises(
        ValueError, match="config.json: image_token_id is 7, but <|image_pad|> of the tokenizer"
    ):
        load_tokenizer(folder)
