"""What the package brings: its types, and nothing to install that only the study uses."""

import re
import tomllib

from tests.helpers.paths import ROOT
from tests.repository.test_imports import importers, sources

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[^\w.-]", requirement)[0] for requirement in requirements}


def test_type_checkers_of_users_are_told_that_the_package_has_types():
    assert (ROOT / "dig_jax" / "py.typed").exists()
    assert "py.typed" in PROJECT["tool"]["setuptools"]["package-data"]["dig_jax"]


def test_what_only_the_study_draws_with_is_not_in_the_base_install():
    extras = PROJECT["project"]["optional-dependencies"]
    assert importers({"matplotlib"}, sources("dig_jax", "data_gen", "configs")) == set()
    assert "matplotlib" not in names(PROJECT["project"]["dependencies"])
    assert "matplotlib" in names(extras["study"]) & names(extras["dev"])
