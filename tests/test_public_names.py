"""Every name in an `__all__` of mixdet can be imported and has a docstring."""

from __future__ import annotations

import ast
import importlib

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
