"""Read the text of the config in a checkpoint without running the text as Python."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from typing import Any


def parse_config(text: str, name_of: Callable[[str], str | None] | None = None) -> dict[str, Any]:
    """Read the text of a config (mmengine's `Config.pretty_text`) without running it.

    mmengine runs this text as Python. mmengine's registry also accepts the name of any Python
    object as a `type`, such as `os.system` or `mmengine.rmtree`. This function accepts only
    assignments of literals and containers to names. A `type` must be a name without dots, except
    for the prefixes `mmdet.` and `mixdet.`.

    Args:
        text: The text.
        name_of: Returns the registered name of a class that is given as `package.module.Class`, or
            None. mmengine writes types in this form if they are classes in the config.

    Raises:
        ValueError: The text contains anything that is not accepted.
    """
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        raise ValueError(f"line {error.lineno} is not Python") from error
    config = {}
    for line in tree.body:
        targets = line.targets if isinstance(line, ast.Assign) else []
        if [type(target) for target in targets] != [ast.Name]:
            raise ValueError(f"line {line.lineno} is not an assignment to a name")
        config[targets[0].id] = _evaluate(line.value)
    return _with_registered_types(config, name_of or (lambda path: None))


def _evaluate(node: ast.expr) -> Any:
    """Return the value of an expression. Only literals, containers and `dict(...)` are allowed."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict":
        if [type(argument) for argument in node.args] == [ast.Dict] and not node.keywords:
            return _evaluate(node.args[0])  # mmengine writes dict({...}) if a key is no identifier
        if node.args or any(keyword.arg is None for keyword in node.keywords):
            raise ValueError(f"line {node.lineno} calls dict with arguments that are not keywords")
        return {keyword.arg: _evaluate(keyword.value) for keyword in node.keywords}
    if isinstance(node, ast.Dict) and None not in node.keys:
        pairs = zip(node.keys, node.values, strict=True)
        return {_evaluate(key): _evaluate(value) for key, value in pairs}
    if isinstance(node, ast.List | ast.Tuple | ast.Set):
        kind = {ast.List: list, ast.Tuple: tuple, ast.Set: set}[type(node)]
        return kind(_evaluate(item) for item in node.elts)
    if isinstance(node, ast.Name) and node.id in ("inf", "nan"):
        return float(node.id)
    try:
        return ast.literal_eval(node)
    except ValueError:
        raise ValueError(f"line {node.lineno} is not a plain value") from None


def _with_registered_types(value: Any, name_of: Callable[[str], str | None]) -> Any:
    """Return a value with registered names as types; raise a `ValueError` for any other type."""
    if isinstance(value, list | tuple):
        return type(value)(_with_registered_types(item, name_of) for item in value)
    if not isinstance(value, dict):
        return value
    value = {key: _with_registered_types(item, name_of) for key, item in value.items()}
    type_name = value.get("type", "")
    registered = r"((mixdet|mmdet)\.)?\w+"
    if isinstance(type_name, str) and type_name and not re.fullmatch(registered, type_name):
        value["type"] = name_of(type_name)
        if value["type"] is None:
            raise ValueError(f"the type {type_name} is not a registered name")
    return value
