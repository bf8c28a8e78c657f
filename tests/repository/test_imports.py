"""Who may import whom: the rules that keep the house in order, read from the source.

    python -m tests.repository.test_imports

prints the rooms and the arrows between them.
"""

import ast
import collections
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT

BLENDER = {"bpy", "bmesh", "mathutils"}

# The floors, from the ground up. A room is a package, or a module at the top level, which is a command or the
# loop. It may use the floors below its own, not its own floor's other rooms and none above.
FLOORS = {
    "dig_jax": [
        ["machines", "dig"],  # the latter runs the others by their names
        ["models"],
        ["data"],
        ["tasks"],
        ["benchmarks"],
        ["rollout", "run"],
        ["update", "session", "measure"],
        ["settings"],
        ["assemble", "demo", "evaluate", "generate", "serve", "score", "export", "scratch", "aot"],
        ["report"],
        ["train"],
        ["main", "compile"],
    ],
    "data_gen": [
        ["files", "scenes"],
        ["changes"],
        ["plan"],
        ["records"],
        ["render", "verify", "imports", "exports"],
        ["alignment"],
        ["order"],
        ["__main__", "align", "align_beam", "beam", "convert", "import_pairs", "preview", "schema"],
    ],
}
MAX_LINES = 400


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


def module_of(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def module_arrows(package: str) -> dict[str, set[str]]:
    """What every module of a package imports of it."""
    files = sources(package)
    modules = {module_of(file) for file in files}
    return {module_of(file): modules.intersection(imported(file)) - {module_of(file)} for file in files}


def room_of(module: str) -> str:
    """The room that holds a module; "" for the package itself, which is the front door."""
    return (module.split(".") + [""])[1]


def room_arrows(package: str) -> dict[tuple[str, str], set[str]]:
    """Imports between rooms, as the modules that make them."""
    arrows = collections.defaultdict(set)
    for module, others in module_arrows(package).items():
        for other in others:
            here, there = room_of(module), room_of(other)
            if here != there and here and there:
                arrows[here, there].add(module)
    return dict(arrows)


@pytest.mark.parametrize("package", FLOORS)
def test_imports_run_downhill_only(package):
    floor = {room: number for number, rooms in enumerate(FLOORS[package]) for room in rooms}
    rooms = {room_of(module_of(file)) for file in sources(package)} - {""}
    assert rooms == set(floor)
    uphill = {arrow: by for arrow, by in room_arrows(package).items() if floor[arrow[0]] <= floor[arrow[1]]}
    assert not uphill


@pytest.mark.parametrize("package", FLOORS)
def test_modules_import_each_other_in_no_circle(package):
    arrows, done, path = module_arrows(package), set(), []

    def visit(module: str) -> None:
        assert module not in path, [*path[path.index(module) :], module]
        if module in done:
            return
        path.append(module)
        for other in sorted(arrows[module]):
            visit(other)
        done.add(path.pop())

    for module in sorted(arrows):
        visit(module)
    assert len(done) > 40


def test_no_file_is_longer_than_a_reader_can_hold():
    parts = ("dig_jax", "data_gen", "configs", "bench", "study", "tests")
    lengths = {str(file.relative_to(ROOT)): len(file.read_text().splitlines()) for file in sources(*parts)}
    assert not {file: length for file, length in lengths.items() if length > MAX_LINES}


@pytest.mark.parametrize(
    ("package", "foreign"),
    [("dig_jax", {"data_gen", "torch"} | BLENDER), ("data_gen", {"dig_jax", "jax", "tensorflow", "torch"})],
)
def test_the_trainer_and_the_generator_do_not_know_each_other(package, foreign):
    assert importers(foreign, sources(package)) == set()


def test_a_model_family_is_named_by_the_registry_alone():
    """Its room may use it, as may variants named after it (qwen3_vl_moe); all else asks `models.families`."""
    for folder in sorted((ROOT / "dig_jax" / "models").iterdir()):
        if not (folder / "family.py").exists():
            continue
        files = [*folder.rglob("*.py"), *folder.parent.glob(f"{folder.name}_*/*.py")]
        inside = {str(file.relative_to(ROOT)) for file in files}
        outside = (
            importers({f"dig_jax.models.{folder.name}"}, sources("dig_jax", "configs", "study")) - inside
        )
        assert outside == {"dig_jax/models/families.py"}


def test_only_the_render_worker_imports_blender():
    inside = importers(BLENDER | {"data_gen.render.blender"}, sources("data_gen"))
    blender = {file for file in inside if file.startswith("data_gen/render/blender/")}
    assert inside - blender == {"data_gen/render/worker.py"} and blender


if __name__ == "__main__":
    for name, floors in FLOORS.items():
        between = room_arrows(name)
        print(f"{name}: {sum(len(rooms) for rooms in floors)} rooms, {len(between)} arrows")
        for rooms in reversed(floors):
            for room in rooms:
                below = sorted(there for here, there in between if here == room)
                print(f"  {room:10} -> {' '.join(below)}")
