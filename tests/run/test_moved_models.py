"""A run goes on where the models it began from have moved, and not where they are others.

Nothing is trained: this is what `train` notes when it begins, and compares when it goes on.
"""

import shutil

import pytest
from etils import epath

from configs import base
from dig_jax import settings
from dig_jax.run import model_folder


def make_model(folder: epath.Path) -> epath.Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def copy(folder: epath.Path, name: str) -> epath.Path:
    return epath.Path(shutil.copytree(folder, folder.parent / name))


class Run:
    """A run of which there are but settings and notes."""

    def __init__(self, workdir: epath.Path, model: epath.Path, init: epath.Path | None = None):
        self.workdir = workdir
        self.workdir.mkdir()
        self.write(model, init, resumed=False)

    def write(self, model: epath.Path, init: epath.Path | None, resumed: bool) -> list[str]:
        config = base.get_config()
        config.model_path, config.init_from = str(model), str(init or "")
        found = settings.model_identities(config, model, init or model)
        changes = settings.check_resume(config, self.workdir / "config.json", found)
        settings.note(self.workdir, found, resumed)
        (self.workdir / "config.json").write_text(config.to_json())
        return changes

    def goes_on(self, model: epath.Path, init: epath.Path | None = None) -> list[str]:
        return self.write(model, init, resumed=True)


def test_a_moved_model_is_the_same_and_another_under_a_new_name_is_not(tmp_path):
    model = make_model(epath.Path(tmp_path / "model"))
    run, moved = Run(epath.Path(tmp_path / "run"), model), copy(model, "moved")
    assert run.goes_on(moved) == [f"model_path: {str(model)!r} -> {str(moved)!r}"]
    (model / "model.safetensors").write_bytes(b"weightS")
    with pytest.raises(ValueError, match="model_path: .*moved' -> .*model'"):
        run.goes_on(model)


def test_under_its_old_name_a_model_may_have_other_weights_but_no_other_tokenizer(tmp_path):
    """Where the weights are read again, as a KL reference, their bits are compared."""
    model = make_model(epath.Path(tmp_path / "model"))
    run = Run(epath.Path(tmp_path / "run"), model)
    (model / "model.safetensors").write_bytes(b"weightS")
    assert run.goes_on(model) == []
    (model / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match="model_path: .* does not hold what it held when the run began"):
        run.goes_on(model)


def test_a_run_that_another_began_from_may_move_and_may_train_on(tmp_path):
    model, first = make_model(epath.Path(tmp_path / "model")), epath.Path(tmp_path / "first")
    make_model(first / "model")

    def checkpoint(step: int, checksum: str) -> None:
        (first / "checkpoints" / str(step) / "meta").mkdir(parents=True)
        (first / "checkpoints" / str(step) / "meta" / "metadata").write_text(checksum)

    checkpoint(9, "1f")
    assert model_folder.is_workdir(first)
    run, copied = Run(epath.Path(tmp_path / "run"), model, first), copy(first, "copied")
    checkpoint(10, "2f")
    assert run.goes_on(model, first) == []
    assert run.goes_on(model, copied) == [f"init_from: {str(first)!r} -> {str(copied)!r}"]  # as it began
    with pytest.raises(ValueError, match="init_from: .*copied' -> .*other'"):
        run.goes_on(model, copy(first, "other"))


def test_a_run_from_before_models_were_noted_knows_them_by_name(tmp_path):
    model = make_model(epath.Path(tmp_path / "model"))
    run, moved = Run(epath.Path(tmp_path / "run"), model), copy(model, "moved")
    (run.workdir / settings.DATA_FILE).write_text("{}")
    with pytest.raises(ValueError, match="model_path: .*model' -> .*moved'"):
        run.goes_on(moved)
    assert run.goes_on(model) == [] and run.goes_on(moved)  # it is noted now
