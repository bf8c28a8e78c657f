"""Memory and time of loading a checkpoint in several files: how much the host holds beyond its own shards.

    python -m bench.load_checkpoint [--size=2B] [--devices 1 8] [--dir=DIR] [--cold]

Writes a folder with random bfloat16 weights of a real size (2B: 2.1 billion parameters, 4.3 GB in 5 files),
loads it in a fresh process per row, on one device and on simulated ones (8: mesh fsdp=4, tensor=2), and
removes it. On the CPU backend the memory of devices is the host's: that is the column "own shards".

The memory of the loading process is read from /proc every few milliseconds by this one. RssAnon is memory of
its own. RssFile is pages of files mapped into it: programs' code, and the checkpoint where a reader maps it;
the system can take those back, but they count in what a container is allowed. VmHWM is the kernel's own
high-water mark of both together, as a check on the sampling. All are less what the process had before it
began to load. "beyond own" is RssAnon less own shards; "ratio" is that over the largest tensor of the
checkpoint.

For comparison: "read" reads the bytes of the files and does nothing with them, which is the speed of the
disk, or of the page cache (--cold drops the files from it first); "load_file" reads whole files with the
safetensors library and then stacks the layers, on one device. "save" writes the loaded model to another
folder; what it loaded was there before.
"""

import argparse
import dataclasses
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.random_model import config_of, write_random_model
from data_gen.files.userfiles import home_expanded
from dig_jax.models.qwen3_vl.published import SIZES

LIMIT = 1.3  # of the largest tensor, beyond the host's own shards
_FIELDS = ("RssAnon", "RssFile", "RssShmem", "VmHWM")


@dataclasses.dataclass(frozen=True)
class Measured:
    """One load. Bytes are above what the process had before.

    Attributes:
      seconds: of loading.
      own_bytes: of what was loaded, as it lies on the devices.
      peak_anon, peak_file: of private memory, and of mapped files.
      peak_rss: of both, by the kernel's high-water mark.
      fingerprint: of the loaded parameters.
    """

    seconds: float
    own_bytes: int
    peak_anon: int
    peak_file: int
    peak_rss: int
    fingerprint: str

    @property
    def beyond_own(self) -> int:
        """Private memory beyond the shards."""
        return self.peak_anon - self.own_bytes


def can_measure() -> bool:
    """Whether this system tells the memory of a process, and lets its high-water mark be set back."""
    return os.access("/proc/self/clear_refs", os.W_OK)


def measure(folder: Path, how: str, devices: int = 1) -> Measured:
    """Loads `folder` in a new process; `how` and `devices` are those of `bench/load_side.py`."""
    command = [sys.executable, "-m", "bench.load_side", str(folder), how, str(devices)]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, stdin=pipe, stdout=pipe, text=True, cwd=Path(__file__).parents[1]
    ) as child:
        _answer(child)
        # Sets the kernel's high-water mark back to what is resident now (man 5 proc).
        Path(f"/proc/{child.pid}/clear_refs").write_text("5")
        before = _memory(child.pid)
        peaks = dict(before)
        done = threading.Event()
        watcher = threading.Thread(target=_watch, args=(child.pid, peaks, done))
        watcher.start()
        _go_on(child)
        loaded = _answer(child)
        done.set()
        watcher.join()
        _go_on(child)
        fingerprint = _answer(child)["fingerprint"]
    gained = {name: peaks[name] - before[name] for name in _FIELDS}
    return Measured(
        loaded["seconds"],
        loaded["own_bytes"],
        gained["RssAnon"],
        gained["RssFile"],
        gained["VmHWM"],
        fingerprint,
    )


def _go_on(child: subprocess.Popen[str]) -> None:
    assert child.stdin is not None
    child.stdin.write("\n")
    child.stdin.flush()


def _answer(child: subprocess.Popen[str]) -> dict[str, Any]:
    assert child.stdout is not None
    line = child.stdout.readline()
    if not line:
        raise RuntimeError(f"the loading process failed: {child.args!r}")
    return json.loads(line)


