"""Finds the Python that can import `bpy`, which is usually not the one running the controller."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
DEFAULT_PYTHON = REPOSITORY / ".venv-bpy" / "bin" / "python"
SYSTEM_LIBRARIES = "libx11-6 libxrender1 libxfixes3 libxi6 libxkbcommon0 libsm6 libgl1"
PROBE = "import bpy, os, sys; print(bpy.app.version_string); sys.stdout.flush(); os._exit(0)"


class NoBlender(RuntimeError):
    """No interpreter can import bpy; the message says what to install."""


def find_blender_python(requested: str | None = None) -> tuple[str, str]:
    """(path of an interpreter that imports bpy, its Blender version).

    Tries `requested` alone if given, else .venv-bpy of this repository, else the running interpreter.
    Raises NoBlender.
    """
    candidates = [requested] if requested else [str(DEFAULT_PYTHON), sys.executable]
    problems = []
    for candidate in candidates:
        version, problem = _probe(candidate)
        if version:
            return candidate, version
        problems.append(f"  {candidate}: {problem}")
    text = "no Python with Blender's `bpy` found:\n" + "\n".join(problems)
    if "cannot open shared object file" in text:
        text += f"\nA system library is missing. On Debian or Ubuntu: apt-get install {SYSTEM_LIBRARIES}"
    raise NoBlender(
        f"{text}\nMake one with `make setup-render` (or `python3.11 -m venv .venv-bpy`, then "
        "`.venv-bpy/bin/pip install -r data_gen/requirements-bpy.txt`), or name one with "
        "--blender_python=PATH."
    )


def _probe(python: str) -> tuple[str | None, str]:
    """(Blender version, "") or (None, what went wrong)."""
    try:
        with tempfile.TemporaryDirectory() as scratch:  # Blender leaves a folder there
            result = subprocess.run(
                [python, "-c", PROBE],
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
                env={**os.environ, "TMPDIR": scratch},
            )
    except FileNotFoundError:
        return None, "no such file"
    except (OSError, subprocess.TimeoutExpired) as error:
        return None, str(error)
    lines = (result.stdout if result.returncode == 0 else result.stderr).strip().splitlines()
    last = lines[-1] if lines else f"exit status {result.returncode}"
    return (last, "") if result.returncode == 0 else (None, last)
