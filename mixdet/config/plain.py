"""Reading the config that a checkpoint holds, without running it."""

from __future__ import annotations

import ast
import re
from typing import Any


def parse_config(text: str) -> dict[str, Any]:
    """Read a config that mmengine wrote (`Config.pretty_text`) without running it.

    mmengine itself executes such text as Python, and its registry resolves a `type` such as
    `os.system` or `mmengine.rmtree` to whatever that name means. Here the text may hold assignments
    of plain values only, and a `type` only a registered name, with mmdet's or mixdet's scope.

    Raises:
        ValueError: The text holds anything else.
    """
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        raise ValueError(f"line {error.lineno} is not Python") from error
    config = {}
    for line in tree.body:
        targets = line.targets if isinstance(line, ast.Assign) else []
        if [type(target) for target in targets] != [ast.Name]:
            raise ValueError(f"line {line.lineno} is no assignment to a name")
        config[targets[0].id] = _plain(line.value)
    return config


def _plain(node: ast.expr) -> Any:
    """The value of an expression made of literals, containers and `dict(key=value)`."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict":
        if [type(argument) for argument in node.args] == [ast.Dict] and not node.keywords:
            return _plain(node.args[0])  # how mmengine writes keys that are no names
        if node.args or any(keyword.arg is None for keyword in node.keywords):
            raise ValueError(f"line {node.lineno} calls dict with more than keywords")
        return _checked({keyword.arg: _plain(keyword.value) for keyword in node.keywords})
    if isinstance(node, ast.Dict) and None not in node.keys:
        pairs = zip(node.keys, node.values, strict=True)
        return _checked({_plain(key): _plain(value) for key, value in pairs})
    if isinstance(node, ast.List | ast.Tuple | ast.Set):
        kind = {ast.List: list, ast.Tuple: tuple, ast.Set: set}[type(node)]
        return kind(_plain(item) for item in node.elts)
    if isinstance(node, ast.Name) and node.id in ("inf", "nan"):
        return float(node.id)
    try:
        return ast.literal_eval(node)
    except ValueError:
        raise ValueError(f"line {node.lineno} is no plain value") from None


def _checked(config: dict) -> dict:
    kind = config.get("type", "")
    registered = r"((mixdet|mmdet)\.)?\w+"
    if isinstance(kind, str) and kind and not re.fullmatch(registered, kind):
        raise ValueError(f"the type {kind} is no registered name")
    return config
