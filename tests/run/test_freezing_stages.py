"""Stages that freeze different parts of the model: what is frozen rests, and runs go on exactly."""

import pathlib

import numpy as np
import pytest
from etils import epath
from flax import nnx
from ml_collections import ConfigDict

from configs import base
from dig_jax import settings, train
from dig_jax.machines import parallel
from dig_jax.machines.stopping import Stopped
from dig_jax.models.nn import freeze
from dig_jax.run import curriculum, loading
from dig_jax.run.fingerprint import fingerprint
from dig_jax.update import learner
from tests.commands.test_train import (  # noqa: F401  (inputs is a fixture)
    final_params,
    inputs,
    lines,
    run,
    small_config,
    without_times,
)

pytestmark = pytest.mark.usefixtures("quick_compiling")

TOWER = {"freeze_vision": True}
ALL_BUT_PROJECTOR = {"freeze_vision": True, "freeze_text": True}


def config_of(**stages: dict) -> ConfigDict:
    config = base.get_config()
    config.data.train = ("pairs",)
    config.curriculum.order, config.curriculum.stages = tuple(stages), ConfigDict(stages)
    return config


def test_a_stage_freezes_parts_of_its_own_and_one_that_freezes_all_is_named():
    config = config_of(align={"model": ALL_BUT_PROJECTOR}, tune={"model": TOWER})
    settings.check(config)
    align, tune = curriculum.stages(config)
    assert align.freezing.now == {"vision", "text"} and tune.freezing.now == {"vision"}
    assert align.freezing.always == tune.freezing.always == curriculum.untrained(config) == {"vision"}
    assert "; frozen: text, vision" in curriculum.describe(align, 2, curriculum.Progress(""))
    config.curriculum.stages.tune.model.freeze_projector = True
    config.model.freeze_text = True
    with pytest.raises(ValueError, match="stage tune: config.model.freeze_vision, .* are all True"):
        settings.check(config)


def test_stages_that_freeze_alike_are_a_run_that_freezes_it():
    config = config_of(a={"model": TOWER}, b={"model": TOWER})
    assert not any(stage.freezing.varies for stage in curriculum.stages(config))


def three_stages(inputs: pathlib.Path) -> ConfigDict:  # noqa: F811
    """The projector alone, supervised; all but the tower's blocks, by GRPO; the projector alone again."""
    config = small_config(inputs, "sft", num_steps=1, **{"checkpoint.keep": 4})
    config.curriculum.stages = ConfigDict(
        {
            "align": {"model": ALL_BUT_PROJECTOR},
            "tune": {"algorithm": "grpo", "model": TOWER},
            "again": {"model": ALL_BUT_PROJECTOR},
        }
    )
    config.curriculum.order = ("align", "tune", "again")
    return config


def params_at(config: ConfigDict, workdir: epath.Path, step: int) -> dict[tuple, np.ndarray]:
    mesh = parallel.make_mesh(config.mesh)
    start = epath.Path(config.model_path) if step == 0 else workdir
    params = loading.load_params(config, loading.open_model(start), mesh, step or None)[1]
    return {path: np.asarray(leaf.get_value()) for path, leaf in nnx.to_flat_state(params)}


@pytest.mark.slow
def test_frozen_parts_rest_for_a_stage_and_a_run_stopped_between_stages_continues_exactly(
    inputs: pathlib.Path,  # noqa: F811
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = three_stages(inputs)
    traced: list[str] = []
    for name in ("update_sft", "update_grpo"):
        plain = getattr(learner.Learner, name)

        def noting(self, *given, name=name, plain=plain):
            traced.append(name)
            return plain(self, *given)

        monkeypatch.setattr(learner.Learner, name, noting)
    straight = run(config, tmp_path / "straight")
    # One program for each set of frozen parts: the last stage has that of the first.
    assert traced == ["update_sft", "update_grpo"]

    trained = [{"projector"}, {"projector", "text"}, {"projector"}]
    for step, parts in enumerate(trained):
        before, after = (params_at(config, straight, at) for at in (step, step + 1))
        moved = {path: bool((before[path] != after[path]).any()) for path in before}
        own = {path for path in moved if freeze.part_of(path) in parts}
        assert not any(moved[path] for path in moved.keys() - own), step
        # An untrained model earns nothing: GRPO moves what weight decay moves, which is not zeros.
        assert all(moved[path] for path in own if before[path].any()), step

    take = train.Run.take

    def stops_after(self, step):
        take(self, step)
        self.stop.request("a test")

    with monkeypatch.context() as patched:
        patched.setattr(train.Run, "take", stops_after)
        for _ in range(2):  # after the first stage, and after the second
            with pytest.raises(Stopped):
                run(config, tmp_path / "stopped")
    stopped = run(config, tmp_path / "stopped")
    expected, actual = (
        [without_times(line) for line in lines(workdir, "metrics.jsonl")] for workdir in (straight, stopped)
    )
    assert actual == expected and len(actual) == 3
    assert fingerprint(final_params(config, stopped)) == fingerprint(final_params(config, straight))

    config.curriculum.stages.again.model.freeze_text = False
    with pytest.raises(ValueError, match="stages.again.model.freeze_text: True -> False"):
        run(config, tmp_path / "stopped")


@pytest.mark.slow
def test_adapters_of_a_part_rest_while_a_stage_freezes_it(
    inputs: pathlib.Path,  # noqa: F811
    tmp_path: pathlib.Path,
) -> None:
    lora = {"model.lora.rank": 2, "model.lora.targets": "text/.*_proj|vision/blocks/.*"}
    config = small_config(inputs, "sft", num_steps=1, **lora)
    config.curriculum.stages = ConfigDict({"text": {"model": TOWER}, "both": {}})
    config.curriculum.order = ("text", "both")
    workdir = run(config, tmp_path / "run")
    mesh = parallel.make_mesh(config.mesh)

    def adapters(step: int) -> dict[tuple, np.ndarray]:
        params = loading.load_policy(config, loading.open_model(workdir), mesh, step)[1]
        found = nnx.to_flat_state(freeze.split_adapters(params)[0])
        return {path: np.asarray(leaf.get_value()) for path, leaf in found}

    one, two = adapters(1), adapters(2)
    assert {freeze.part_of(path) for path in one} == {"text", "vision"}
    second = {path for path in one if path[-1] == "b"}  # which begins at zero
    assert second and all(one[path].any() == (freeze.part_of(path) == "text") for path in second)
    assert all(two[path].any() for path in second)
    config.curriculum.stages.text.model.freeze_text = True
    config.model.lora.targets = "text/.*_proj|vision/blocks/.*"
    with pytest.raises(ValueError, match="stage text: all layers of config.model.lora.targets are in parts"):
        run(config, tmp_path / "other")
