"""LoRA: adapters train, the model under them stays, and what leaves the run is a plain model."""

import json
import pathlib
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath
from flax import nnx
from safetensors.numpy import load_file

from configs import base
from dig_jax import export, generate
from dig_jax.machines import parallel
from dig_jax.models.hf import checkpoint, peft
from dig_jax.models.nn import freeze, lora
from dig_jax.models.nn.layers import Linear
from dig_jax.models.nn.lora import LoRAConfig
from dig_jax.rollout.programs import rollout_programs
from dig_jax.run import loading
from dig_jax.run.fingerprint import fingerprint
from tests.commands.test_train import final_params, inputs, lines, run, small_config, without_times  # noqa: F401
from tests.helpers.folder_logits import assert_same_logits
from tests.models.conftest import PromptMaker

pytestmark = pytest.mark.usefixtures("quick_compiling")

RANK, ALPHA = 4, 8.0
LORA = {"model.lora.rank": RANK, "model.lora.alpha": ALPHA}
SETTINGS = LoRAConfig(RANK, ALPHA, "text/.*_proj")


@pytest.fixture(scope="module")
def mesh():
    return parallel.make_mesh(base.get_config().mesh)


@pytest.fixture(scope="module")
def plain(tiny_qwen3vl):
    """Structure and parameters of a model without adapters."""
    return nnx.split(checkpoint.load_model(tiny_qwen3vl), nnx.Param)


@pytest.fixture(scope="module")
def fresh(plain, mesh):
    """The same with new adapters."""
    return lora.add_to_params(*plain, SETTINGS, frozenset(), mesh, seed=0)


@pytest.fixture(scope="module")
def trained(fresh):
    """The same with adapters that do something."""
    graphdef, params = fresh
    adapters, others = freeze.split_adapters(params)
    return graphdef, nnx.merge_state(others, jax.tree.map(lambda x: x + 0.05, adapters))


@pytest.fixture(scope="module")
def hidden(plain):
    """The function (structure, parameters) -> hidden states of a prompt with an image."""
    make = PromptMaker(nnx.merge(*plain).config)
    prompts = make.pad(make.example([(4, 6)], seed=1))
    program = jax.jit(lambda graphdef, params: nnx.merge(graphdef, params)(prompts)[0], static_argnums=0)
    return lambda model: np.asarray(program(*model))


def test_new_adapters_change_nothing(plain, fresh, hidden):
    np.testing.assert_array_equal(hidden(fresh), hidden(plain))


def test_an_adapter_adds_its_scaled_product_to_the_layer():
    linear = Linear((2, 3), (5,), (None, None, None), std=1.0, rngs=nnx.Rngs(0), dtype=jnp.float32)
    x = jax.random.normal(jax.random.key(0), (7, 2, 3))
    before = linear(x)
    linear.adapter = nnx.data(lora.Adapter(linear, SETTINGS, nnx.Rngs(1)))
    assert linear.adapter.a.shape == (2, 3, RANK) and linear.adapter.b.shape == (RANK, 5)
    linear.adapter.b.set_value(jax.random.normal(jax.random.key(2), (RANK, 5)))
    a, b = np.asarray(linear.adapter.a[...]).reshape(6, RANK), np.asarray(linear.adapter.b[...])
    expected = before + ALPHA / RANK * np.asarray(x).reshape(7, 6) @ a @ b
    np.testing.assert_allclose(linear(x), expected, rtol=1e-5, atol=1e-5)


def test_merged_adapters_compute_the_same_in_a_plain_model(plain, trained, hidden, mesh):
    graphdef, params = trained
    *merged, rounding = lora.merged_params(graphdef, jax.tree.map(jnp.copy, params), mesh)
    assert rounding.share < 1e-5  # of float32
    assert jax.tree.structure(merged[1]) == jax.tree.structure(plain[1])
    assert np.abs(hidden(merged) - hidden(plain)).max() > 0.1
    np.testing.assert_allclose(hidden(merged), hidden(trained), atol=1e-5)


def test_the_copy_for_sampling_keeps_adapters_apart(trained, hidden, mesh):
    graphdef, params = trained
    weights = rollout_programs(graphdef, params, mesh).weights(params)
    assert jax.tree.structure(weights) == jax.tree.structure(params)
    np.testing.assert_allclose(hidden((graphdef, weights)), hidden(trained), atol=1e-5)


