"""A session: streamed as at once, together as alone, from few programs, and as its run was trained."""

import dataclasses
import io
import pathlib
import re
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from PIL import Image

import dig_jax
from configs import base
from dig_jax import session as sessions
from dig_jax.rollout import asking, lockstep
from dig_jax.rollout.asking import AnswerSettings, Question, SettingChanges
from dig_jax.rollout.engine import Rollout
from dig_jax.run import cli
from dig_jax.run.model_folder import ASKED_BY, RUN_FILE, copy_model_files, write_run_file
from dig_jax.session import Session
from dig_jax.tasks import registry
from tests.helpers.paths import ROOT


def picture(seed: int, height: int = 64, width: int = 96) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def session(tiny_qwen3vl: pathlib.Path) -> Session:
    return dig_jax.load_model(tiny_qwen3vl, dtype="float32")


def test_importing_the_package_imports_nothing_behind_the_front_door() -> None:
    heavy = {"jax", "flax", "numpy", "dig_jax.session"}
    code = f"import sys, dig_jax; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert dig_jax.Session is Session
    with pytest.raises(AttributeError, match="'dig_jax' has no attribute 'sesion'"):
        _ = dig_jax.sesion


# What it answers


def test_a_streamed_answer_is_that_given_at_once_in_whole_characters(session: Session) -> None:
    asked: Any = {"images": [picture(1), picture(2)], "text": "Describe.", "temperature": 1.0}
    whole = session.answer(**asked, max_new_tokens=30)
    stream = session.stream(**asked, max_new_tokens=30)
    assert stream.reply is None
    pieces = list(stream)
    assert stream.reply is not None
    assert "".join(pieces) == whole.text == stream.reply.text and len(pieces) > 3
    assert stream.reply.tokens == whole.tokens and stream.reply.logprobs == whole.logprobs
    assert list(stream) == []  # it can not be taken twice
    assert session.answer(**asked, max_new_tokens=30, seed=1).tokens != whole.tokens


