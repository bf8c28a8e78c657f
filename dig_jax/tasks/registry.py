"""Tasks by name: those of this package, and those of files that users name."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Sequence

from dig_jax.machines import pyfile
from dig_jax.machines.folder import to_path
from dig_jax.tasks.task import Task

# Where the tasks of this package are: a line for each.
MODULES = {
    "differences": "dig_jax.tasks.differences.task",
    "referring": "dig_jax.tasks.referring.task",
    "choice": "dig_jax.tasks.choice.task",
    "yes_no": "dig_jax.tasks.yes_no.task",
    "conversation": "dig_jax.tasks.conversation.task",
    "describe": "dig_jax.tasks.describe.task",
}

TASKS: dict[str, type[Task]] = {}
_LOADED: dict[str, tuple[str, list[str]]] = {}  # file of a user -> hash of its text, the tasks it has


def register(task: type[Task]) -> type[Task]:
    """Class decorator that adds a task.

    Raises:
      ValueError: its name is taken, or it lacks one.
    """
    name = getattr(task, "name", "")
    if not name or name in TASKS or (name in MODULES and task.__module__ != MODULES[name]):
        raise ValueError(f"a task needs a name that no other has, and {name!r} is none or taken")
    declared = {*task.terms, "reward"}
    if unknown := {task.main, *(metric.name for metric in task.metrics)} - declared:
        raise ValueError(f"task {name}: {', '.join(sorted(unknown))} is a metric, but no term")
    TASKS[name] = task
    return task


def task_class(name: str, file: str = "") -> type[Task]:
    """The task of that name.

    Args:
      name: of the task.
      file: a user's Python file that registers tasks; "" for none.

    Raises:
      ValueError: there is no such task, or the file is no good; lists those there are.
    """
    if file:
        load_file(file)
    if name not in TASKS and name in MODULES:
        importlib.import_module(MODULES[name])
    if name not in TASKS:
        known = ", ".join(dict.fromkeys([*MODULES, *TASKS]))
        raise ValueError(f"there is no task {name!r}; there are {known}, and those of a --task_file")
    return TASKS[name]


def load_file(path: str) -> Sequence[str]:
    """Runs a Python file that registers tasks, unless it was run before, and returns their names.

    Raises:
      ValueError: it is no Python file, fails, or registers no task; names the file.
    """
    text = pyfile.read(path, "--task_file")
    digest, names = _LOADED.get(path, ("", []))
    if digest == hashlib.sha256(text.encode()).hexdigest():
        return names
    for name in names:  # of the file as it was
        del TASKS[name]
    known = set(TASKS)
    pyfile.run(path, "--task_file")
    added = [name for name in TASKS if name not in known and name not in MODULES]
    if not added:
        raise ValueError(f"{to_path(path)} registers no task; see docs/add_a_task.md")
    _LOADED[path] = (hashlib.sha256(text.encode()).hexdigest(), added)
    return added