def test_merging_tells_what_rounding_takes_of_a_change(mesh):
    """A change of a quarter of a weight's last bit is lost whole, one of two bits not at all."""
    linear = Linear((2,), (1,), (None, None), std=1.0, rngs=nnx.Rngs(0), dtype=jnp.bfloat16)
    linear.kernel.set_value(jnp.ones((2, 1), jnp.bfloat16))  # whose last bit is 2^-7
    linear.adapter = nnx.data(lora.Adapter(linear, LoRAConfig(1, 1.0, ""), nnx.Rngs(1)))
    linear.adapter.a.set_value(jnp.array([[2.0**-9], [2.0**-6]]))
    linear.adapter.b.set_value(jnp.ones((1, 1)))
    graphdef, params = nnx.split(linear, nnx.Param)
    _, in_float32, exact = lora.merged_params(graphdef, jax.tree.map(jnp.copy, params), mesh, "float32")
    assert in_float32["kernel"].get_value().ravel().tolist() == [1 + 2.0**-9, 1 + 2.0**-6]
    assert exact.share == 0
    _, rounded, rounding = lora.merged_params(graphdef, params, mesh)
    assert rounded["kernel"].get_value().astype(float).ravel().tolist() == [1, 1 + 2.0**-6]
    assert rounding.share == pytest.approx(2.0**-9 / np.hypot(2.0**-9, 2.0**-6))
    assert rounding.worst == ("[0]", pytest.approx(rounding.share))


def test_layers_are_chosen_by_their_path_and_frozen_parts_get_none(plain, mesh):
    shapes = parallel.abstract(plain[1], mesh)

    def adapted(targets: str, *frozen: str) -> set[str]:
        settings = LoRAConfig(RANK, ALPHA, targets)
        _, params = lora.add_to_params(plain[0], shapes, settings, frozenset(frozen), mesh, seed=0)
        paths = (path for path, _ in nnx.to_flat_state(freeze.split_adapters(params)[0]))
        return {"/".join(path[: path.index("adapter")]) for path in paths}

    assert adapted("text/.*/[qv]_proj") == {"text/layers/attn/q_proj", "text/layers/attn/v_proj"}
    assert adapted(".*(qkv|q_proj)") == {"text/layers/attn/q_proj", "vision/blocks/attn/qkv"}
    assert adapted(".*(qkv|q_proj)", "vision") == {"text/layers/attn/q_proj"}
    with pytest.raises(ValueError, match="'nothing' is the path of no layer that is not frozen; there"):
        adapted("nothing")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rank": -1}, "config.model.lora.rank=-1: expected 1 or more, or 0"),
        ({"rank": 4, "alpha": 0.0}, "config.model.lora.alpha=0.0: expected more than 0"),
        ({"rank": 4, "targets": "("}, "config.model.lora.targets='(' is no regular expression"),
    ],
)
def test_wrong_settings_are_named(changes, message):
    config = base.get_config()
    config.model.lora.update(changes)
    with pytest.raises(ValueError, match=re.escape(message)):
        lora.from_config(config)


@pytest.fixture(scope="module")
def trained_run(inputs, tmp_path_factory):  # noqa: F811
    """The workdir of a run with adapters that was stopped after the first of two steps, and its config."""
    workdir = tmp_path_factory.mktemp("lora") / "run"
    changes = LORA | {"optimizer.learning_rate": 0.05, "grpo.kl_coef": 0.1}
    run(small_config(inputs, "grpo", num_steps=1, **changes), workdir)
    config = small_config(inputs, "grpo", **changes)
    return run(config, workdir), config


@pytest.mark.slow
def test_a_run_with_adapters_resumes_exactly(trained_run, tmp_path):
    stopped, config = trained_run
    straight = run(config, tmp_path / "straight")
    expected, actual = (
        [without_times(line) for line in lines(workdir, "metrics.jsonl")] for workdir in (straight, stopped)
    )
    assert actual == expected
    assert fingerprint(final_params(config, stopped)) == fingerprint(final_params(config, straight))


def test_only_adapters_have_moments_and_only_targeted_kernels_end_changed(trained_run, inputs):  # noqa: F811
    workdir, config = trained_run
    (metadata,) = (pathlib.Path(workdir) / "checkpoints").glob("2/training/_METADATA")
    saved = json.loads(metadata.read_text())["tree_metadata"]
    moments = {name for name in saved if "'mu'" in name or "'nu'" in name}
    assert moments and all("'adapter'" in name for name in moments)

    start, end = (final_params(config, epath.Path(path)) for path in (inputs / "model", workdir))
    for (path, old), (_, new) in zip(nnx.to_flat_state(start), nnx.to_flat_state(end), strict=True):
        is_target = path[0] == "text" and path[-2].endswith("_proj")
        assert (old.get_value() != new.get_value()).any() == is_target, path


def test_the_reference_is_the_model_without_adapters(trained_run):
    """The policy is the reference until the first update that has a gradient; from there on it moves away."""
    first, second = (line["grpo/kl"] for line in lines(trained_run[0], "metrics.jsonl"))
    assert 0 <= first < second


