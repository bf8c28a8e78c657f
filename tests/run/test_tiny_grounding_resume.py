"""The stages of TinyGroundingGPT in small: a run stopped inside and between them ends as if it never was."""

import importlib
import json
import pathlib

import numpy as np
import pytest
from ml_collections import ConfigDict

from dig_jax import train
from dig_jax.machines.stopping import Stopped
from dig_jax.run.fingerprint import fingerprint
from tests.commands.test_train import final_params, lines, run, without_times
from tests.helpers.drawn_pairs import png
from tests.helpers.small_model import make_small_model
from tests.tasks.test_aligned import folder as aligned  # noqa: F401  (a fixture)

pytestmark = pytest.mark.usefixtures("quick_compiling")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, aligned: pathlib.Path) -> ConfigDict:  # noqa: F811
    """The four stages as configured, with a small model, six captions, four phrases, and aligned items."""
    inputs = tmp_path_factory.mktemp("tiny_grounding")
    make_small_model(inputs / "model", family="clip_dino_qwen")
    (inputs / "a.png").write_bytes(png(np.arange(48, dtype=np.uint8).reshape(4, 4, 3)))
    captions, phrases = inputs / "captions.jsonl", inputs / "phrases_train.jsonl"
    said = [("human", "<image>\nSay it."), ("gpt", "A gray ramp.")]
    talk = {"image": "a.png", "conversations": [{"from": who, "value": text} for who, text in said]}
    captions.write_text(f"{json.dumps(talk)}\n" * 6)
    phrase = {"image": "a.png", "sent": "the ramp", "bbox": [0, 0, 2, 2], "height": 4, "width": 4}
    phrases.write_text(f"{json.dumps(phrase)}\n" * 4)

    config = importlib.import_module("configs.tiny_grounding").get_config()
    config.model_path, config.evals = str(inputs / "model"), ConfigDict()
    stages = config.curriculum.stages
    for stage in stages.values():
        stage.batch.prompts = stage.batch.update_prompts = 4
        stage.batch.micro_prompts = 2
    for name in ("align", "caption"):
        stages[name].data = {"train": (str(captions),), "images": str(inputs)}
    for name, kinds in (("located", ("I-C",)), ("named", ("T-I",))):
        stages.local.mixture[name].data.train = (str(aligned),)
        stages.local.mixture[name].conversation.kinds = kinds
    for name in ("phrases", "regions"):
        stages.local.mixture[name].data.train = (str(phrases),)
    for part in stages.local.mixture.values():
        part.weight = 1.0  # each has a batch
    stages.local.num_steps = 4
    stages.detail.num_epochs = 1.0
    stages.detail.data.train = (str(captions), str(aligned))
    stages.detail.data.prompt_lengths = (96, 160)
    return config.lock()  # as commands do


@pytest.mark.slow
def test_stages_of_mixed_sizes_go_on_exactly_wherever_they_are_stopped(
    small: ConfigDict, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two steps, two, four of a part each, and three: stopped inside each stage but one, and between two."""
    straight = run(small, tmp_path / "straight")
    take, taken = train.Run.take, 0

    def stops_after(self: train.Run, step: int) -> None:
        nonlocal taken
        take(self, step)
        taken += 1
        if taken in (1, 4, 6, 9):
            self.stop.request("a test")

    with monkeypatch.context() as patched:
        patched.setattr(train.Run, "take", stops_after)
        for _ in range(4):
            with pytest.raises(Stopped):
                run(small, tmp_path / "stopped")
        stopped = run(small, tmp_path / "stopped")
    expected, actual = (
        [without_times(line) for line in lines(workdir, "metrics.jsonl")] for workdir in (straight, stopped)
    )
    assert actual == expected and len(actual) == taken == 11
    assert fingerprint(final_params(small, stopped)) == fingerprint(final_params(small, straight))
    learnt = {key.split("/")[0] for line in expected[4:8] for key in line if key.endswith("/sft/answer_loss")}
    assert learnt == {"phrases", "regions", "located", "named"}
