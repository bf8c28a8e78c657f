"""Compiled programs outlive the process that compiled them."""

import collections
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath
from jax.experimental.compilation_cache import compilation_cache

from dig_jax.machines import compile_cache
from tests.commands.test_train import inputs  # noqa: F401  (a fixture)
from tests.helpers.paths import ROOT

HIT, MISS = "/jax/compilation_cache/cache_hits", "/jax/compilation_cache/cache_misses"
LIFE = """
import collections, pathlib, sys
from jax import monitoring
from tests.commands.test_train import run, small_config
events = collections.Counter()
monitoring.register_event_listener(lambda event, **_: events.update([event]))
inputs, workdir, steps = sys.argv[1:]
run(small_config(pathlib.Path(inputs), "sft", num_steps=int(steps)), pathlib.Path(workdir))
print("events", events["%s"], events["%s"])
"""


@pytest.mark.slow
def test_the_second_start_of_a_run_compiles_no_update(
    inputs: pathlib.Path,  # noqa: F811
    tmp_path: pathlib.Path,
) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "1.0"}
    environment["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"  # what it compiles takes half as long, still seconds
    del environment["JAX_COMPILATION_CACHE_DIR"]

    def live(steps: int) -> tuple[int, int]:
        command = [sys.executable, "-c", LIFE % (HIT, MISS), str(inputs), str(tmp_path / "run"), str(steps)]
        done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr[-3000:]
        _, hits, misses = done.stdout.splitlines()[-1].split()
        return int(hits), int(misses)

    hits, misses = live(1)
    assert hits == 0 and misses > 0
    files = list((tmp_path / "run" / "compile_cache").rglob("*update_sft*-cache"))
    assert len(files) == 1
    hits, misses = live(2)
    assert hits > 0
    assert list((tmp_path / "run" / "compile_cache").rglob("*update_sft*-cache")) == files


@pytest.fixture
def no_cache(monkeypatch: pytest.MonkeyPatch) -> Iterator[collections.Counter]:
    """As if JAX_COMPILATION_CACHE_DIR were not set; counts hits and misses."""
    before = jax.config.jax_compilation_cache_dir
    shortest = jax.config.jax_persistent_cache_min_compile_time_secs
    events: collections.Counter = collections.Counter()
    listener = lambda event, **_: events.update([event])  # noqa: E731
    jax.monitoring.register_event_listener(listener)
    jax.config.update("jax_compilation_cache_dir", None)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    compilation_cache.reset_cache()
    yield events
    jax.monitoring.unregister_event_listener(listener)
    jax.config.update("jax_compilation_cache_dir", before)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", shortest)
    compilation_cache.reset_cache()


def compiled(number: float) -> jax.Array:
    """The result of a program that this process has not traced before."""
    return jax.jit(lambda x: jnp.sin(x) * number)(np.float32(2.0))


def test_programs_are_found_again_in_a_bucket_unless_damaged_and_outside_the_block_there_is_no_cache(
    bucket: str, tmp_path: pathlib.Path, no_cache: collections.Counter
) -> None:
    for turn in range(2):
        with compile_cache.kept("{workdir}/compile_cache", epath.Path(f"{bucket}/a {{run}}")):
            assert compiled(3.0) == jnp.float32(np.sin(np.float32(2)) * 3)
        assert (no_cache[MISS] > 0, no_cache[HIT] > 0) == (True, turn == 1)
    files = list((tmp_path / "bucket" / "a {run}" / "compile_cache").rglob("*-cache"))
    assert files
    for file in files:  # as a kill leaves it on a disk
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    again = compile_cache.kept("{workdir}/compile_cache", epath.Path(f"{bucket}/a {{run}}"))
    with pytest.warns(UserWarning, match="Error reading persistent compilation cache entry"), again:
        assert compiled(3.0) == jnp.float32(np.sin(np.float32(2)) * 3)
    before = no_cache.copy()
    compiled(4.0)
    assert no_cache[HIT] == before[HIT] and no_cache[MISS] == before[MISS]
    assert jax.config.jax_compilation_cache_dir is None


def test_the_oldest_programs_go_when_a_run_starts_until_the_others_fit(
    tmp_path: pathlib.Path, no_cache: collections.Counter
) -> None:
    with compile_cache.kept("{workdir}", epath.Path(tmp_path)):
        folder = pathlib.Path(jax.config.jax_compilation_cache_dir)
    folder.mkdir(parents=True, exist_ok=True)
    for age in range(5):
        (folder / f"program{age}-cache").write_bytes(bytes(400))
        os.utime(folder / f"program{age}-cache", (1e9 - age, 1e9 - age))
    (folder / "notes").write_bytes(bytes(4000))
    for most_gb, left in ((0.0, "01234"), (1.2e-6, "012"), (1.1e-6, "01"), (1e-9, "")):
        with compile_cache.kept("{workdir}", epath.Path(tmp_path), most_gb):
            names = sorted(path.name for path in folder.iterdir())
            assert names == ["notes", *(f"program{age}-cache" for age in left)]


def test_nothing_is_kept_where_the_setting_is_empty_and_a_cache_given_to_jax_stays(
    tmp_path: pathlib.Path, no_cache: collections.Counter
) -> None:
    with compile_cache.kept("", epath.Path(tmp_path / "run")):
        assert jax.config.jax_compilation_cache_dir is None
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "own"))
    with compile_cache.kept("{workdir}/compile_cache", epath.Path(tmp_path / "run")):
        assert jax.config.jax_compilation_cache_dir == str(tmp_path / "own")
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "own")
    assert not (tmp_path / "run").exists()
