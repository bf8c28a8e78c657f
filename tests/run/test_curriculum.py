"""Stages of a run: which settings hold when, and that runs of several stages stop, resume and compare."""

import importlib
import json
import pathlib
import shutil

import numpy as np
import pytest
from etils import epath
from ml_collections import ConfigDict

from configs import base
from dig_jax import settings, train
from dig_jax.machines.stopping import Stop, Stopped
from dig_jax.run import curriculum
from dig_jax.run.checkpoint import Checkpoints, Damaged
from dig_jax.run.curriculum import Progress
from dig_jax.run.fingerprint import fingerprint
from tests.commands.test_train import (  # noqa: F401  (inputs is a fixture)
    final_params,
    inputs,
    lines,
    run,
    small_config,
    without_times,
)

pytestmark = pytest.mark.usefixtures("quick_compiling")

CONFIGS = pathlib.Path(base.__file__).parent


def config_of(**stages: dict) -> ConfigDict:
    """A config with these stages, in this order, of 8 prompts in 2 updates per step."""
    config = base.get_config()
    config.data.train = ("pairs",)
    config.batch.prompts, config.batch.update_prompts, config.batch.micro_prompts = 8, 4, 2
    config.batch.rollout_prompts = 8
    config.curriculum.order = tuple(stages)
    config.curriculum.stages = ConfigDict(stages)
    return config


def test_a_run_without_a_curriculum_is_one_stage_with_its_own_settings() -> None:
    config = config_of()
    (stage,) = curriculum.stages(config)
    assert stage.config.to_dict() == config.to_dict()
    assert (stage.first_update, stage.total_updates) == (0, 90)


def test_a_stage_is_the_config_with_what_it_changes() -> None:
    config = config_of(
        warmup={"algorithm": "sft", "num_steps": 3}, mixed={"data": {"num_differences": (0, 4)}}
    )
    warmup, mixed = curriculum.stages(config)
    assert (warmup.name, warmup.config.algorithm, warmup.config.num_steps) == ("warmup", "sft", 3)
    assert (mixed.config.algorithm, mixed.config.data.num_differences) == ("grpo", (0, 4))
    assert warmup.config.data.num_differences == ()
    assert config.algorithm == "grpo"  # as it was


def test_pairs_that_no_stage_reads_need_not_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "fingerprint_of_data", lambda folder, split: f"{split} of {folder}")
    config = config_of(a={"data": {"train": ("one",)}})
    config.data.train = ("nowhere",)
    assert settings.data_fingerprints(config)["curriculum.stages.a.data.train"] == ["train of one"]
    assert "data.train" not in settings.data_fingerprints(config)
    config.curriculum.stages.b = {}
    config.curriculum.order = ("a", "b")
    assert settings.data_fingerprints(config)["data.train"] == ["train of nowhere"]


def test_stages_share_a_schedule_up_to_the_next_restart() -> None:
    restart = {"optimizer": {"restart": True}}
    config = config_of(a={"num_steps": 5}, b=restart | {"num_steps": 10}, c={"num_steps": 20})
    places = [(stage.first_update, stage.total_updates) for stage in curriculum.stages(config)]
    assert places == [(0, 10), (0, 60), (20, 60)]


def test_stages_have_seeds_of_their_own_and_the_first_has_that_of_the_run() -> None:
    seeds = [stage.config.seed for stage in curriculum.stages(config_of(a={}, b={}, c={}))]
    assert seeds[0] == 0
    assert len(set(seeds)) == 3
    other = config_of(a={}, b={})
    other.seed = 1
    assert curriculum.stages(other)[1].config.seed not in seeds


def test_a_stage_ends_after_its_steps_or_at_an_evaluation_that_passes() -> None:
    config = config_of(a={"num_steps": 4, "advance": {"metric": "single/f1", "at": 0.5}}, b={"num_steps": 2})
    stages = curriculum.stages(config)
    progress = Progress(reference="")
    progress.note_evaluation({"main/f1": 0.1, "single/f1": 0.9}, stages, "f1")
    assert not curriculum.is_over(stages[0], progress)  # no step of it is done
    progress.step = 2
    progress.note_evaluation({"main/f1": 0.2, "single/f1": 0.4}, stages, "f1")
    assert not curriculum.is_over(stages[0], progress)
    progress.step = 3
    progress.note_evaluation({"main/f1": 0.1, "single/f1": 0.5}, stages, "f1")
    assert curriculum.is_over(stages[0], progress)
    assert (progress.best_score, progress.best_step) == (0.2, 2)

    progress.began.append(3)
    assert curriculum.planned_steps(stages, progress) == 5
    assert not curriculum.is_over(stages[1], progress)
    progress.step = 5
    assert curriculum.is_over(stages[1], progress)
    assert progress.marked_steps == {2, 3}


