"""Fixtures that several packages' tests share."""

import os
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest

# Before JAX is imported. Compiled programs are kept between runs: most of a first run is compilation.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".pytest_cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")

# Files whose tests take longest, quick ones and slow ones: of two processes, one that began such a file last
# would work on it long after the other has nothing left to do.
LONGEST = (
    "commands/test_kill.py",
    "machines/test_parallel.py",
    "commands/test_multihost.py",
    "commands/test_replay_runs.py",
    "commands/test_train.py",
    "machines/test_sharding.py",
    "repository/test_quickstart.py",
    "commands/test_compile.py",
    "study/test_study.py",
    "models/hf/test_peft.py",
    "models/test_parity_bfloat16.py",
    "commands/test_commands_on_hosts.py",
    "update/test_precision.py",
    "run/test_tiny_grounding_resume.py",
    "machines/test_bucket.py",
    "data_gen/alignment/test_labels.py",
    "tasks/boxes/test_fuzz.py",
    "update/test_compile_time.py",
    "rollout/test_pool.py",
    "models/nn/test_lora.py",
    "models/nn/test_freeze.py",
    "run/test_curriculum.py",  # of programs that test_train.py has compiled by then
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files of `LONGEST` come first, in that order; the others stay as they were."""
    here = Path(__file__).parent
    places = {here / name: place for place, name in enumerate(LONGEST)}
    if missing := [str(path) for path in places if not path.exists()]:
        raise pytest.UsageError(f"LONGEST in tests/conftest.py names what is not there: {', '.join(missing)}")
    items.sort(key=lambda item: places.get(item.path, len(places)))


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


@pytest.fixture(scope="module")
def quick_compiling() -> Iterator[None]:
    """The tests of a module, and processes that they start, compile with few of XLA's optimizations.

    That takes half the time, which is most of what such tests cost. It is for those that ask which rows,
    shapes, devices or parameters take part in a program, and whether a run that was stopped goes on exactly:
    it runs the same programs again. One such run, which is killed (commands/test_kill.py), is compiled as
    a real one is; and so is all that promises that two programs are equal to the last bit, compares with
    another library, or measures memory or rounding. What is compiled here is forgotten in the end: no other
    module runs it.
    """
    import jax

    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
        jax.config.update("jax_disable_most_optimizations", True)
        yield
        jax.config.update("jax_disable_most_optimizations", False)
    jax.clear_caches()


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


@pytest.fixture(scope="session")
def small_experts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small random Qwen3-VL-MoE, two layers of eight experts. Not to be written to."""
    from tests.helpers.small_model import make_small_model

    folder = tmp_path_factory.mktemp("experts") / "model"
    make_small_model(folder, family="qwen3_vl_moe", text_depth=2)
    return folder


@pytest.fixture
def bucket(tmp_path: Path) -> str:
    """The name of a bucket, `gs://...`; its files are in tmp_path/bucket."""
    from tests.helpers import fake_bucket

    fake_bucket.install(tmp_path)
    return "gs://bucket"
