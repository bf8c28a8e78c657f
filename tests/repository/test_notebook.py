"""The Colab notebook: valid, every command in it exists with the options it is given, and it runs."""

import json
import os
import re
import shlex
import subprocess
from pathlib import Path

import nbformat
import pytest

from configs import quickstart
from data_gen.__main__ import parse_arguments
from tests.helpers.paths import HELPERS, ROOT

NOTEBOOK = nbformat.read(ROOT / "notebooks" / "colab_smoke.ipynb", as_version=4)
SIZES = {"PAIRS": 32, "TEST_PAIRS": 16, "STEPS": 10}  # as its cell says
TOOLS_PYTHON = ROOT / ".venv-tools" / "bin" / "python"


def _shell_commands() -> list[list[str]]:
    """The words of every `!` line, continuation lines joined."""
    code = "\n".join(cell.source for cell in NOTEBOOK.cells if cell.cell_type == "code")
    code = re.sub(r"\{(PAIRS|TEST_PAIRS|STEPS)( // 2)?\}", _value, code)
    lines = code.replace("\\\n", " ").splitlines()
    return [shlex.split(line.strip()[1:]) for line in lines if line.strip().startswith("!")]


def _value(found: re.Match) -> str:
    return str(SIZES[found[1]] // (2 if found[2] else 1))


def _arguments_of(module: str) -> list[str]:
    (found,) = [words for words in _shell_commands() if module in words]
    return found[found.index(module) + 1 :]


def test_its_sizes_are_those_of_its_cell():
    [cell] = [cell.source for cell in NOTEBOOK.cells if cell.source.startswith("PAIRS, ")]
    named: dict[str, int] = {}
    exec(cell, named)
    assert {name: named[name] for name in SIZES} == SIZES


def test_it_is_a_valid_notebook_without_outputs():
    nbformat.validate(NOTEBOOK)
    assert not any(cell.get("outputs") for cell in NOTEBOOK.cells)


def test_its_python_cells_compile():
    for cell in NOTEBOOK.cells:
        if cell.cell_type == "code":
            commands = re.compile(r"^( *)[!%].*$", re.MULTILINE)
            compile(commands.sub(r"\1pass", cell.source.replace("\\\n", " ")), "cell", "exec")


def test_make_has_the_targets():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    (used,) = [words[1:] for words in _shell_commands() if words[0] == "make"]
    assert used and set(used) <= targets


def test_data_gen_takes_the_arguments():
    args = parse_arguments(_arguments_of("data_gen"))
    assert (args.preset, args.test_pairs) == ("tiny", 16)


def test_training_takes_the_settings():
    config = quickstart.get_config()
    arguments = _arguments_of("dig_jax.main")
    assert (ROOT / arguments.pop(0).removeprefix("--config=")).exists()
    assert arguments.pop(0) == "--workdir=runs/smoke"
    for argument in arguments:
        key, value = re.fullmatch(r"--config\.([a-z_.]+)=(.+)", argument).groups()
        node = config
        for name in key.split("."):
            assert name in node, key
            node = node[name]
        if isinstance(node, int):
            assert int(value) > 0


def test_training_reads_the_pairs_that_were_rendered():
    (out,) = [word.removeprefix("--out=") for word in _arguments_of("data_gen") if word.startswith("--out=")]
    settings = [word for word in _arguments_of("dig_jax.main") if ".data." in word]
    assert len(settings) == 2 and all(out in word for word in settings)


def test_the_report_it_shows_is_the_runs():
    (workdir,) = [word for word in _arguments_of("dig_jax.main") if word.startswith("--workdir=")]
    report = f'Path("{workdir.removeprefix("--workdir=")}/report.html")'
    assert any(report in cell.source for cell in NOTEBOOK.cells)


@pytest.mark.slow
@pytest.mark.skipif(not TOOLS_PYTHON.exists(), reason="needs `make setup-tools`")
def test_it_runs_from_top_to_bottom_and_shows_pairs_answers_and_the_report(tmp_path: Path):
    for path in ROOT.iterdir():  # what it renders and trains is not left in the checkout
        if path.name not in ("data", "runs", ".git"):
            (tmp_path / path.name).symlink_to(path)
    notebook = nbformat.from_dict(json.loads(json.dumps(NOTEBOOK)))
    for cell in notebook.cells:  # system packages are there, and two steps are enough
        cell.source = "\n".join(line for line in cell.source.splitlines() if not line.startswith("!apt-get"))
        cell.source = re.sub(r"^PAIRS, .*", "PAIRS, TEST_PAIRS, STEPS = 32, 4, 2", cell.source)
    nbformat.write(notebook, tmp_path / "short.ipynb")
    command = [TOOLS_PYTHON, HELPERS / "run_notebook.py", "short.ipynb"]
    done = subprocess.run(
        command, cwd=tmp_path, env=os.environ | {"JAX_PLATFORMS": "cpu"}, text=True, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    outputs = {
        cell.id: [output for output in cell.get("outputs", ()) if output.output_type == "display_data"]
        for cell in nbformat.read(tmp_path / "short.ipynb", as_version=4).cells
    }
    assert ["image/png" in output.data for output in outputs["cell-pairs"]] == [True]
    assert ["image/png" in output.data for output in outputs["cell-answers"]] == [True, True]
    [page] = outputs["cell-9"]
    assert "2 of 2 steps" in page.data["text/html"] and "A group of sampled answers" in page.data["text/html"]
