"""What the provider and a replica's processes say to each other has one place: ``practicus_runtime.contract``.

Tests may have the names and formats as literals: they hold what is on the wire.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import practicus_provider
from practicus_provider.runtime.practicus_runtime import contract
from practicus_provider.runtime.practicus_runtime.contract import PREFIX, Env

PACKAGE = Path(practicus_provider.__file__).parent
CODE = [path for path in sorted(PACKAGE.rglob("*.py")) if path != Path(contract.__file__)]


def words(source: str) -> Iterator[str]:
    """Every string of the code, parts of f-strings and names of keyword arguments too, but for what only documents."""
    tree = ast.parse(source)
    docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
            yield node.value
        elif isinstance(node, ast.keyword) and node.arg:
            yield node.arg


@pytest.mark.parametrize(
    "code", ['x["PRACTICUS_A"]', 'f"{x}.PRACTICUS_A"', "x.update(PRACTICUS_A=1)", 'x("in PRACTICUS_A")']
)
def test_a_name_of_ours_is_found_however_it_is_written(code):
    assert any(PREFIX in word for word in words(code))


def test_what_only_documents_is_no_name():
    assert list(words('"""PRACTICUS_A"""\nX = 1\n"""PRACTICUS_A"""\ndef f():\n    """PRACTICUS_A"""')) == []


@pytest.mark.parametrize("path", CODE, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_other_module_names_a_variable_of_ours_by_itself(path):
    found = [word for word in words(path.read_text()) if PREFIX in word]
    assert found == [], "name it in practicus_runtime/contract.py, and take it from there"


def test_each_variable_is_named_as_its_constant_is():
    names = {name: value for name, value in vars(Env).items() if not name.startswith("_")}
    assert names == {name: f"{PREFIX}{name}" for name in names}
