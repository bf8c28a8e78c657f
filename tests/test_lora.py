"""LoRA: adapters train, the model under them stays, and what leaves the run is a plain model."""

import json
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath
from flax import nnx

from configs import base
from dig_jax import export, freeze, generate, loading, lora, parallel
from dig_jax.fingerprint import fingerprint
from dig_jax.lora import LoRAConfig
from dig_jax.models.qwen3_vl import hf
from dig_jax.rollout.programs import rollout_programs
from tests.folder_logits import assert_same_logits
from tests.models.conftest import PromptMaker
from tests.test_train import final_params, inputs, lines, run, small_config, without_times  # noqa: F401

RANK, ALPHA = 4, 8.0
LORA = {"model.lora.rank": RANK, "model.lora.alpha": ALPHA}
SETTINGS = LoRAConfig(RANK, ALPHA, "text/.*_proj")


@pytest.fixture(scope="module")
def mesh():
    return parallel.make_mesh(base.get_config().mesh)


@pytest.fixture(scope="module")
def plain(tiny_qwen3vl):
    """Structure and parameters of a model without adapters."""
    return nnx.split(hf.load_model(tiny_qwen3vl), nnx.Param)


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
    from dig_jax.models.layers import Linear

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
    merged = lora.merged_params(graphdef, jax.tree.map(jnp.copy, params), mesh)
    assert jax.tree.structure(merged[1]) == jax.tree.structure(plain[1])
    assert np.abs(hidden(merged) - hidden(plain)).max() > 0.1
    np.testing.assert_allclose(hidden(merged), hidden(trained), atol=1e-5)


def test_the_copy_for_sampling_is_merged(plain, trained, hidden, mesh):
    weights = rollout_programs(*trained, mesh).weights(trained[1])
    np.testing.assert_allclose(hidden((plain[0], weights)), hidden(trained), atol=1e-5)


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


def test_what_a_run_with_adapters_exports_is_one_model_for_all(trained_run, tmp_path, mesh):
    workdir, config = trained_run
    out = epath.Path(tmp_path / "exported")
    export.export(workdir, out, mesh)
    assert fingerprint(final_params(config, out)) == fingerprint(final_params(config, workdir))
    assert_same_logits(pathlib.Path(out), 64, 64, atol=1e-4)


def test_a_workdir_with_adapters_answers_as_its_export_does(trained_run, tmp_path, mesh, capsys):
    workdir, _ = trained_run
    out = epath.Path(tmp_path / "exported")
    export.export(workdir, out, mesh)
    answers = []
    for model in (workdir, out):
        generate.main(
            [f"--model={model}", "--prompt=two images", "--json", "--max_new_tokens=8", "--dtype=float32"]
        )
        answers.append(json.loads(capsys.readouterr().out))
    assert answers[0]["tokens"] == answers[1]["tokens"]
    np.testing.assert_allclose(answers[0]["logprobs"], answers[1]["logprobs"], atol=1e-5)


def test_a_stage_starts_from_the_merged_model_of_the_stage_before(trained_run, inputs, mesh):  # noqa: F811
    workdir, _ = trained_run
    config = small_config(inputs, "grpo", **LORA)
    model = epath.Path(inputs / "model")
    _, params = loading.load_params(config, model, workdir, mesh)
    assert not freeze.split_adapters(params)[0]
    assert fingerprint(params) == fingerprint(final_params(config, workdir))
