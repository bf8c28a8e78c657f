"""The README and every other page name only commands, files, pages and settings that exist."""

import re

import pytest

from configs import base
from tests.helpers.paths import ROOT

FILES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "bench" / "README.md",
    *(ROOT / "docs").glob("*.md"),
]
PAGES = {str(file.relative_to(ROOT)): file.read_text() for file in sorted(FILES)}


@pytest.mark.parametrize("page", PAGES)
def test_make_targets_exist(page: str):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = re.findall(r"^make ([a-z -]+?)(?: *#|$)", PAGES[page], re.MULTILINE)
    named += re.findall(r"`make ([a-z-]+)`", PAGES[page])
    assert {word for words in named for word in words.split()} <= targets


@pytest.mark.parametrize("page", PAGES)
def test_modules_that_are_run_exist(page: str):
    ours = ("data_gen", "dig_jax", "bench", "study", "tests")
    for name in set(re.findall(r"python -m\s+([a-z_.]+)", PAGES[page])):
        if name.split(".")[0] in ours:
            path = ROOT / name.rstrip(".").replace(".", "/")
            assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), name


@pytest.mark.parametrize("page", PAGES)
def test_files_and_folders_exist(page: str):
    tops = {path.name for path in ROOT.iterdir()} - {"runs", "data"}
    paths = [path for path in re.findall(r"`([\w./-]+)`", PAGES[page]) if "/" in path]
    assert [path for path in paths if path.split("/")[0] in tops and not (ROOT / path).exists()] == []


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str):
    links = re.findall(r"\]\(([^)\s]+)\)", PAGES[page])
    here = (ROOT / page).parent
    local = [link.split("#")[0] for link in links if not re.match(r"https?:", link)]
    assert [link for link in local if link and not (here / link).exists()] == []


def test_every_page_is_in_the_index():
    index = PAGES["docs/index.md"]
    pages = {file.name for file in (ROOT / "docs").glob("*.md")} - {"index.md"}
    assert {page for page in pages if f"({page})" not in index} == set()


@pytest.mark.parametrize("page", PAGES)
def test_settings_exist(page: str):
    named = set(re.findall(r"\bconfig\.([a-z_]+(?:\.[a-z_]+)*)", PAGES[page]))
    for setting in named - {"a.b", "x.y", "json", "py", "get"}:  # placeholders, files, a method
        node = base.get_config()
        for name in setting.split("."):
            assert name in node, setting
            node = node[name]
            if name in ("stages", "mixture"):  # whose names are the config's own
                break
