"""Who may import whom: the rules that keep the packages apart, read from the source."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BLENDER = {"bpy", "bmesh", "mathutils"}
# Pure parts of dig_jax, and what none of them may know of.
PURE = ("models", "rewards", "data", "grpo.py", "parallel.py")
RUN = (
    "train",
    "main",
    "settings",
    "loading",
    "checkpoint",
    "evaluate",
    "runlog",
    "report",
    "experience",
    "lock",
)


def sources(*parts: str) -> list[Path]:
    """Python files of folders, or single files, of the checkout."""
    return [file for part in parts for file in sorted((ROOT / part).rglob("*.py")) or [ROOT / part]]


def imported(file: Path) -> Iterator[str]:
    """Modules that a file imports, wherever in it; of `from a import b`, both a and a.b."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{file}: relative import"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def importers(modules: set[str], files: list[Path]) -> set[str]:
    """Those of the files that import one of the modules, or something inside it."""
    return {
        str(file.relative_to(ROOT))
        for file in files
        for name in imported(file)
        if any(name == module or name.startswith(f"{module}.") for module in modules)
    }


@pytest.mark.parametrize(
    ("package", "foreign"),
    [("dig_jax", {"data_gen", "torch"} | BLENDER), ("data_gen", {"dig_jax", "jax", "tensorflow", "torch"})],
)
def test_the_trainer_and_the_generator_do_not_know_each_other(package, foreign):
    assert importers(foreign, sources(package)) == set()


def test_only_the_render_worker_imports_blender():
    inside = importers(BLENDER | {"data_gen.blender"}, sources("data_gen"))
    assert "data_gen/worker.py" in inside
    assert {file for file in inside if not file.startswith("data_gen/blender/")} == {"data_gen/worker.py"}


def test_the_pure_parts_of_the_trainer_know_nothing_of_a_run():
    files = sources(*(f"dig_jax/{part}" for part in PURE))
    assert len(files) > 20
    assert importers({f"dig_jax.{name}" for name in RUN}, files) == set()
