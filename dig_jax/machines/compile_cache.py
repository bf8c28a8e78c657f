"""Compiled programs kept from one start of a run to the next: a large model takes a TPU half an hour.

Programs are found by what they are (code, shapes, layout, compiler, devices): a change of any of them
compiles anew, and none can be taken for another. The first process writes and all read, so processes do not
get in each other's way. A program whose file a kill cut short is told of in a warning, and compiled again.

Changed code leaves programs that nobody asks for again: when a run starts, the oldest go until the others
fit.
JAX's own bound (jax_compilation_cache_max_size) is not used: it locks the folder for every read, which
processes on a shared disk or a bucket would wait for, and can not count programs kept without it.
"""

import contextlib
import hashlib
import logging
import pathlib
import platform
from collections.abc import Iterator

import jax
from etils import epath
from jax.experimental.compilation_cache import compilation_cache

from dig_jax.machines.folder import is_local, to_path

WORKDIR = "{workdir}"  # stands for the workdir in `config.compile_cache`

logger = logging.getLogger("dig_jax")


@contextlib.contextmanager
def kept(setting: str, workdir: epath.Path, most_gb: float = 0.0) -> Iterator[None]:
    """Keeps what is compiled inside the block, and takes from there what was compiled before.

    A cache that JAX was given otherwise, such as by JAX_COMPILATION_CACHE_DIR, stays in force. Programs that
    compile within JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS (JAX's default: 1 s) are not worth a file.

    Args:
        setting: `config.compile_cache`.
        workdir: of the run.
        most_gb: `config.compile_cache_gb`, what is left of earlier programs, in 10^9 bytes; 0 = all of them.
    """
    if not setting or jax.config.jax_compilation_cache_dir:  # type: ignore[attr-defined]
        yield
        return
    folder = to_path(setting.replace(WORKDIR, str(workdir))) / _machine()
    before = jax.config.jax_persistent_cache_enable_xla_caches  # type: ignore[attr-defined]
    jax.config.update("jax_compilation_cache_dir", str(folder))
    if not is_local(folder):
        jax.config.update("jax_persistent_cache_enable_xla_caches", "none")  # XLA's own can not write there
    compilation_cache.reset_cache()  # a program compiled earlier has settled that there is none
    logger.info("compiled programs are kept in %s", folder)
    if most_gb and jax.process_index() == 0 and folder.exists():
        drop_oldest(folder, most_gb * 1e9)
    try:
        yield
    finally:
        jax.config.update("jax_compilation_cache_dir", None)
        jax.config.update("jax_persistent_cache_enable_xla_caches", before)
        compilation_cache.reset_cache()


def drop_oldest(folder: epath.Path, most_bytes: float) -> None:
    """Removes programs from a cache, those written first, until the others have at most so many bytes.

    Another run that looks for one meanwhile compiles it.
    """
    stats = [(path, path.stat()) for path in folder.iterdir() if path.name.endswith("-cache")]
    total = dropped = 0
    for path, stat in sorted(stats, key=lambda entry: entry[1].mtime, reverse=True):
        total += stat.length
        if total > most_bytes:
            path.unlink(missing_ok=True)  # another run may drop it, too
            dropped += 1
    if dropped:
        logger.info("%d of %d programs there, the oldest, were removed", dropped, len(stats))


def _machine() -> str:
    """A folder for each kind of machine: programs for one CPU hold instructions that another may not have."""
    if jax.default_backend() != "cpu":
        return jax.default_backend()
    try:
        told = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        told = [platform.processor()]
    features = sorted({line for line in told if line.startswith(("flags", "Features", "model name"))} or told)
    return f"cpu-{platform.machine()}-{hashlib.sha256(repr(features).encode()).hexdigest()[:8]}"
