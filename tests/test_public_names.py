"""Every name in an `__all__` of mixdet can be imported, has a docstring and is used by a test."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT


def exporting_modules() -> list[str]:
    """Names of the modules and packages of mixdet that have an `__all__`."""
    names = []
    for file in sorted((ROOT / "mixdet").rglob("*.py")):
        body = ast.parse(file.read_text()).body
        targets = [
            target for node in body if isinstance(node, ast.Assign) for target in node.targets
        ]
        if any(getattr(target, "id", None) == "__all__" for target in targets):
            path = file.relative_to(ROOT).with_suffix("")
            names.append(".".join(path.parts).removesuffix(".__init__"))
    return names


@pytest.mark.parametrize("name", exporting_modules())
def test_exported_names_exist_and_have_docstrings(name):
    module = importlib.import_module(name)
    assert len({*module.__all__}) == len(module.__all__)
    for exported in module.__all__:
        value = getattr(module, exported)
        assert value.__doc__ or not callable(value), f"{name}.{exported}"


def used_objects(file: Path) -> Iterator[object]:
    """Yield the objects of mixdet that a test file imports, or reads from an imported module."""
    nodes = [*ast.walk(ast.parse(file.read_text()))]
    names = {node.id for node in nodes if isinstance(node, ast.Name)}
    imported = {}
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mixdet"):
            module = importlib.import_module(node.module)
            for alias in node.names:
                imported[alias.asname or alias.name] = getattr(module, alias.name, None)
    yield from (value for name, value in imported.items() if name in names)
    for node in nodes:
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            yield getattr(imported.get(node.value.id), node.attr, None)


def types_in_configs() -> set[str]:
    """All strings in the shipped configs and the tests, including the names of registered types."""
    files = [*(ROOT / "configs").rglob("*.py"), *(ROOT / "tests").rglob("test_*.py")]
    return {
        node.value
        for file in files
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }


def test_every_exported_name_is_used_by_a_test_or_a_config():
    used = [value for file in (ROOT / "tests").rglob("*.py") for value in used_objects(file)]
    types = types_in_configs()
    unused = [
        f"{name}.{exported}"
        for name in exporting_modules()
        for exported in importlib.import_module(name).__all__
        if exported not in types
        and not any(getattr(importlib.import_module(name), exported) is value for value in used)
    ]
    assert not unused
