"""Finds the Blender that renders: a Python that can import `bpy`, or an installed Blender."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
DEFAULT_PYTHON = REPOSITORY / ".venv-bpy" / "bin" / "python"
WORKER = Path(__file__).with_name("worker.py")

SUPPORTED = ((4, 2), (5, 3))  # from the first on, before the second; `import bpy` was run on 4.2 to 5.2
PROBE_TIMEOUT = 120.0  # seconds, for a cold disk

# Debian's and Ubuntu's package of every library that Blender loads and a minimal system lacks.
PACKAGE_OF = {
    "libX11": "libx11-6",
    "libXrender": "libxrender1",
    "libXfixes": "libxfixes3",
    "libXi": "libxi6",
    "libxkbcommon": "libxkbcommon0",
    "libSM": "libsm6",
    "libICE": "libice6",
    "libXext": "libxext6",
    "libGL": "libgl1",
    "libEGL": "libegl1",
    "libgomp": "libgomp1",
    "libXxf86vm": "libxxf86vm1",
}
SYSTEM_LIBRARIES = "libx11-6 libxrender1 libxfixes3 libxi6 libxkbcommon0 libsm6 libgl1"

PROBE = "import bpy, os, sys; print(bpy.app.version_string); sys.stdout.flush(); os._exit(0)"


class NoBlender(RuntimeError):
    """Nothing here can render; the message says what to install."""


@dataclasses.dataclass(frozen=True)
class Blender:
    """A Blender that works. `executable` imports `bpy`, or is Blender itself when `installed`."""

    executable: str
    version: str
    installed: bool = False

    def command(self, threads: int, *flags: str) -> list[str]:
        """The command that starts a render worker with so many threads and further flags of worker.py."""
        worker = [str(WORKER), "--", f"--threads={threads}", *flags]
        if not self.installed:
            return [self.executable, worker[0], *worker[2:]]
        background = ["--background", "--factory-startup", "--threads", str(threads), "--python"]
        return [self.executable, *background, *worker]


def find_blender(python: str | None = None, blender: str | None = None) -> Blender:
    """The Blender to render with; raises NoBlender.

    Args:
      python: the interpreter to use; by default .venv-bpy of this repository, else the running one.
      blender: the Blender executable to use, instead of a Python module.
    """
    if blender:
        version, problem = _probe([shutil.which(blender) or blender, "--version"])
        found = re.match(r"Blender (\d+\.\d+\S*(?: LTS)?)", version or "")
        if not found:
            problem = problem or f"it is no Blender: --version printed {version!r}"
            raise NoBlender(f"--blender={blender}: {problem}{_advice_on_libraries(problem)}")
        return _supported(Blender(shutil.which(blender) or blender, found[1], installed=True))
    candidates = [python] if python else [str(DEFAULT_PYTHON), sys.executable]
    problems = []
    for candidate in candidates:
        version, problem = _probe([candidate, "-c", PROBE])
        if version:
            return _supported(Blender(candidate, version))
        problems.append(f"  {candidate}: {problem}")
    text = "no Python with Blender's `bpy` found:\n" + "\n".join(problems)
    raise NoBlender(
        f"{text}{_advice_on_libraries(text)}\nMake one with `make setup-render` (or `python3.11 -m venv "
        ".venv-bpy`, then `.venv-bpy/bin/pip install -r data_gen/requirements-bpy.txt`), name one with "
        "--blender_python=PATH, or an installed Blender with --blender=PATH."
    )


def _supported(found: Blender) -> Blender:
    """The same Blender. Raises NoBlender when its version is too old or not known yet."""
    numbers = tuple(int(part) for part in found.version.split()[0].split(".")[:2])
    first, end = SUPPORTED
    if not first <= numbers < end:
        raise NoBlender(
            f"{found.executable} is Blender {found.version}; data_gen needs {first[0]}.{first[1]} or later, "
            f"before {end[0]}.{end[1]}"
        )
    return found


def _advice_on_libraries(problem: str) -> str:
    """What to install when a shared library is missing, else nothing."""
    missing = re.findall(r"(lib\w+)[\w.+-]*\.so[\w.]*: cannot open shared object", problem)
    if not missing:
        return ""
    named = " ".join(sorted({PACKAGE_OF[name] for name in missing if name in PACKAGE_OF}))
    which = f" ({named})" if named else ""
    return (
        f"\nA system library is missing{which}; Blender needs, on Debian or Ubuntu: "
        f"apt-get install {SYSTEM_LIBRARIES}"
    )


def _probe(command: list[str]) -> tuple[str | None, str]:
    """(what the command says, "") or (None, what went wrong)."""
    try:
        with tempfile.TemporaryDirectory() as scratch:  # Blender leaves a folder there
            result = subprocess.run(
                command,
                capture_output=True,
                text=True,
                timeout=PROBE_TIMEOUT,
                check=False,
                env={**os.environ, "TMPDIR": scratch},
            )
    except FileNotFoundError:
        return None, "no such file"
    except PermissionError:
        return None, "not a program that may be run"
    except (OSError, subprocess.TimeoutExpired) as error:
        return None, str(error)
    lines = (result.stdout if result.returncode == 0 else result.stderr).strip().splitlines()
    if result.returncode:
        return None, lines[-1] if lines else f"exit status {result.returncode}"
    # `import bpy` may print warnings first; Blender's --version prints its build after the first line.
    version = next(
        (line for line in lines if re.match(r"(Blender )?\d+\.\d+", line)), lines[-1] if lines else ""
    )
    return version, ""
