"""The Colab notebook: valid, and every command in it exists with the options it is given."""

import re
import shlex

import nbformat

from configs import quickstart
from data_gen.__main__ import parse_arguments
from tests.helpers.paths import ROOT

NOTEBOOK = nbformat.read(ROOT / "notebooks" / "colab_smoke.ipynb", as_version=4)


def _shell_commands() -> list[list[str]]:
    """The words of every `!` line, continuation lines joined."""
    code = "\n".join(cell.source for cell in NOTEBOOK.cells if cell.cell_type == "code")
    lines = code.replace("\\\n", " ").splitlines()
    return [shlex.split(line.strip()[1:]) for line in lines if line.strip().startswith("!")]


def _arguments_of(module: str) -> list[str]:
    (found,) = [words for words in _shell_commands() if module in words]
    return found[found.index(module) + 1 :]


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