def test_an_answer_ends_before_a_text_that_stops_it_streamed_or_not(session: Session) -> None:
    asked: Any = {"text": "Describe.", "temperature": 1.0, "max_new_tokens": 30}
    free = session.answer(**asked)
    word = free.text[len(free.text) // 2 :][:3]
    at = free.text.index(word)
    stopped = session.answer(**asked, stop=("no such text", word))
    stream = session.stream(**asked, stop=(word,))
    pieces = list(stream)
    assert stopped.text == "".join(pieces) == free.text[:at] and stopped.finished
    count = len(stopped.tokens)
    assert stream.reply is not None and stream.reply.tokens == stopped.tokens == free.tokens[:count]
    text_of = session.opened.tokenizer.decode
    assert word in text_of(stopped.tokens) and word not in text_of(stopped.tokens[:-1])


def test_questions_answered_together_are_answered_as_each_alone(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "ROWS", 2)  # of the four rows, the third question's answered twice
    questions = [
        Question([picture(1), picture(2, 100, 70)], "What has changed?"),
        Question(text="Describe nothing at all, at some length, before the others are read."),
        Question([picture(3)], "Hm."),
    ]
    how: Any = {"temperature": 1.0, "max_new_tokens": 12, "seed": 5}
    together = session.answer_all(questions, n=2, **how)
    assert [len(replies) for replies in together] == [2, 2, 2]
    for question, (first, second) in zip(questions, together, strict=True):
        alone = session.answer(question.images, question.text, **how)
        assert first.tokens == alone.tokens != second.tokens
        assert first.logprobs == pytest.approx(alone.logprobs, abs=1e-5)
    assert session.answer_all([]) == []


def test_questions_of_about_the_same_size_are_traced_once_streamed_or_not(
    session: Session, tiny_qwen3vl: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    traces = []
    for name in ("start", "advance"):
        original = getattr(lockstep.engine, name)

        def counted(*args: Any, name: str = name, original: Any = original, **options: Any) -> Any:
            traces.append(name)
            return original(*args, **options)

        monkeypatch.setattr(lockstep.engine, name, counted)
    lockstep._decoding_programs.cache_clear()
    fresh, answers = Session(session.opened.folder, dtype="float32"), set()
    for size, text, most in [((64, 96), "Describe.", 8), ((96, 64), "What?", 20), ((70, 100), "Hm.", 50)]:
        answers.add("".join(fresh.stream([picture(most, *size)] * 2, text, max_new_tokens=most)))
    fresh.answer([picture(1)] * 2, "Now?", max_new_tokens=9)
    dig_jax.load_model(tiny_qwen3vl, dtype="float32").answer([picture(1)] * 2, "Now?", max_new_tokens=9)
    lockstep._decoding_programs.cache_clear()
    assert len(answers) == 3
    assert sorted(traces) == ["advance", "start"]


def test_an_image_may_be_a_path_bytes_an_array_or_an_image_of_pil(
    session: Session, tmp_path: pathlib.Path
) -> None:
    pixels = picture(1)
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "PNG")
    (tmp_path / "a.png").write_bytes(data.getvalue())
    kinds = [pixels, data.getvalue(), Image.fromarray(pixels), tmp_path / "a.png", str(tmp_path / "a.png")]
    shown = [session.request([kind], "What?").shown[0] for kind in kinds]
    for one in shown:
        np.testing.assert_array_equal(one.pixels, pixels)
        assert one.notes == ()


def test_boxes_and_the_form_of_an_answer_are_read_from_its_text(session: Session) -> None:
    tokenizer = session.opened.tokenizer

    def reply_to(text: str) -> asking.Reply:
        ids = [*tokenizer.encode(text), tokenizer.eos_ids[0]]
        tokens = np.array(ids, np.int32)[None, None]
        ones = np.ones(tokens.shape, np.float32)
        drawn = Rollout(tokens, ones, ones, -ones, np.ones((1, 1), bool), np.int32(len(ids)), np.float32(0))
        return session.desk.reply(drawn, (0, 0), session.request(text="?"))

    reply = reply_to("[[0,0,500,250]]")
    np.testing.assert_allclose(reply.boxes, [[0, 0, 0.5, 0.25]])
    assert reply.form == "valid" and reply.finished and len(reply.logprobs) == len(reply.tokens)
    assert reply_to("It is the cube.").form == "no_box"


# What holds where nothing is said


@pytest.fixture(scope="module")
def workdir(tiny_qwen3vl: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """What a run of other settings leaves, but for the checkpoint."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "checkpoints").mkdir()
    copy_model_files(sessions.epath.Path(tiny_qwen3vl), sessions.epath.Path(folder / "model"))
    config = base.get_config()
    config.data.question, config.data.max_pixels = "Where?", 64 * 64
    config.rollout.max_new_tokens, config.rollout.temperature, config.rollout.top_p = 36, 0.5, 0.9
    config.reward.max_boxes = 3
    (folder / "config.json").write_text(config.to_json())
    return folder


def test_a_runs_model_is_asked_as_it_was_trained(workdir: pathlib.Path, session: Session) -> None:
    of_run = Session(sessions.epath.Path(workdir))
    assert of_run.of_run and not session.of_run
    assert of_run.defaults == AnswerSettings(temperature=0.5, top_p=0.9)
    assert of_run.desk.question(((64, 64),) * 2) == "Where?" and of_run.desk.max_boxes == 3
    request = of_run.request([picture(1), picture(2, 640, 480)])
    assert (request.most, request.sampling.temperature, request.sampling.top_p) == (36, 0.5, 0.9)
    assert [note for image in request.shown for note in image.notes] == [
        "image 1 of 2: 96x64 pixels, shown as 64x32 (at most 4096 pixels)",
        "image 2 of 2: 480x640 pixels, shown as 32x64 (at most 4096 pixels)",
    ]
    asked = of_run.request(text="What?", temperature=0, max_new_tokens=50)
    assert (asked.sampling.temperature, asked.most) == (0, 50)
    context = of_run.opened.architecture.text.max_position_embeddings
    one, two = (len(of_run.request(text="word " * count).ids) for count in (1, 2))
    longest = of_run.request(text="word " * (1 + (context - 1 - one) // (two - one)))
    assert len(longest.ids) + longest.most == context and longest.most < 36  # what the context leaves
    assert session.defaults == AnswerSettings()
    assert "Find every difference" in session.desk.question(((64, 64),) * 2)


def test_an_exported_model_is_asked_as_its_workdir_is(workdir: pathlib.Path, tmp_path: pathlib.Path) -> None:
    of_run, folder = Session(sessions.epath.Path(workdir)), sessions.epath.Path(tmp_path)
    copy_model_files(of_run.opened.files, folder)
    published = Session(folder)
    assert not published.of_run and published.desk.longest == asking.DEFAULT_NEW_TOKENS
    write_run_file(of_run.config, folder)
    exported, images = Session(folder), [picture(1), picture(2, 640, 480)]
    assert exported.of_run and exported.defaults == of_run.defaults
    assert exported.desk.max_boxes == 3 and exported.config.model.dtype == of_run.config.model.dtype
    ours, theirs = exported.request(images), of_run.request(images)
    assert ours.ids.tolist() == theirs.ids.tolist() and (ours.most, ours.sampling) == (36, theirs.sampling)
    assert [image.notes for image in ours.shown] == [image.notes for image in theirs.shown]
    (tmp_path / RUN_FILE).write_text('{"settings": {"rollout": {"max_new_tokens": "many"}}}')
    with pytest.raises(ValueError, match=f"the settings of the run of {folder}: .*max_new_tokens"):
        Session(folder)


def test_an_export_keeps_the_settings_of_every_task_and_weights_that_need_no_file(
    tmp_path: pathlib.Path,
) -> None:
    config, folder = base.get_config(), sessions.epath.Path(tmp_path)
    assert {name for name in registry.MODULES if name in config} <= set(ASKED_BY)
    config.rewards.weights = ("f1=1",)
    write_run_file(config, folder)
    assert cli.config_of(folder).rewards.weights == ("f1=1",)
    config.rewards.file = "mine.py"
    write_run_file(config, folder)
    assert cli.config_of(folder).rewards.weights == () and cli.config_of(folder).rewards.file == ""


def test_every_setting_of_an_answer_can_be_changed_by_its_name() -> None:
    fields = {field.name for field in dataclasses.fields(AnswerSettings)}
    assert set(SettingChanges.__annotations__) == fields


@pytest.mark.parametrize(
    ("images", "changes", "message"),
    [
        ([], {}, "no text: the model's own question is about two images, not 0"),
        (["a.png", "b.png"], {}, "image 1 of 2: a.png: no such image file"),
        (
            [picture(1), picture(1, 1, 201)],
            {},
            "image 2 of 2: cannot use an image of 201x1 pixels",
        ),
        (
            [picture(1), np.zeros((4, 4))],
            {},
            r"image 2 of 2: an array \[4, 4\] of float64; expected",
        ),
        ([picture(1)] * 2, {"temperature": -1.0}, "^temperature is -1.0"),
        ([picture(1)] * 2, {"max_new_tokens": 9999}, "^max_new_tokens=9999: expected 1 to"),
        ([picture(1)] * 2, {"stop": "end"}, "stop='end': expected a tuple"),
    ],
)
def test_what_can_not_be_answered_is_refused_before_the_weights_are_read(
    images: list, changes: Any, message: str, workdir: pathlib.Path
) -> None:
    of_run = Session(sessions.epath.Path(workdir))  # it has no weights
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        of_run.answer(images, **changes)
    good = Question([picture(1)] * 2)
    with pytest.raises((ValueError, FileNotFoundError), match="question [12] of 2: "):
        of_run.answer_all([good, Question(images)], **changes)


def test_the_page_on_python_says_what_works(
    session: Session, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    code, _ = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "python.md").read_text(), re.DOTALL)
    for name, pixels in (("a.png", picture(1)), ("b.png", picture(2))):
        Image.fromarray(pixels).save(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(session, "defaults", AnswerSettings(max_new_tokens=12))
    monkeypatch.setattr(sessions, "load_model", {"runs/quickstart": session}.get)
    exec(compile(code, "docs/python.md", "exec"), {})
    assert "log-probability of the answer: -" in capsys.readouterr().out
