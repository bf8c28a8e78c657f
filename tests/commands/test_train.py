"""The trainer on a very small model and drawn pairs: it learns, resumes, logs, and refuses wrong settings."""

import dataclasses
import itertools
import json
import pathlib
import shutil

import jax
import numpy as np
import pytest
from etils import epath
from flax import nnx
from ml_collections import ConfigDict

from configs import base
from dig_jax import export, settings, train
from dig_jax.machines import parallel
from dig_jax.machines.stopping import Stop, Stopped
from dig_jax.run import loading
from dig_jax.run.checkpoint import Checkpoints
from dig_jax.run.fingerprint import fingerprint
from dig_jax.tasks.differences import reward
from dig_jax.update import sft
from tests.helpers.drawn_pairs import draw_pair, write_pairs
from tests.helpers.forked_command import run_command
from tests.helpers.small_model import make_small_model

pytestmark = pytest.mark.usefixtures("quick_compiling")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A folder with `model` (from scratch) and `pairs` (24 training and 8 test pairs)."""
    folder = tmp_path_factory.mktemp("inputs")
    make_small_model(folder / "model")
    pairs = {
        split: [draw_pair(i, size=(64, 64), num_differences=i % 3, seed=seed) for i in range(count)]
        for seed, (split, count) in enumerate({"train": 24, "test": 8}.items())
    }
    write_pairs(folder / "pairs", pairs)
    return folder


def small_config(inputs: pathlib.Path, algorithm: str, /, **changes: object) -> ConfigDict:
    """Two steps of two updates of two micro-batches each; `changes` name settings by their path."""
    config = base.get_config()
    config.algorithm = algorithm
    config.model_path = str(inputs / "model")
    config.num_steps = 2
    config.model.dtype = "float32"
    config.data.train = (str(inputs / "pairs"),)
    config.data.question = "Find differences."
    config.data.augment.swap_pair = True
    config.batch.prompts, config.batch.update_prompts, config.batch.micro_prompts = 8, 4, 2
    config.batch.rollout_prompts = 4
    config.rollout.group_size = 3
    config.rollout.max_new_tokens = 12
    config.sft.answer_step = 20
    config.sft.max_answer_tokens = 28
    config.sft.aux_weight = 1.0
    config.optimizer.learning_rate = 1e-2
    config.eval.num_pairs, config.eval.batch_prompts, config.eval.group_size = 6, 4, 2
    config.eval.greedy = True
    config.eval.every = config.checkpoint.every = 1
    config.log.tensorboard = False
    config.update_from_flattened_dict(changes)
    return config


def run(config: ConfigDict, workdir: pathlib.Path) -> epath.Path:
    train.run(config, epath.Path(workdir))
    return epath.Path(workdir)


@pytest.fixture(scope="module")
def one_step(inputs: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> epath.Path:
    """The workdir of a supervised run of one step. Not to be written to."""
    return run(small_config(inputs, "sft", num_steps=1), tmp_path_factory.mktemp("one_step") / "run")


def final_params(config: ConfigDict, workdir: epath.Path) -> nnx.State:
    mesh = parallel.make_mesh(config.mesh, jax.devices()[:1])
    return loading.load_params(config, loading.open_model(workdir), mesh)[1]


def lines(workdir: epath.Path, name: str) -> list[dict]:
    return [json.loads(line) for line in (workdir / name).read_text().splitlines()]


def without_times(line: dict) -> dict:
    timed = ("time/", "tokens_per_second/", "seconds")
    return {key: value for key, value in line.items() if not key.startswith(timed)}


def assert_same_steps(ours: epath.Path, theirs: epath.Path, rel: float) -> None:
    """Every figure of every step of two runs, to rounding."""
    for line, other in zip(lines(ours, "metrics.jsonl"), lines(theirs, "metrics.jsonl"), strict=True):
        assert without_times(line) == pytest.approx(without_times(other), rel=rel)


def test_a_stopped_run_continues_exactly(inputs: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """A supervised one, between two steps; by GRPO, and inside a step: below."""
    pairs = {"data.eval": str(inputs / "pairs")}
    whole = small_config(inputs, "sft", **pairs)
    straight = run(whole, tmp_path / "straight")
    stopped = run(small_config(inputs, "sft", num_steps=1, **pairs), tmp_path / "stopped")
    run(whole, tmp_path / "stopped")

    for name in ("metrics.jsonl", "evals.jsonl", "samples/samples.jsonl"):
        expected, actual = (
            [without_times(line) for line in lines(workdir, name)] for workdir in (straight, stopped)
        )
        assert actual == expected
    assert json.loads((stopped / "config.json").read_text())["num_steps"] == 2
    expected_params, actual_params = final_params(whole, straight), final_params(whole, stopped)
    assert fingerprint(actual_params) == fingerprint(expected_params)


def test_grpo_logs_what_it_promises_and_moves_the_model(inputs: pathlib.Path, tmp_path: pathlib.Path) -> None:
    changes = {"data.eval": str(inputs / "pairs"), "eval.blind": True}
    config = small_config(inputs, "grpo", num_steps=1, **changes)
    workdir = run(config, tmp_path / "run")
    (metrics,) = lines(workdir, "metrics.jsonl")
    assert {"main/f1", "main/reward_sampled", "main/blind/f1"} <= lines(workdir, "evals.jsonl")[-1].keys()
    expected = {
        *(f"reward/{name}" for name in ("reward", "accuracy", "format", "f1", "iou", "precision", "recall")),
        *(f"rollout/{name}" for name in ("response_length_mean", "truncated", "zero_std_groups")),
        *(f"grpo/{name}" for name in ("kl", "entropy", "clip_fraction_low", "clip_fraction_high")),
        *(f"grpo/{name}" for name in ("sampler_trainer_gap_mean", "sampler_trainer_gap_max")),
        *(f"grpo/{name}" for name in ("ratio_mean", "grad_norm")),
        *(f"time/{name}" for name in ("data", "reshard", "rollout", "reward", "score", "update", "step")),
        "rollout/reshard_gb",
        "tokens_per_second/rollout",
        "tokens_per_second/step",
        "learning_rate",
    }
    assert expected <= metrics.keys()
    # Sampler and trainer compute the same probabilities.
    assert metrics["grpo/sampler_trainer_gap_max"] < 1e-4
    opened = loading.open_model(epath.Path(inputs / "model"))
    start = loading.load_params(config, opened, parallel.make_mesh(config.mesh))[1]
    assert fingerprint(final_params(config, workdir)) != fingerprint(start)
    assert (workdir / "report.html").exists()
    assert len(list((workdir / "samples").glob("step*.png"))) == 2 * config.log.samples
    assert len(lines(workdir, "samples/worst.jsonl")) == config.log.samples
    assert [line["step"] for line in lines(workdir, "slices.jsonl")] == [0, 1]
    (group,) = lines(workdir, "groups.jsonl")
    advantages = [answer["advantage"] for answer in group["answers"]]
    assert len(advantages) == config.rollout.group_size and abs(sum(advantages)) < 1e-4


def test_supervised_training_fits_a_few_pairs(inputs: pathlib.Path, tmp_path: pathlib.Path) -> None:
    changes = {"eval.every": 100, "checkpoint.every": 100, "optimizer.learning_rate": 3e-3}
    config = small_config(inputs, "sft", num_steps=10, **changes)
    metrics = lines(run(config, tmp_path / "run"), "metrics.jsonl")
    assert metrics[-1]["sft/answer_loss"] < 0.5 * metrics[0]["sft/answer_loss"]


def test_micro_batches_do_not_change_the_update(
    one_step: epath.Path, inputs: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """Two prompts at a time, and all four."""
    config = small_config(inputs, "sft", num_steps=1, **{"batch.micro_prompts": 4})
    (whole,), (cut,) = (lines(path, "metrics.jsonl") for path in (run(config, tmp_path / "run"), one_step))
    for name in ("sft/loss", "sft/aux_loss", "sft/token_accuracy", "sft/grad_norm"):
        assert cut[name] == pytest.approx(whole[name], rel=1e-4)


def test_dynamic_sampling_draws_again_until_groups_differ(
    inputs: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    # The untrained model earns 0 everywhere, so every attempt is used, and none of its groups is informative.
    changes = {"grpo.dynamic_sampling": 2, "rollout.max_new_tokens": 1, "grpo.mask_truncated": True}
    config = small_config(inputs, "grpo", num_steps=1, **changes)
    (metrics,) = lines(run(config, tmp_path / "run"), "metrics.jsonl")
    assert metrics["rollout/attempts"] == 3
    assert metrics["rollout/zero_std_groups"] == 1
    # Nothing is left to learn from either: all completions are truncated, their tokens masked.
    assert metrics["rollout/truncated"] == 1
    assert metrics["grpo/loss"] == metrics["grpo/grad_norm"] == metrics["grpo/skipped_updates"] == 0


def test_a_later_stage_starts_from_the_parameters_of_an_earlier_one(
    one_step: epath.Path, inputs: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    changes = {"init_from": str(one_step), "optimizer.learning_rate": 0.0}
    later = small_config(inputs, "sft", num_steps=1, **changes)
    second = run(later, tmp_path / "second")
    assert fingerprint(final_params(later, second)) == fingerprint(final_params(later, one_step))


def test_an_exported_run_is_the_same_model(
    one_step: epath.Path, inputs: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    config, workdir = small_config(inputs, "sft", num_steps=1), one_step
    mesh = parallel.make_mesh(config.mesh)
    out = epath.Path(tmp_path / "exported")
    export.export(workdir, out, mesh)
    _, params = loading.load_params(config, loading.open_model(out), mesh)
    assert fingerprint(params) == fingerprint(final_params(config, workdir))
    assert (out / "tokenizer.json").exists()
    with pytest.raises(FileExistsError, match="not empty"):
        export.export(workdir, out, mesh)


def test_a_run_refuses_to_continue_under_other_settings(
    one_step: epath.Path, inputs: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    shutil.copytree(one_step, tmp_path / "run")
    changed = small_config(inputs, "sft", seed=5, **{"optimizer.learning_rate": 1e-5})
    with pytest.raises(ValueError, match=r"optimizer.learning_rate: 0.01 -> 1e-05\n.*seed: 0 -> 5"):
        run(changed, tmp_path / "run")


def test_only_a_run_with_a_constant_learning_rate_may_be_lengthened(
    inputs: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    decaying = {"optimizer.schedule": "linear"}
    (tmp_path / "config.json").write_text(small_config(inputs, "sft", **decaying).to_json())
    with pytest.raises(ValueError, match="num_steps: 2 -> 3"):
        settings.check_resume(
            small_config(inputs, "sft", num_steps=3, **decaying), epath.Path(tmp_path / "config.json")
        )


def test_a_stop_while_sampling_saves_and_the_run_goes_on_exactly(
    inputs: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small_config(
        inputs, "grpo", num_steps=3, **{"data.eval": str(inputs / "pairs"), "checkpoint.every": 3}
    )
    straight = run(config, tmp_path / "straight")

    checks = 0
    check = Stop.check

    def stop_at_the_twelfth(self: Stop) -> None:
        nonlocal checks
        checks += 1
        if checks in (12, 13):  # in the second step; then in the evaluation that follows it
            self.request("a test")
        check(self)

    monkeypatch.setattr(Stop, "check", stop_at_the_twelfth)
    for _ in range(2):
        with pytest.raises(Stopped):
            run(config, tmp_path / "stopped")
    run(config, tmp_path / "stopped")

    for name in ("metrics.jsonl", "evals.jsonl", "samples/samples.jsonl"):
        expected, actual = (
            [without_times(line) for line in lines(workdir, name)]
            for workdir in (straight, epath.Path(tmp_path / "stopped"))
        )
        assert actual == expected
    stopped = final_params(config, epath.Path(tmp_path / "stopped"))
    assert fingerprint(stopped) == fingerprint(final_params(config, straight))


def test_an_update_that_is_not_finite_is_skipped_named_and_in_the_end_fatal(
    inputs: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small_config(
        inputs, "sft", num_steps=4, **{"batch.update_prompts": 8, "optimizer.max_skipped_updates": 1}
    )
    put = parallel.put_batch

    def spoiled(batch: object, *args: object) -> object:
        if isinstance(batch, sft.Supervised) and next(updates) >= 1:
            patches = np.full_like(batch.prompts.patches, np.nan)
            batch = dataclasses.replace(batch, prompts=batch.prompts.replace(patches=patches))
        return put(batch, *args)

    updates = itertools.count()
    monkeypatch.setattr(parallel, "put_batch", spoiled)
    with pytest.raises(FloatingPointError, match=r"2 updates in a row .* up to step 3; .* skipped.jsonl"):
        run(config, tmp_path / "run")

    workdir = epath.Path(tmp_path / "run")
    assert [line["sft/skipped_updates"] for line in lines(workdir, "metrics.jsonl")] == [0, 1, 1]
    skipped = lines(workdir, "skipped.jsonl")
    assert [(line["step"], len(set(line["ids"]))) for line in skipped] == [(2, 8), (3, 8)]
    assert all(name.startswith("drawn-") for line in skipped for name in line["ids"])
    kept = Checkpoints(workdir, read_only=True)
    assert kept.steps == [1, 2]
    kept.close()


def test_a_reward_that_fails_names_the_answer_it_failed_on(
    inputs: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parse = reward.read_boxes
    seen = []

    def fails_on_the_third(text: str, **settings: object) -> object:
        seen.append(text)
        if text == seen[min(2, len(seen) - 1)] and len(seen) > 2:
            raise ZeroDivisionError("a bug in a reward")
        return parse(text, **settings)

    monkeypatch.setattr(reward, "read_boxes", fails_on_the_third)
    config = small_config(inputs, "grpo", num_steps=1)
    with pytest.raises(RuntimeError, match=r"failed on the answer .* to drawn-.*: a bug in a reward"):
        run(config, tmp_path / "run")


def test_harmless_changes_are_told_and_allowed(inputs: pathlib.Path, tmp_path: pathlib.Path) -> None:
    (tmp_path / "config.json").write_text(small_config(inputs, "sft").to_json())
    changed = small_config(inputs, "sft", **{"checkpoint.keep": 9, "batch.micro_prompts": 4})
    changes = settings.check_resume(changed, epath.Path(tmp_path / "config.json"))
    assert changes == ["batch.micro_prompts: 2 -> 4", "checkpoint.keep: 3 -> 9"]


def test_a_run_in_bfloat16_of_an_older_version_is_not_continued(
    inputs: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    config = small_config(inputs, "sft", **{"model.param_dtype": "bfloat16"})
    written = json.loads(config.to_json())
    del written["checkpoint"]["resumable"]
    (tmp_path / "config.json").write_text(json.dumps(written))
    with pytest.raises(ValueError, match=r"of an older version, which lost .* --config.init_from="):
        settings.check_resume(config, epath.Path(tmp_path / "config.json"))
    (tmp_path / "config.json").write_text(config.to_json())
    assert settings.check_resume(config, epath.Path(tmp_path / "config.json")) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"checkpoint.resumable": 4}, "checkpoint.resumable=4: expected 0 .all. to config.checkpoint.keep=3"),
        ({"algorithm": "ppo"}, "config.algorithm='ppo': expected one of grpo, distill, sft"),
        ({"batch.prompts": 9}, "batch.prompts=9 is not a multiple of config.batch.update_prompts=4"),
        ({"rollout.group_size": 1}, "GRPO compares at least 2"),
        ({"grpo.kl": "k9"}, "grpo.kl is 'k9'"),
        ({"reward.iou_threshold": 2.0}, "reward.iou_threshold is 2.0"),
        ({"mesh.tensor": 3, "mesh.fsdp": 1}, "mesh.tensor=3: must multiply to the number of devices"),
        ({"model_path": "nowhere/at/all"}, "model folder nowhere/at/all does not exist"),
        ({"init_from": "nowhere"}, "init_from=nowhere is not a workdir"),
        ({"data.eval": "nowhere"}, "nowhere"),
        ({"data.num_differences": (7,)}, "no pairs"),
        ({"eval.group_size": -1}, "config.eval.group_size=-1"),
        ({"eval.thinking_budget": 12}, "eval.thinking_budget=12: expected 0 .off. or less than .*tokens=12"),
        ({"eval.thinking_budget": 5}, "thinking_budget=5: this model does not think"),
    ],
)
def test_wrong_settings_are_named(
    change: dict, message: str, inputs: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        run(small_config(inputs, "grpo", **change), tmp_path / "run")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config=configs/stage3.py", "--config.batch.prompst=3"], "prompst"),
        (["--config=configs/stage3.py"], "hf download"),
        (["--config=configs/stage3.py", "--config.batch.prompts=abc"], "batch.prompts"),
        (["--config=configs/none.py"], "configs/none.py"),
        (["--config=configs/stage3.py", "seed=3"], "unexpected arguments: seed=3"),
        ([], "--config"),
        (["--config=configs/stage3.py", "--config.model_path=missing/folder/x"], "hf download"),
    ],
)
def test_the_command_says_what_is_wrong_and_ends_with_code_2(
    arguments: list[str], message: str, tmp_path: pathlib.Path
) -> None:
    errors = tmp_path / "errors"
    assert run_command([f"--workdir={tmp_path / 'run'}", *arguments], errors) == 2
    assert message in errors.read_text() and "Traceback" not in errors.read_text()


def test_the_steps_asked_for_are_profiled_and_no_other(inputs: pathlib.Path, tmp_path: pathlib.Path) -> None:
    run(small_config(inputs, "sft", **{"log.profile_steps": (2,)}), tmp_path)
    assert [folder.name for folder in (tmp_path / "profile").iterdir()] == ["step_000002"]
    (trace,) = (tmp_path / "profile").rglob("*.xplane.pb")
    assert b"update_sft" in trace.read_bytes()


def test_a_run_knows_its_pairs_by_what_the_folder_holds(
    inputs: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = shutil.copytree(inputs / "pairs", tmp_path / "pairs")
    data = {"data.train": (str(pairs),), "data.eval": str(pairs)}
    workdir = run(small_config(inputs, "sft", num_steps=1, **data), tmp_path / "run")

    moved = pairs.rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path)
    data = {"data.train": ("moved",), "data.eval": str(moved)}
    config = small_config(inputs, "sft", num_steps=2, **data)
    run(config, tmp_path / "run")
    assert [line["step"] for line in lines(workdir, "metrics.jsonl")] == [1, 2]

    shutil.rmtree(moved)
    others = {split: [draw_pair(i, size=(64, 64), seed=9) for i in range(8)] for split in ("train", "test")}
    write_pairs(moved, others)
    with pytest.raises(ValueError, match="data.train: .*'moved'.* does not hold what it held"):
        run(config, tmp_path / "run")
