"""Hugging Face folders: read exactly, written exactly, and whole or not at all."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from safetensors.numpy import load_file, save_file

from dig_jax.models import families
from dig_jax.models.families import layouts
from dig_jax.models.hf import checkpoint, safetensors_io
from dig_jax.models.hf.safetensors_io import INDEX_FILE
from dig_jax.models.qwen3_vl.config import Qwen3VLConfig
from dig_jax.models.qwen3_vl.model import Qwen3VL


def tensors(folder):
    """All tensors of a checkpoint by name."""
    found = {}
    for path in folder.glob("*.safetensors"):
        found.update(load_file(path))
    return found


def assert_same_bits(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name, array in theirs.items():
        assert ours[name].dtype == array.dtype and ours[name].shape == array.shape, name
        assert ours[name].tobytes() == array.tobytes(), name


def rewrite(folder, copy, change):
    """A copy of a model folder whose tensors went through `change`, in one file."""
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("*.safetensors*"))
    save_file(change(tensors(folder)), copy / "model.safetensors")
    return copy


@pytest.mark.parametrize("shard_bytes", [10**9, 50_000])
def test_load_and_save_keep_every_bit(tiny_qwen3vl, tmp_path, shard_bytes):
    checkpoint.save_model(tmp_path / "copy", checkpoint.load_model(tiny_qwen3vl), max_shard_bytes=shard_bytes)
    assert_same_bits(tensors(tmp_path / "copy"), tensors(tiny_qwen3vl))
    assert (tmp_path / "copy" / "model.safetensors").exists() == (shard_bytes == 10**9)
    assert families.load_config(tmp_path / "copy") == families.load_config(tiny_qwen3vl)


def test_bfloat16_is_kept(tiny_qwen3vl, tmp_path):
    half = lambda ts: {name: t.astype(jnp.bfloat16) for name, t in ts.items()}  # noqa: E731
    folder = rewrite(tiny_qwen3vl, tmp_path / "half", half)
    checkpoint.save_model(tmp_path / "copy", checkpoint.load_model(folder))
    assert_same_bits(tensors(tmp_path / "copy"), tensors(folder))
    assert json.loads((tmp_path / "copy" / "config.json").read_text())["dtype"] == "bfloat16"


def test_dtypes_convert_when_asked(tiny_qwen3vl, tmp_path):
    model = checkpoint.load_model(tiny_qwen3vl, param_dtype=jnp.bfloat16)
    assert {p.dtype for p in jax.tree.leaves(nnx.state(model, nnx.Param))} == {jnp.dtype(jnp.bfloat16)}
    checkpoint.save_model(tmp_path / "wide", model, dtype=jnp.float32)
    assert {t.dtype.name for t in tensors(tmp_path / "wide").values()} == {"float32"}


def test_the_index_tells_where_everything_is(tiny_qwen3vl):
    index = json.loads((tiny_qwen3vl / INDEX_FILE).read_text())
    all_tensors = tensors(tiny_qwen3vl)
    assert index["weight_map"].keys() == all_tensors.keys()
    assert index["metadata"]["total_size"] == sum(t.nbytes for t in all_tensors.values())
    assert all(name in load_file(tiny_qwen3vl / file) for name, file in index["weight_map"].items())


def test_transformers_loads_our_folder_to_the_same_bits(tiny_qwen3vl, reference):
    """That it gives the same logits is what test_parity is about."""
    theirs = {name: t.numpy() for name, t in reference.model.state_dict().items()}
    assert_same_bits(tensors(tiny_qwen3vl), theirs)


@pytest.mark.parametrize("shard_size", ["10GB", "150KB"])
def test_we_load_what_transformers_saves(tiny_qwen3vl, reference, tmp_path, shard_size):
    reference.model.save_pretrained(tmp_path, max_shard_size=shard_size)
    ours = nnx.to_flat_state(nnx.state(checkpoint.load_model(tmp_path), nnx.Param))
    expected = nnx.to_flat_state(nnx.state(checkpoint.load_model(tiny_qwen3vl), nnx.Param))
    for (path, a), (_, b) in zip(ours, expected, strict=True):
        np.testing.assert_array_equal(a.get_value(), b.get_value(), err_msg=str(path))


def test_all_problems_are_listed_in_one_error(tiny_qwen3vl, tmp_path):
    def spoil(ts):
        del ts["lm_head.weight"], ts["model.visual.blocks.3.norm1.bias"]
        ts["extra.weight"] = np.zeros(2, np.float32)
        ts["model.language_model.layers.1.self_attn.q_norm.weight"] = np.zeros(31, np.float32)
        ts["model.visual.pos_embed.weight"] = np.zeros((36, 48), np.int64)
        return ts

    folder = rewrite(tiny_qwen3vl, tmp_path / "spoiled", spoil)
    with pytest.raises(ValueError) as error:
        checkpoint.load_model(folder)
    assert str(error.value).splitlines() == [
        f"{folder}: the weights do not fit config.json (problems: 5)",
        "  missing: lm_head.weight [384, 64]",
        "  missing: model.visual.blocks.3.norm1.bias [48]",
        "  unexpected: extra.weight",
        "  wrong shape: model.language_model.layers.1.self_attn.q_norm.weight is [31], expected [32]",
        "  wrong dtype: model.visual.pos_embed.weight is I64, expected one of F32, BF16, F16",
    ]


def test_layers_of_different_dtypes_need_a_param_dtype(tiny_qwen3vl, tmp_path):
    name = "model.visual.blocks.3.norm1.bias"
    mix = lambda ts: {**ts, name: ts[name].astype(np.float16)}  # noqa: E731
    folder = rewrite(tiny_qwen3vl, tmp_path / "mixed", mix)
    with pytest.raises(ValueError, match=f"{name} is F16, .* F32: give param_dtype"):
        checkpoint.load_model(folder)
    checkpoint.load_model(folder, param_dtype=jnp.float32)


@pytest.mark.parametrize(
    ("text", "reason"), [("{", "Expecting property name"), ("[]", "a JSON object"), ("{}", "model_type")]
)
def test_a_config_that_cannot_be_read_names_its_file(tmp_path, text, reason):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=f"(?s)^{tmp_path}/config.json(:| is) .*{reason}"):
        families.load_config(tmp_path)


def test_a_spare_copy_of_a_tied_head_is_ignored(tiny_qwen3vl_thinking, tmp_path):
    add = lambda ts: {**ts, "lm_head.weight": np.zeros((384, 64), np.float32)}  # noqa: E731
    model = checkpoint.load_model(rewrite(tiny_qwen3vl_thinking, tmp_path / "spare", add))
    assert model.head is None


def test_absent_files_are_named(tiny_qwen3vl, tmp_path):
    with pytest.raises(
        FileNotFoundError, match="config.json does not exist; expected the Hugging Face folder"
    ):
        checkpoint.load_model(tmp_path)
    shutil.copy(tiny_qwen3vl / "config.json", tmp_path)
    with pytest.raises(FileNotFoundError, match="has neither model.safetensors nor"):
        checkpoint.load_model(tmp_path)
    shutil.copy(tiny_qwen3vl / INDEX_FILE, tmp_path)
    with pytest.raises(FileNotFoundError, match="names files that are not there: model-00001-of"):
        checkpoint.load_model(tmp_path)


def test_saving_does_not_touch_a_folder_with_something_in_it(tiny_qwen3vl, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="exists and is not empty"):
        checkpoint.save_model(tmp_path, checkpoint.load_model(tiny_qwen3vl))
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_save_that_fails_leaves_nothing_behind(tiny_qwen3vl, tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr(safetensors_io, "write_file", fail)
    with pytest.raises(OSError, match="disk full"):
        checkpoint.save_model(tmp_path / "out", checkpoint.load_model(tiny_qwen3vl))
    assert not list(tmp_path.iterdir())


def test_parameters_are_placed_as_they_are_read(tiny_qwen3vl):
    config = families.load_config(tiny_qwen3vl)
    sharding = NamedSharding(Mesh(np.array(jax.devices()[:1]), "x"), PartitionSpec())
    state = nnx.state(nnx.eval_shape(lambda: Qwen3VL(config, rngs=nnx.Rngs(0))), nnx.Param)
    shardings = jax.tree.map(lambda _: sharding, state)
    placed = jax.tree.leaves(checkpoint.load_params(tiny_qwen3vl, config, shardings=shardings))
    assert all(array.sharding == sharding for array in placed)
    for a, b in zip(placed, jax.tree.leaves(checkpoint.load_params(tiny_qwen3vl, config)), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("read_bytes", [1, 1000, 20_000])
def test_the_size_of_pieces_changes_nothing(tiny_qwen3vl, monkeypatch, read_bytes):
    config = families.load_config(tiny_qwen3vl)
    expected = jax.tree.leaves(checkpoint.load_params(tiny_qwen3vl, config))
    monkeypatch.setattr(checkpoint, "_READ_BYTES", read_bytes)
    for a, b in zip(jax.tree.leaves(checkpoint.load_params(tiny_qwen3vl, config)), expected, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_process_reads_only_rows_that_its_shards_hold(tiny_qwen3vl, monkeypatch):
    """Of the embedding [384, 64] whose rows are split in two, the half that the shard holds."""
    config = families.load_config(tiny_qwen3vl)
    state = nnx.state(nnx.eval_shape(lambda: Qwen3VL(config, rngs=nnx.Rngs(0))), nnx.Param)
    layout = layouts(state, config)["text", "embedding"]
    entries = safetensors_io.find_tensors(epath.Path(tiny_qwen3vl))
    shards = {((0, 1), (192, 384), (0, 64)): None}
    assert sorted(checkpoint._pieces(layout, shards)) == [(0, 192, 384)]
    name = "model.language_model.embed_tokens.weight"
    shard = checkpoint._Shard(((0, 1), (192, 384), (16, 32)), np.zeros((1, 192, 16), np.uint32))
    checkpoint._read_rows(layout, entries, np.dtype(np.float32), [shard], 0, 192, 384)
    np.testing.assert_array_equal(shard.bits[0].view(np.float32), tensors(tiny_qwen3vl)[name][192:, 16:32])


def test_a_folder_in_a_bucket_is_read_and_written_alike(tiny_qwen3vl, bucket, tmp_path):
    checkpoint.save_model(f"{bucket}/copy", checkpoint.load_model(tiny_qwen3vl), max_shard_bytes=50_000)
    assert_same_bits(tensors(tmp_path / "bucket" / "copy"), tensors(tiny_qwen3vl))
    model = checkpoint.load_model(f"{bucket}/copy")
    for a, b in zip(
        jax.tree.leaves(model), jax.tree.leaves(checkpoint.load_model(tiny_qwen3vl)), strict=True
    ):
        np.testing.assert_array_equal(a, b)


def test_what_was_loaded_can_be_given_away(tiny_qwen3vl):
    """Donated to a jitted step, as training does; the memory under it is NumPy's on a CPU."""
    config = families.load_config(tiny_qwen3vl)
    params = checkpoint.load_params(tiny_qwen3vl, config)
    before = [np.array(leaf) for leaf in jax.tree.leaves(params)]
    double = jax.jit(lambda tree: jax.tree.map(lambda x: 2 * x, tree), donate_argnums=0)
    for a, b in zip(jax.tree.leaves(double(double(params))), before, strict=True):
        np.testing.assert_array_equal(a, 4 * b)


@pytest.mark.parametrize("taps", [[], [0]])
def test_the_smallest_model_goes_round(tiny_qwen3vl, tmp_path, taps):
    """One layer on each side, with and without DeepStack."""
    settings = json.loads((tiny_qwen3vl / "config.json").read_text())
    settings["vision_config"].update(depth=1, deepstack_visual_indexes=taps)
    settings["text_config"].update(num_hidden_layers=1)
    config = Qwen3VLConfig.from_dict(settings)
    quick = {"xla_backend_optimization_level": 0}
    model = jax.jit(lambda: Qwen3VL(config, rngs=nnx.Rngs(0)), compiler_options=quick)()
    checkpoint.save_model(tmp_path / "small", model)
    before, after = jax.tree.leaves(model), jax.tree.leaves(checkpoint.load_model(tmp_path / "small"))
    assert len(before) == len(after)
    for a, b in zip(before, after, strict=True):
        np.testing.assert_array_equal(a, b)
