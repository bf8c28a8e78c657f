"""All commands by one name: each has its place, an example, its flags to complete, and its own exit code."""

import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from dig_jax import dig
from tests.helpers.paths import ROOT


def test_every_command_of_the_readme_is_one_of_dig() -> None:
    rows = re.findall(r"^\| `python -m ([a-z_.]+)", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert set(rows) <= {command.module for command in dig.COMMANDS}


def test_the_help_has_an_example_of_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert dig.main([]) == 0
    said = capsys.readouterr().out
    assert all(f"dig {command.name} {command.example}" in said for command in dig.COMMANDS)


@pytest.mark.parametrize("command", dig.COMMANDS, ids=lambda command: command.name)
def test_the_flags_of_an_example_are_among_those_that_are_completed(command: dig.Command) -> None:
    used = {f"{flag}=" for flag in re.findall(r"(--[a-z_]+)=", command.example)}
    assert used <= set(dig.words(command.name))


def test_switches_are_completed_without_a_value() -> None:
    assert "--remote_images" in dig.words("serve") and "--port=" in dig.words("serve")
    assert "--distributed" in dig.words("train") and "--workdir=" in dig.words("train")
    assert dig.words("no such command") == []


def test_a_command_is_run_with_its_flags_and_its_exit_code_is_kept(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [])
    with pytest.raises(SystemExit, match="2"):
        dig.main(["preview", "no/such/folder", "--out=pairs.html"])
    assert "no/such/folder" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="0"):
        dig.main(["preview", "--help"])
    said = capsys.readouterr().out
    assert "--out" in said and said.endswith("example:\n  dig preview data/stage1 --out=pairs.html\n")


def test_a_missing_extra_is_told_with_what_installs_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> Callable[..., None]:
        def run(*args: object, **options: object) -> None:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

        return run

    monkeypatch.setattr(sys, "argv", [])
    monkeypatch.setattr("runpy.run_module", missing("gradio.themes"))
    assert dig.main(["demo", "--model=runs/stage1"]) == 2
    assert "pip install 'dig_jax[demo]'" in capsys.readouterr().err
    monkeypatch.setattr("runpy.run_module", missing("dig_jax.demoo"))
    with pytest.raises(ModuleNotFoundError):
        dig.main(["demo"])
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(dig.EXTRAS.values()) <= set(extras)


def test_the_study_says_what_it_draws_with(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from study.__main__ import main

    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="2"):
        main(["--out=runs/study"])
    assert "pip install 'dig_jax[study]'" in capsys.readouterr().err


def test_an_unknown_command_or_shell_is_refused_with_those_there_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert dig.main(["trian"]) == 2 and dig.main(["--completion=fish"]) == 2
    said = capsys.readouterr().err
    assert "'trian': expected one of render" in said and "expected one of bash, zsh" in said


def test_bash_completes_commands_and_flags(tmp_path: Path) -> None:
    if not (bash := shutil.which("bash")):
        pytest.skip("needs bash")
    tool = tmp_path / "dig"
    tool.write_text(f'#!/bin/sh\nexec {sys.executable} {ROOT / "dig_jax" / "dig.py"} "$@"\n')
    tool.chmod(0o755)
    script = """eval "$(dig --completion=bash)"
      compopt() { :; }
      COMP_WORDS=(dig ev); COMP_CWORD=1; _dig; echo "${COMPREPLY[@]}"
      COMP_WORDS=(dig serve --po); COMP_CWORD=2; _dig; echo "${COMPREPLY[@]}"
    """
    done = subprocess.run(
        [bash, "-c", script],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == ["evaluate", "--port="], done.stderr