def _watch(pid: int, peaks: dict[str, int], done: threading.Event) -> None:
    while not done.wait(0.002):
        for name, value in _memory(pid).items():
            peaks[name] = max(peaks[name], value)


def _memory(pid: int) -> dict[str, int]:
    """Bytes by the names of /proc/PID/status."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    pairs = (line.split(":", 1) for line in lines if ":" in line)
    return {name: int(value.split()[0]) * 1024 for name, value in pairs if name in _FIELDS}


def forget(folder: Path) -> None:
    """Asks the system to drop the files of `folder` from the page cache."""
    os.sync()
    for path in folder.iterdir():
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.load_checkpoint",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--size", choices=("215M", *SIZES), default="2B", help="of the model (default: 2B)")
    parser.add_argument("--devices", type=int, nargs="+", default=[1, 8], help="default: 1 and 8")
    parser.add_argument(
        "--dir", type=home_expanded, help="where to write the folder (default: the temporary directory)"
    )
    parser.add_argument("--cold", action="store_true", help="drop the files from the page cache first")
    args = parser.parse_args(argv)
    if not can_measure():
        sys.exit("error: this benchmark needs /proc/PID/status and clear_refs, which only Linux has")
    parent = Path(tempfile.mkdtemp(prefix="load_checkpoint.", dir=args.dir))
    try:
        _run(parent / args.size, args)
    finally:
        shutil.rmtree(parent)


def _run(folder: Path, args: argparse.Namespace) -> None:
    start = time.perf_counter()
    specs = write_random_model(folder, config_of(args.size))
    largest = max(specs, key=lambda spec: spec.nbytes)
    total = sum(spec.nbytes for spec in specs)
    count = sum(spec.nbytes // spec.dtype.itemsize for spec in specs)
    files = len(list(folder.glob("*.safetensors")))
    print(
        f"{args.size}: {count:,} parameters, {len(specs)} tensors, {total / 1e9:.2f} GB of bfloat16 in"
        f" {files} files, written in {time.perf_counter() - start:.0f} s"
    )
    print(f"largest tensor: {largest.name} {list(largest.shape)}, {largest.nbytes / 1e6:.0f} MB\n")
    columns = ("", "seconds", "GB/s", "own shards", "RssAnon", "RssFile", "VmHWM", "beyond own", "ratio")
    widths = (20, 8, 6, 12, 10, 10, 10, 12, 7)
    print("".join(f"{name:>{width}}" for name, width in zip(columns, widths, strict=True)) + "   (MB)")

    rows = [("read", 0), *(("dig_jax", count) for count in args.devices), ("load_file", 1)]
    rows += [("save", count) for count in args.devices]
    fingerprints = set()
    worst = 0.0
    for how, devices in rows:
        if args.cold:
            forget(folder)
        row = measure(folder, how, devices)
        name = how if not devices else f"{how}, {devices} device{'s' * (devices > 1)}"
        sizes = (row.own_bytes, row.peak_anon, row.peak_file, row.peak_rss, row.beyond_own)
        ratio = row.beyond_own / largest.nbytes
        values = (
            name,
            f"{row.seconds:.1f}",
            f"{total / 1e9 / row.seconds:.2f}",
            *(f"{size / 1e6:,.0f}" for size in sizes),
            f"{ratio:.2f}",
        )
        print("".join(f"{value:>{width}}" for value, width in zip(values, widths, strict=True)), flush=True)
        if row.fingerprint:
            fingerprints.add(row.fingerprint)
        if how in ("dig_jax", "save"):
            worst = max(worst, ratio)
    same = "the same bits whoever loads" if len(fingerprints) == 1 else "DIFFERENT BITS"
    print(f"\n{same}; dig_jax: at most {worst:.2f}x the largest tensor beyond the shards (limit {LIMIT})")
    if worst > LIMIT or len(fingerprints) != 1:
        sys.exit(1)


if __name__ == "__main__":
    main()
