"""Python files of a user that are run as a part of the program: his tasks, his rewards."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType


def read(path: str, flag: str) -> str:
    """The text of a Python file.

    Raises:
        ValueError: there is no such file, or it is no text; names the flag that gave it.
    """
    file = Path(os.path.expanduser(path))
    if not file.is_file():
        raise ValueError(f"{flag}={path}: no such Python file")
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{flag}={path}: {error}") from error


def run(path: str, flag: str) -> ModuleType:
    """Runs a Python file as a module of its own.

    Raises:
        ValueError: it can not be run, or raises itself; names the flag that gave it, and the error.
    """
    read(path, flag)
    file = Path(os.path.expanduser(path))
    spec = importlib.util.spec_from_file_location(f"dig_jax_user_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise ValueError(f"{flag}={path}: no Python file (its name ends in .py)")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look for their module there
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ValueError(f"{flag}={path}: {type(error).__name__}: {error}") from error
    return module