def test_the_best_model_is_that_of_the_best_sampled_reward_where_there_are_samples() -> None:
    stages = curriculum.stages(config_of(a={"num_steps": 4}))
    progress = Progress(reference="")
    for step, reward in enumerate((0.2, 0.5, 0.4)):
        progress.step = step
        metrics = {"main/reward_sampled": reward, "main/f1_sampled": 1 - reward, "a/reward_sampled": step}
        progress.note_evaluation(metrics, stages, "f1")
    assert (progress.best_score, progress.best_step) == (0.5, 1)


def test_a_score_of_another_evaluation_is_not_compared_with() -> None:
    stages = curriculum.stages(config_of(a={"num_steps": 4}))
    progress = Progress(reference="", best_score=0.9, best_step=0)  # of a version that did not say of what
    for step, what, reward, expected in (
        (1, "reward of pairs", 0.5, (0.9, 0)),
        (2, "reward of phrases", 0.2, (0.2, 2)),
        (3, "reward of phrases", 0.1, (0.2, 2)),
    ):
        progress.step = step
        assert progress.begin_to_measure(what) == (step == 2)
        progress.note_evaluation({"main/reward_sampled": reward}, stages, "f1")
        assert (progress.best_score, progress.best_step) == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"curriculum.order": ("a", "z")}, "names 'z', but config.curriculum.stages has a, b"),
        (
            {"curriculum.stages": {"a": {"model": {"dtype": "float32"}}, "b": {}}},
            "a.model.dtype: a stage can not",
        ),
        (
            {"curriculum.stages": {"a": {"reward": {"f2": 1.0}}, "b": {}}},
            "config.curriculum.stages.a.reward.f2",
        ),
        (
            {"curriculum.stages": {"a": {}, "b": {"num_steps": "5"}}},
            "config.curriculum.stages.b.num_steps='5'",
        ),
        ({"curriculum.stages": {"a": {}, "b": {"algorithm": "ppo"}}}, "stage b: config.algorithm='ppo'"),
        ({"advance.at": 0.5}, "config.advance.at=0.5, but nothing is evaluated"),
        (
            {"data.eval": "x", "advance.metric": "f1", "advance.at": 0.5},
            "'f1' is of greedy answers, but config.eval.greedy=False",
        ),
        (
            {"data.eval": "x", "advance.at": 0.5, "eval.group_size": 0},
            "'reward_sampled' is of sampled answers, but config.eval.group_size=0 draws none",
        ),
        ({"data.eval": "x", "data.eval_extra": ("single",)}, r"config.data.eval_extra=\('single',\)"),
        ({"data.eval_extra": ("single=x",)}, "config.data.eval_extra is set, but config.data.eval"),
    ],
)
def test_wrong_curricula_are_named(change: dict, message: str) -> None:
    config = config_of(a={}, b={})
    for path, value in change.items():
        group, key = path.split(".")
        config[group][key] = ConfigDict(value) if isinstance(value, dict) else value
    with pytest.raises(ValueError, match=message):
        settings.check(config)


@pytest.mark.parametrize("name", sorted({path.stem for path in CONFIGS.glob("*.py")} - {"__init__", "base"}))
def test_every_config_is_valid_in_all_of_its_stages(name: str) -> None:
    config = importlib.import_module(f"configs.{name}").get_config()
    if not any(config.data.train):  # no experiment of its own
        config.data.train = ("pairs",)
    settings.check(config)


def test_a_stage_may_draw_shorter_answers_than_the_thinking_budget_of_evaluations() -> None:
    config = config_of(a={"rollout": {"max_new_tokens": 64}})
    config.eval.thinking_budget = 128
    settings.check(config)


