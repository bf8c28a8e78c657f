"""Fixtures that several packages' tests share."""

import os
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest

# Before JAX is imported. Compiled programs are kept between runs: most of a first run is compilation.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".pytest_cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")


@pytest.fixture(autouse=True)
def no_sudden_end(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A test under which this process would end at once (a lost lock, a grace period over) fails instead.

    Else it would take all tests that follow with it, without a word.
    """
    process, end, ended = os.getpid(), os._exit, []

    def say_so(code: int) -> None:
        if os.getpid() != process:  # a child that was forked
            end(code)
        ended.append("".join(traceback.format_stack()))
        raise SystemExit(code)  # ends the thread

    monkeypatch.setattr(os, "_exit", say_so)
    yield
    assert not ended, f"os._exit was called:\n{ended[0]}"


@pytest.fixture(scope="session")
def tiny_qwen3vl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny random Qwen3-VL Instruct model with its tokenizer. Not to be written to."""
    from tests.helpers.make_tiny_model import make_tiny

    folder = tmp_path_factory.mktemp("qwen3vl") / "instruct"
    make_tiny(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_qwen3vl_thinking(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as a Thinking model, whose template opens `<think>`, and with a tied head."""
    from tests.helpers.make_tiny_model import make_tiny

    folder = tmp_path_factory.mktemp("qwen3vl") / "thinking"
    make_tiny(folder, thinking=True, tied=True)
    return folder


@pytest.fixture(scope="session")
def tiny_qwen2_5_vl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny random Qwen2.5-VL model with its tokenizer. Not to be written to."""
    from tests.helpers.make_tiny_model import make_tiny

    folder = tmp_path_factory.mktemp("qwen2_5_vl") / "instruct"
    make_tiny(folder, family="qwen2_5_vl")
    return folder


@pytest.fixture
def bucket(tmp_path: Path) -> str:
    """The name of a bucket, `gs://...`; its files are in tmp_path/bucket."""
    from tests.helpers import fake_bucket

    fake_bucket.install(tmp_path)
    return "gs://bucket"