def test_exported_adapters_are_what_separates_the_merged_model_from_its_base(trained_run, inputs, tmp_path):  # noqa: F811
    """In PEFT's names and layout: W of the merged model is that of the base + alpha / rank * B A."""
    workdir, _ = trained_run
    flags = [f"--workdir={workdir}", "--dtype=float32"]
    export.main([*flags, f"--out={tmp_path / 'merged'}"])
    export.main([*flags, f"--out={tmp_path / 'adapters'}", "--adapters"])
    settings = json.loads((tmp_path / "adapters" / "adapter_config.json").read_text())
    assert (settings["peft_type"], settings["r"], settings["lora_alpha"]) == ("LORA", RANK, ALPHA)
    assert settings["base_model_name_or_path"] == str(inputs / "model")
    names = ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]
    assert settings["target_modules"] == names

    base, merged = (load_file(path / "model.safetensors") for path in (inputs / "model", tmp_path / "merged"))
    adapters = load_file(tmp_path / "adapters" / "adapter_model.safetensors")
    changed = {name for name in base if (base[name] != merged[name]).any()}
    assert len(changed) == len(names) and len(adapters) == 2 * len(changed)
    for name in changed:
        a, b = (adapters[f"base_model.model.{name[: -len('weight')]}lora_{x}.weight"] for x in "AB")
        np.testing.assert_allclose(merged[name] - base[name], ALPHA / RANK * b @ a, atol=1e-5)


def test_adapters_are_not_exported_for_a_model_that_they_do_not_fit(
    trained_run,  # noqa: F811
    tiny_qwen3vl,
    tmp_path,
    mesh,
    capsys,
):
    workdir, _ = trained_run
    flags = [f"--workdir={workdir}", f"--out={tmp_path / 'out'}"]
    with pytest.raises(SystemExit, match="2"):
        export.main([*flags, "--adapters", f"--base={tiny_qwen3vl}"])
    assert "is not the model that the adapters were trained beside: its model." in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        export.main([*flags, "--base=x"])
    assert "--base is for --adapters" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_an_export_that_rounds_much_of_the_adapters_away_says_how_much(trained_run, tmp_path, mesh, caplog):
    """The learning rate of the test is large; a small one is made of it, 1e-5 of the change."""
    workdir, config = trained_run
    small = shutil.copytree(workdir, tmp_path / "small")
    settings = json.loads((small / "config.json").read_text())
    settings["model"]["lora"]["alpha"] = ALPHA * 1e-5
    (small / "config.json").write_text(json.dumps(settings))
    with caplog.at_level("WARNING", "dig_jax"):
        export.export(epath.Path(small), epath.Path(tmp_path / "float32"), mesh, dtype="float32")
        assert not caplog.records
        export.export(epath.Path(small), epath.Path(tmp_path / "bfloat16"), mesh, dtype="bfloat16")
    (record,) = caplog.records
    assert re.search(r"merged into bfloat16 kernels, and rounding took \d\d+% of their", record.getMessage())
    assert "exporting with --adapters or --dtype=float32" in record.getMessage()


def test_what_a_run_with_adapters_exports_is_one_model_for_all(trained_run, tmp_path, mesh):
    workdir, config = trained_run
    out = epath.Path(tmp_path / "exported")
    export.export(workdir, out, mesh)
    assert fingerprint(final_params(config, out)) == fingerprint(final_params(config, workdir))
    assert_same_logits(pathlib.Path(out), 64, 64, atol=1e-4)


def test_module_names_are_as_short_as_no_other_module_ends():
    modules = {"a.0.attn.proj", "a.0.mlp.fc", "merger.fc", "patch.proj", "b.q_proj"}
    assert peft.suffixes({"b.q_proj"}, modules) == ["q_proj"]
    assert peft.suffixes({"a.0.attn.proj", "merger.fc"}, modules) == ["attn.proj", "merger.fc"]
    assert peft.suffixes({"a.0.mlp.fc", "merger.fc"}, modules) == ["fc"]


def test_a_workdir_with_adapters_answers_as_its_export_does(trained_run, tmp_path, mesh, capsys):
    workdir, _ = trained_run
    out = epath.Path(tmp_path / "exported")
    export.export(workdir, out, mesh)
    answers = []
    for model in (workdir, out):
        generate.main(
            [
                f"--model={model}",
                "--prompt=two images",
                "--json",
                "--max_new_tokens=8",
                "--dtype=float32",
                "--sampling=greedy",  # the workdir's own is that of its rollouts
            ]
        )
        answers.append(json.loads(capsys.readouterr().out))
    assert answers[0]["tokens"] == answers[1]["tokens"]
    np.testing.assert_allclose(answers[0]["logprobs"], answers[1]["logprobs"], atol=1e-5)


def test_a_stage_starts_from_the_merged_model_of_the_stage_before(trained_run, inputs, mesh):  # noqa: F811
    workdir, _ = trained_run
    config = small_config(inputs, "grpo", **LORA)
    model = epath.Path(inputs / "model")
    start = loading.open_model(model).with_weights_of(workdir)
    _, params = loading.load_params(config, start, mesh)
    assert not freeze.split_adapters(params)[0]
    assert fingerprint(params) == fingerprint(final_params(config, workdir))
