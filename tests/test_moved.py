"""Importing a module by its old name fails with an error that gives the new name."""

from __future__ import annotations

import importlib
import re

import pytest

from mixdet.config.read import read_config
from mixdet.errors import MixDetError
from mixdet.moved import MOVED


@pytest.mark.parametrize("old", MOVED)
def test_an_old_name_is_refused_with_the_new_one(old, tmp_path):
    new = MOVED[old]
    # Python imports the outer packages first, so the error names the outermost one that has moved
    package = min((name for name in MOVED if f"{old}.".startswith(f"{name}.")), key=len)
    with pytest.raises(ImportError, match=re.escape(f"{package} has moved: import ")):
        importlib.import_module(old)
    config = tmp_path / "config.py"
    for allowed in (True, False):
        imports = f"dict(imports=['mixdet.plugin', '{old}'], allow_failed_imports={allowed})"
        config.write_text(f"custom_imports = {imports}")
        with pytest.raises(MixDetError) as refusal:
            read_config(config)
        words = f"{config}: custom_imports: {old} has moved: import {new}"
        assert str(refusal.value) == words


@pytest.mark.parametrize("new", MOVED.values())
def test_a_new_name_can_be_imported(new):
    name = new.split()[0]
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:  # `name` is a function in a module
        module, _, function = name.rpartition(".")
        assert callable(getattr(importlib.import_module(module), function))


def test_a_users_module_that_imports_an_old_name_is_refused(tmp_path, monkeypatch):
    (tmp_path / "users_transforms.py").write_text("from mixdet.shipped import find_config")
    monkeypatch.syspath_prepend(tmp_path)
    config = tmp_path / "config.py"
    config.write_text("custom_imports = dict(imports=['users_transforms'])")
    with pytest.raises(MixDetError, match=r"mixdet\.shipped has moved: import mixdet\.config"):
        read_config(config, ["custom_imports.allow_failed_imports=False"])
