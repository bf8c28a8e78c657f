"""Which version of this code is running, for the metadata of what it makes."""

from __future__ import annotations

import importlib.metadata
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def git_revision() -> str:
    """The commit of the checkout, with "+changes" when files differ from it; else the installed version."""
    try:
        commit = _git("rev-parse", "HEAD")
        changed = _git("status", "--porcelain", "--untracked-files=no")
        return commit + ("+changes" if changed else "")
    except (OSError, subprocess.SubprocessError):
        try:
            return f"dig_jax {importlib.metadata.version('dig_jax')}"
        except importlib.metadata.PackageNotFoundError:
            return "unknown"


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()
