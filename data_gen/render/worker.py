"""The render worker: scene descriptions in, PNG files out.

Run by path under the interpreter that has Blender's `bpy` (`python worker.py --threads=1`) or by Blender
itself (`blender --background --factory-startup --python worker.py -- --threads=1`), never imported by the
controller: bpy pins its own Python and numpy. One JSON request per line on stdin, one JSON reply per line on
stdout:

    {"op": "hello"}                               -> {"ok": true, "bpy": "4.5.15 LTS", "device": "cpu"}
    {"op": "mask", "scene": {...}, "path": P}     8-bit PNG of object ids, 0 = nothing
    {"op": "depth", "scene": {...}, "path": P}    16-bit PNG of millimetres along the view axis, 0 = nothing
    {"op": "picture", "scene": {...}, "path": P}  8-bit sRGB PNG
    {"op": "silhouettes", "scene": {...}, "boxes": {"3": [x0, y0, x1, y1]}, "path": P}
                                                  P.3.png: object 3 alone, cut to the box
    {"op": "picture", ..., "window": [x0, y0, x1, y1], "pixels": N}
                                                  a square of the picture alone, N pixels a side; masks and
                                                  depth too
    {"op": "measure", "shape": "asset:chair.obj"} -> {"ok": true, "half_height": 0.9, "outline": [[x, y, z]]}

Every reply has "ok"; a request that fails gives {"ok": false, "error": "..."} and the worker stays alive. It
ends when stdin closes.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import signal
import sys
import traceback
from pathlib import Path


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Render worker of data_gen; started by `python -m data_gen`."
    )
    parser.add_argument("--threads", type=int, default=1, help="render threads of this process")
    parser.add_argument(
        "--device", default="cpu", choices=["cpu", "cuda", "optix"], help="what Cycles renders on"
    )
    parser.add_argument("--assets", type=Path, help="folder of the user's meshes and pictures")
    # Blender keeps its own flags before a double dash.
    given = sys.argv[sys.argv.index("--") + 1 :] if "--" in sys.argv else sys.argv[1:]
    return parser.parse_args(given)


ARGS = parse_arguments()
# Blender's task scheduler makes a thread for every CPU it may use when it loads. With fewer render threads
# than that, the others spin: measured with one render thread on four CPUs, a pair of 128x128 pictures takes
# 1.2 s of CPU time instead of 0.4. So the process keeps to as many CPUs as it has render threads while it
# loads, and is set free afterwards.
CPUS = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
if CPUS:
    first = os.getpid()  # so that workers that load at the same time do not share a CPU
    os.sched_setaffinity(0, {CPUS[(first + number) % len(CPUS)] for number in range(ARGS.threads)})

import bpy  # noqa: E402, F401  # isort: skip - bmesh and mathutils exist only once bpy is imported

# Only the folder of data_gen as a package: this file's own folder would offer scene.py as `scene`.
sys.path[:] = [str(Path(__file__).resolve().parents[2]), *(entry for entry in sys.path[1:])]
from data_gen.render.blender import Refused  # noqa: E402
from data_gen.render.blender.studio import Studio  # noqa: E402


def main() -> None:
    die_with_parent()
    # Ctrl-C goes to the whole process group, and Cycles swallows it; the controller ends its workers itself.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Blender prints from C: keep the real stdout for replies and point descriptor 1 elsewhere.
    replies = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)

    studio = open_studio()
    use_all_cpus()
    for line in sys.stdin:
        try:
            if isinstance(studio, Refused):
                raise studio
            reply = studio.handle(json.loads(line))
        except Refused as reason:
            reply = {"ok": False, "error": str(reason)}
        except Exception:  # any failure belongs to this request: report it and serve the next one
            reply = {"ok": False, "error": traceback.format_exc()}
        replies.write(json.dumps(reply) + "\n")
    sys.stderr.flush()
    os._exit(0)  # a normal exit of bpy 4.5 can hang in its own teardown


def open_studio() -> Studio | Refused:
    """The studio, or why there can be none: the reply to every request."""
    try:
        return Studio(ARGS.threads, ARGS.device, ARGS.assets)
    except Refused as reason:
        return reason


def die_with_parent() -> None:
    """Linux: the kernel ends this process with the controller, even while Blender hangs."""
    if sys.platform == "linux":
        set_parent_death_signal = 1  # PR_SET_PDEATHSIG of sys/prctl.h
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)


def use_all_cpus() -> None:
    """Undoes the limit this process started with, for all of its threads."""
    for thread in os.listdir("/proc/self/task") if CPUS else []:
        with contextlib.suppress(ProcessLookupError):  # a thread that has just ended
            os.sched_setaffinity(int(thread), CPUS)


if __name__ == "__main__":
    main()
