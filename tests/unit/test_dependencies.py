"""What is imported is what is depended on: an environment that has nothing else will do, and nothing more is asked."""

from __future__ import annotations

import ast
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import files, packages_distributions
from itertools import chain
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.docs import REPO
from tests.matrix.environments import SETS

PROJECT = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
INSTALLED = packages_distributions()
AIRFLOW = {"apache-airflow-core": "apache-airflow", "apache-airflow-task-sdk": "apache-airflow"}
"""Whoever installs Airflow installs these, of one version."""
OURS = {"practicus_provider", "practicus_runtime"}
BUILT_BY_HAND = {"horovod"}
"""No release of it can be installed from the index as it is: ``docs/horovod.md``."""


def imported(source: Path) -> Iterator[str]:
    """Dotted names of the modules that a file imports, wherever in it, but for its own package's and Python's.

    What is imported instead of what is not there is where an older version has it.
    """
    nodes = list(ast.walk(ast.parse(source.read_text())))
    instead = {each for node in nodes if isinstance(node, ast.ExceptHandler) for each in ast.walk(node)}
    for node in nodes:
        if node in instead:
            continue
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            modules = [node.module]
        else:
            continue
        yield from (name for name in modules if name.partition(".")[0] not in sys.stdlib_module_names | OURS)


def distribution_of(module: str) -> str:
    """What is installed to have a module. A top-level package that several share is told apart by the module's file."""
    found = {canonicalize_name(name) for name in INSTALLED.get(module.partition(".")[0], [module.partition(".")[0]])}
    if len(found) > 1:
        path = module.replace(".", "/")
        found = {name for name in found if {f"{path}.py", f"{path}/__init__.py"} & files_of(name)}
    (name,) = found
    return AIRFLOW.get(name, name)


@cache
def files_of(distribution: str) -> frozenset[str]:
    return frozenset(map(str, files(distribution) or ()))


def names(requirements: list[str]) -> set[str]:
    """Distributions of requirements; an extra of one, as in ``dask[distributed]``, is one by that name here."""
    parsed = map(Requirement, requirements)
    return {canonicalize_name(name) for requirement in parsed for name in (requirement.name, *requirement.extras)}


IMPORTED = {
    distribution_of(module) for source in (REPO / "practicus_provider").rglob("*.py") for module in imported(source)
}
OPTIONAL = set[str]().union(*map(names, PROJECT["optional-dependencies"].values()))


def test_what_the_package_imports_is_a_dependency_or_belongs_to_an_extra():
    assert names(PROJECT["dependencies"]) >= IMPORTED - BUILT_BY_HAND - OPTIONAL


def test_the_package_depends_on_nothing_that_it_does_not_import():
    assert names(PROJECT["dependencies"]) <= IMPORTED


@pytest.mark.parametrize("airflow", sorted(SETS))
def test_every_supported_airflow_s_own_packages_satisfy_what_this_one_asks(airflow):
    """They agree with each other, so that nothing has to be resolved to know that this one agrees with them, too."""
    pinned = dict(line.split("==") for line in SETS[airflow].read_text().splitlines() if "==" in line)
    extras = (PROJECT["optional-dependencies"].get(extra, ()) for extra in ("kubernetes-connection", "openlineage"))
    asked = map(Requirement, chain(PROJECT["dependencies"], *extras))
    has = {requirement: pinned.get(canonicalize_name(requirement.name)) for requirement in asked}
    assert [str(asks) for asks, version in has.items() if version is None or version not in asks.specifier] == []