def test_longer_responses_are_computed_fewer_at_a_time() -> None:
    for name in ("stage1_long", "stage2_long", "stage3_long"):
        module = importlib.import_module(f"configs.{name}")
        short, long = module.get_config("4k"), module.get_config("8k")
        settings.check(long)
        assert (short.rollout.max_new_tokens, long.rollout.max_new_tokens) == (4096, 8192)
        for tokens in (  # alive at a time
            lambda config: config.batch.micro_completions * config.rollout.max_new_tokens,
            lambda config: config.rollout.rows * config.rollout.slots * config.rollout.max_new_tokens,
        ):
            assert tokens(short) == tokens(long)
        with pytest.raises(ValueError, match="responses of '9k': expected one of 4k, 8k"):
            module.get_config("9k")


@pytest.mark.parametrize(("way", "chips"), [("lora", 4), ("full", 8)])
def test_the_layouts_for_experts_replay_and_divide_their_batches(way: str, chips: int) -> None:
    config = importlib.import_module("configs.curriculum_30b_a3b").get_config(way)
    settings.check(config)
    settings.check_batches(config, chips, chips)
    assert config.mesh.fsdp * config.mesh.expert == config.rollout.mesh.expert == chips
    for stage in curriculum.stages(config):
        assert (stage.config.grpo.loss, stage.config.moe.replay) == ("gspo", "rollout")
        assert not stage.uses_reference


def test_a_figure_that_no_evaluation_has_is_named_at_the_first_one() -> None:
    stages = curriculum.stages(config_of(a={}, b={"advance": {"metric": "f9", "at": 0.5}}))
    with pytest.raises(
        ValueError, match="config.advance.metric='f9' is no held-out metric .* it has main/f1"
    ):
        Progress(reference="").note_evaluation({"main/f1": 0.0}, stages, "f1")


def test_where_evaluations_decide_their_settings_can_not_change(tmp_path: pathlib.Path) -> None:
    saved = epath.Path(tmp_path / "config.json")
    config = config_of(a={"batch": {"micro_prompts": 2}, "num_steps": 3})
    config.data.eval = "pairs"
    saved.write_text(config.to_json())
    config.eval.every = 7
    config.curriculum.stages.a.batch.micro_prompts = 4
    config.curriculum.stages.a.num_steps = 9
    assert len(settings.check_resume(config, saved)) == 3
    config.advance.at = 0.5
    saved.write_text(config.to_json())
    config.eval.every = 8
    with pytest.raises(ValueError, match="eval.every: 7 -> 8"):
        settings.check_resume(config, saved)


def test_a_run_from_before_greedy_answers_were_a_choice_goes_on_with_or_without_them(
    tmp_path: pathlib.Path,
) -> None:
    saved = epath.Path(tmp_path / "config.json")
    config = config_of(a={}, b={})
    config.data.eval, config.advance.at = "pairs", 0.5
    written = json.loads(config.to_json())
    del written["eval"]["greedy"]
    saved.write_text(json.dumps(written))
    for greedy in (True, False):
        config.eval.greedy = greedy
        settings.check_resume(config, saved)


def test_damaged_settings_of_a_run_are_named_with_their_file(tmp_path: pathlib.Path) -> None:
    saved = epath.Path(tmp_path / "config.json")
    saved.write_text('{"seed": ')
    with pytest.raises(ValueError, match=r"config.json is not JSON"):
        settings.check_resume(config_of(a={}), saved)


def three_stages(inputs: pathlib.Path) -> ConfigDict:  # noqa: F811
    """Supervised, then GRPO twice, with a new optimizer and reference; an evaluation ends the last stage."""
    data = {"data.eval": str(inputs / "pairs"), "data.eval_extra": (f"again={inputs / 'pairs'}",)}
    other = {"optimizer.schedule": "linear", "eval.every": 2, "eval.num_pairs": 4}
    other |= {"checkpoint.keep": 1, "checkpoint.resumable": 1}  # the reference reads parameters alone
    config = small_config(inputs, "grpo", **data, **other)
    config.curriculum.stages = ConfigDict(
        {
            "warmup": {"algorithm": "sft", "num_steps": 1},
            "first": {"num_steps": 1, "grpo": {"reanchor": True}, "optimizer": {"restart": True}},
            "second": {
                "num_steps": 5,
                "data": {"num_differences": (1, 2)},
                "advance": {"metric": "again/f1", "at": -1.0},
            },
        }
    )
    config.curriculum.order = ("warmup", "first", "second")
    return config


