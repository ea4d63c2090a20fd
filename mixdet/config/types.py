"""Replace classes that a config gives as `type` by their names.

In a config, `type=SSDLite` with an imported class means the same as `type="SSDLite"`. Only names
can be stored in a checkpoint and read from it without running code.
"""

from __future__ import annotations

import sys
from collections import ChainMap
from collections.abc import Callable
from types import ModuleType
from typing import Any

import mmdet.registry
from mmengine.config import Config
from mmengine.config.lazy import LazyAttr, LazyObject
from mmengine.registry import Registry
from mmengine.utils import get_object_from_string

REGISTRIES = [value for value in vars(mmdet.registry).values() if isinstance(value, Registry)]


def name_types(cfg: Config) -> Config:
    """Return a config with each `type` as a name, and without the objects that its file imports.

    If the config has no `default_scope`, it is set to `mmdet`. Otherwise mmengine would look for
    the names only among its own classes.

    Args:
        cfg: The config. Its `type`s may be classes and functions.

    Raises:
        ValueError: A class or function cannot be imported by its name.
    """
    content = {
        key: _with_names(value)
        for key, value in dict.items(cfg._cfg_dict)
        if key not in cfg._imported_names and not _is_object(value)
    }
    content["default_scope"] = content.get("default_scope") or "mmdet"
    return Config(content, cfg.text, cfg.filename, cfg.env_variables)


def registered_name(path: str) -> str | None:
    """Return the registered name of a class that is given as `package.module.Class`, or None.

    Nothing is imported: a module that is not imported yet has registered no class.
    """
    module, _, name = path.rpartition(".")
    return _registered_name(getattr(sys.modules.get(module), name, None))


def _with_names(value: Any) -> Any:
    if isinstance(value, dict):
        items = {key: _with_names(child) for key, child in dict.items(value)}
        kind = items.get("type")
        if _is_object(kind):
            items["type"] = _name(kind.build() if isinstance(kind, LazyAttr | LazyObject) else kind)
        return items
    if type(value) in (list, tuple):
        return type(value)(_with_names(item) for item in value)
    return value


def _is_object(value: Any) -> bool:
    """Return whether a value is a class, a function, a module, or a delayed import of one."""
    return isinstance(value, LazyAttr | LazyObject | ModuleType) or hasattr(value, "__qualname__")


def _name(kind: Callable) -> str:
    name = _registered_name(kind)
    if name is None:
        name = f"{kind.__module__}.{kind.__qualname__}"
        if get_object_from_string(name) is not kind:
            raise ValueError(f"type={name} cannot be imported: define it in a module of its own")
    return name


def _registered_name(kind: Any) -> str | None:
    """Return the name that mmdet finds a class or a function under, or None."""
    for registry in REGISTRIES:
        names = ChainMap(registry.module_dict)
        while registry.parent is not None:
            registry = registry.parent
            names.maps.append(registry.module_dict)
        for name, registered in names.items():
            if registered is kind and kind is not None:
                return name
    return None
