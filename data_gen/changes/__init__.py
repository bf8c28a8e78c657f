"""The kinds of difference: a small class for each, in one registry. docs/changes.md shows how to add one."""

from data_gen.changes import attributes, pose, presence
from data_gen.changes.registry import CHANGES, UNCHANGED, Change, Kind, load_file, register, unchanged

__all__ = [
    "CHANGES",
    "UNCHANGED",
    "Change",
    "Kind",
    "attributes",
    "load_file",
    "pose",
    "presence",
    "register",
    "unchanged",
]