@pytest.fixture(scope="module")
def straight(inputs: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> epath.Path:  # noqa: F811
    """The workdir of a run of three stages that nothing interrupted."""
    return run(three_stages(inputs), tmp_path_factory.mktemp("straight"))


def test_each_stage_trains_in_its_own_way(straight: epath.Path) -> None:
    metrics, evals = lines(straight, "metrics.jsonl"), lines(straight, "evals.jsonl")
    assert [line["stage"] for line in metrics] == [1, 2, 3, 3]
    assert [(line["step"], line["stage"]) for line in evals] == [(0, 1), (1, 1), (2, 2), (4, 3)]
    assert all(line["again/f1"] == line["main/f1"] for line in evals)
    assert ["sft/loss" in line for line in metrics] == [True, False, False, False]
    # Two updates per step: the first schedule ends at 0 after 2, that of the others after 12.
    rates = [line["learning_rate"] for line in metrics]
    np.testing.assert_allclose(rates, 1e-2 * np.array([1 / 2, 11 / 12, 9 / 12, 7 / 12]), rtol=1e-6)
    # The reference of the last two is the model after the first: only updates lead away from it.
    assert 0 <= metrics[1]["grpo/kl"] < metrics[2]["grpo/kl"]


def test_the_ends_of_stages_are_kept(straight: epath.Path) -> None:
    kept = Checkpoints(straight, read_only=True)
    assert kept.steps == [1, 2, 4]
    kept.close()
    assert [(straight / f"checkpoints/{step}/training").exists() for step in kept.steps] == [
        False,
        False,
        True,
    ]


def test_a_reference_that_is_gone_or_another_than_it_was_is_named(
    straight: epath.Path,
    inputs: pathlib.Path,  # noqa: F811
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    copied = shutil.copytree(straight, tmp_path / "run")
    with monkeypatch.context() as patched:
        patched.setattr(train, "fingerprint", lambda params: "another")
        with pytest.raises(ValueError, match="the KL reference of .* than its checkpoint 1 holds now"):
            run(three_stages(inputs), copied)
    shutil.rmtree(copied / "checkpoints" / "1")
    with pytest.raises(Damaged, match="checkpoint 1 can not be read: FileNotFoundError: "):
        run(three_stages(inputs), copied)


def test_a_run_stopped_at_the_end_of_a_stage_and_inside_another_continues_exactly(
    straight: epath.Path,
    inputs: pathlib.Path,  # noqa: F811
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = three_stages(inputs)
    checks: list[int] = []
    check = Stop.check

    def stop_at_the_last(self: Stop) -> None:
        checks[0] -= 1
        if checks[0] == 0:
            self.request("a test")
        check(self)

    monkeypatch.setattr(Stop, "check", stop_at_the_last)
    ends = []
    for count in (7, 16):  # in the evaluation after the first stage; while the fourth step samples
        checks[:] = [count]
        with pytest.raises(Stopped):
            run(config, tmp_path / "stopped")
        ends.append(max(int(path.name) for path in (tmp_path / "stopped" / "checkpoints").iterdir()))
    assert ends == [1, 3]
    checks[:] = [0]
    stopped = run(config, tmp_path / "stopped")

    for name in ("metrics.jsonl", "evals.jsonl", "samples/samples.jsonl"):
        expected, actual = (
            [without_times(line) for line in lines(workdir, name)] for workdir in (straight, stopped)
        )
        assert actual == expected
    assert fingerprint(final_params(config, stopped)) == fingerprint(final_params(config, straight))


def test_a_stage_that_begins_anew_is_what_a_command_of_its_own_would_be(
    inputs: pathlib.Path,  # noqa: F811
    tmp_path: pathlib.Path,
) -> None:
    together = small_config(inputs, "sft", num_steps=1)
    together.curriculum.stages = ConfigDict({"a": {}, "b": {"optimizer": {"restart": True}}})
    together.curriculum.order = ("a", "b")
    first = run(small_config(inputs, "sft", num_steps=1), tmp_path / "first")
    seed = curriculum.seed_of(0, 1)
    second = small_config(inputs, "sft", num_steps=1, seed=seed, init_from=str(first))
    assert fingerprint(final_params(second, run(second, tmp_path / "second"))) == fingerprint(
        final_params(together, run(together, tmp_path / "together"))
    )
