"""The README and CONTRIBUTING name only commands, files and settings that exist."""

import re

import pytest

from configs import base
from tests.helpers.paths import ROOT

PAGES = {name: (ROOT / name).read_text() for name in ("README.md", "CONTRIBUTING.md")}


@pytest.mark.parametrize("page", PAGES)
def test_make_targets_exist(page: str):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = re.findall(r"^make ([a-z -]+?)(?: *#|$)", PAGES[page], re.MULTILINE)
    named += re.findall(r"`make ([a-z-]+)`", PAGES[page])
    assert named
    assert {word for words in named for word in words.split()} <= targets


def test_modules_that_are_run_exist():
    modules = set(re.findall(r"python -m ([a-z_.]+)", PAGES["README.md"])) - {"pip"}
    assert {"data_gen", "dig_jax.main", "dig_jax.evaluate"} <= modules
    for name in modules:
        path = ROOT / name.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), name


@pytest.mark.parametrize("page", PAGES)
def test_files_and_folders_exist(page: str):
    tops = {path.name for path in ROOT.iterdir()} - {"runs", "data"}
    paths = [path for path in re.findall(r"[`(]([\w./-]+)[`)]", PAGES[page]) if path.split("/")[0] in tops]
    assert paths
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_settings_exist():
    settings = re.findall(r"\bconfig\.([a-z_]+(?:\.[a-z_]+)*)", PAGES["README.md"])
    for setting in set(settings) - {"a.b", "json"}:  # a placeholder, and the file config.json
        node = base.get_config()
        for name in setting.split("."):
            assert name in node, setting
            node = node[name]
