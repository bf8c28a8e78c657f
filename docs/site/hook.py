"""Makes a site of the pages as they are in the repository: MkDocs calls this while `make docs` builds it.

The navigation is docs/index.md, whose groups and links it takes. README.md is the first page, and pages
outside of docs that the index or another page leads to have a place in the site. The reference is a page for
each room, with the docstrings of its modules, read from the source: nothing is imported.
"""

import logging
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

log = logging.getLogger("mkdocs.hooks.dig_jax")

ROOT = Path(__file__).parents[2]
# Pages whose place in the site is not that in docs.
PLACES = {
    "README.md": "index.md",
    "docs/index.md": "pages.md",
    "bench/README.md": "bench.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
REFERENCE = "reference"
GROUP = re.compile(r"^\*\*(.+)\*\*$", re.MULTILINE)
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^()\s]+)\)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """The navigation: the groups of docs/index.md, what it names besides, and the reference."""
    _, *parts = GROUP.split((ROOT / "docs" / "index.md").read_text())
    nav: list[Any] = ["index.md", "pages.md"]
    for title, text in zip(parts[::2], parts[1::2], strict=True):
        targets = dict.fromkeys(match.group(3) for match in LINK.finditer(text))
        nav.append({title: [_place(_inside("docs/index.md", target)) for target in targets]})
    nav.append({"Reference": [f"{REFERENCE}/{room}.md" for room in _rooms()]})
    config.nav = nav
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages outside of docs, and the reference."""
    if index := files.get_file_from_path("index.md"):
        files.remove(index)
    for source, place in PLACES.items():
        files.append(File.generated(config, place, abs_src_path=str(ROOT / source)))
    for room, modules in _rooms().items():
        text = "\n\n".join([f"# {room}", *(f"::: {module}" for module in modules)])
        files.append(File.generated(config, f"{REFERENCE}/{room}.md", content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links as they lead on GitHub, made to lead to the same page here.

    What has no page here, such as a source file, is named without a link; what is not there is an error.
    """
    if page.file.src_uri.startswith(REFERENCE):
        return markdown
    assert page.file.abs_src_path
    source = Path(page.file.abs_src_path).relative_to(ROOT).as_posix()

    def lead(match: re.Match[str]) -> str:
        image, text, target = match.groups()
        path, _, anchor = target.partition("#")
        if not path or "://" in target or target.startswith("mailto:"):
            return match.group()
        there = _inside(source, path)
        if not (ROOT / there).exists():
            log.warning("%s links to %s, which is not there", source, target)
        place = _place(there)
        if files.get_file_from_path(place) is None:
            return text
        here = posixpath.relpath(place, posixpath.dirname(page.file.src_uri) or ".")
        return f"{image}[{text}]({here}{'#' + anchor if anchor else ''})"

    return LINK.sub(lead, markdown)


def _inside(source: str, target: str) -> str:
    """The path in the repository that a link of a page leads to."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(source), target.partition("#")[0]))


def _place(path: str) -> str:
    """Where the site has a file of the repository."""
    return PLACES.get(path, path.removeprefix("docs/"))


def _rooms() -> dict[str, list[str]]:
    """Modules by the room they are in: a package of dig_jax or data_gen; those at the top are one room."""
    rooms: dict[str, list[str]] = {}
    for package in ("dig_jax", "data_gen"):
        rooms[package] = []
        for file in sorted((ROOT / package).rglob("*.py")):
            parts = file.relative_to(ROOT).with_suffix("").parts
            if parts[-1] in ("__init__", "__main__"):
                continue
            rooms.setdefault(".".join(parts[:2]) if len(parts) > 2 else package, []).append(".".join(parts))
    return rooms
