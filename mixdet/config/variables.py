"""Find the variables of a config that are set without effect.

A config computes values from its variables while it is read: `scale=(input_size, input_size)`. A
child config or an option that sets `input_size` afterwards does not change `scale`. This module
reads the source of a config and of its bases, and finds such settings.
"""

from __future__ import annotations

import ast
import inspect
import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.fileio import load
from mmengine.runner import Runner
from mmengine.utils import get_installed_path

from mixdet.config.types import name_types

# Top-level config keys that mmengine and mmdet read, although `Runner` has no such argument
KEYS_BESIDE_RUNNER = (
    *("model_wrapper_cfg", "find_unused_parameters", "sync_bn", "compile", "custom_imports"),
    *("activation_checkpointing", "efficient_conv_bn_eval", "tta_model", "tta_pipeline"),
    "runner_type",
)
# The top-level keys that a run reads. Every other key is a variable, and so is `data_preprocessor`:
# the runner reads it only if the model has none.
RUNNER_ARGUMENTS = {*inspect.signature(Runner).parameters} - {"cfg", "data_preprocessor"}
RUN_KEYS = RUNNER_ARGUMENTS | {*KEYS_BESIDE_RUNNER}

Key = tuple[str | int, ...]  # a place in a config: ("train_dataloader", "dataset", "pipeline", 1)


@dataclass
class Source:
    """What the text of one config file does with the variables.

    Attributes:
        path: The file.
        bases: The files of its bases.
        assigned: The top-level names that the file sets.
        used: The file's own variables that the file computes values from.
        used_from_base: The variables of its bases that the file computes values from.
        computed: For each variable, the places of the values that are computed from it.
    """

    path: Path
    bases: list[Path] = field(default_factory=list)
    assigned: set[str] = field(default_factory=set)
    used: set[str] = field(default_factory=set)
    used_from_base: set[str] = field(default_factory=set)
    computed: dict[str, list[Key]] = field(default_factory=dict)


def settings_without_effect(cfg: Config, file: Path) -> Iterator[tuple[Path, str, list[str]]]:
    """Find the variables that a config file sets too late: its bases have already used them.

    Args:
        cfg: The config, as mmengine reads the file.
        file: The file.

    Yields:
        The file that sets a variable, the variable, and the keys to set instead.
    """
    sources = _read_sources(file)
    for variable in sorted({name for source in sources for name in source.assigned} - RUN_KEYS):
        last = max(i for i, source in enumerate(sources) if variable in source.assigned)
        later = [source.used | source.used_from_base for source in sources[last + 1 :]]
        if variable in cfg and variable not in sources[last].used.union(*later):
            before = _read_bases(sources[last])
            instead, same_name = _keys_instead((variable,), cfg, before, sources[:last])
            # A variable that nothing uses is a mistake only in the user's own child config. Bases
            # of mmdet and dumped configs have such variables too.
            if not instead and sources[last] is sources[-1] and sources[-1].bases:
                instead = same_name
            if instead:
                yield sources[last].path, variable, instead


def keys_instead_of(option: str, cfg: Config, before: Config, file: Path) -> list[str]:
    """Return the keys to set instead of a variable that an option sets without effect.

    Args:
        option: The key of the option, such as `input_size` or `train_pipeline.1.scale`.
        cfg: The config with the options.
        before: The config without the options.
        file: The file of the config.
    """
    key = tuple(int(part) if part.isdigit() else part for part in option.split("."))
    instead, same_name = _keys_instead(key, cfg, before, _read_sources(file))
    return instead or same_name


def _keys_instead(
    key: Key, cfg: Config, before: Config, sources: Sequence[Source]
) -> tuple[list[str], list[str]]:
    """Find the keys of values that a new value of a variable should change, but does not.

    Returns:
        Two lists. The first has the keys of the values that were computed from the variable and
        have not changed since. A config that mmengine has dumped computes nothing, so values equal
        to the old value of the variable are listed too. The second has the keys that end in the
        name of the variable and have another value than the variable's new one.
    """
    (variable, *_), rest = key, key[1:]
    old, new = before.get(variable), cfg.get(variable)
    if old == new:
        return [], []
    places = _all_computed(variable, sources)
    nested = list(_walk(cfg))
    places += [
        place
        for place, value in nested
        if value == old and (place[-1] == variable or (value and isinstance(value, (dict, list))))
    ]
    unchanged = []
    for place in places:
        inner = place + rest if _at(cfg, place + rest) is not None else place
        if place[0] in RUN_KEYS and _at(cfg, inner) == _at(before, inner) is not None:
            unchanged.append(inner)
    same_name = [place for place, value in nested if place[-1] == variable and value != new]
    return _dotted(unchanged), _dotted(same_name)


def _dotted(places: Sequence[Key]) -> list[str]:
    return [".".join(map(str, place)) for place in dict.fromkeys(places)]


def _all_computed(variable: str, sources: Sequence[Source]) -> list[Key]:
    """Return all places computed from a variable, directly or through other variables."""
    places, queue = [], [((variable,), ())]
    while queue:
        (name,), rest = queue.pop(0)
        for place in (place for source in sources for place in source.computed.get(name, ())):
            place += rest
            if place not in places:
                places.append(place)
                queue.append(((place[0],), place[1:]))
    return places


def _walk(cfg: Config) -> Iterator[tuple[Key, Any]]:
    """Yield the place and the value of everything in the parts of a config that a run reads."""

    def visit(node: Any, place: Key) -> Iterator[tuple[Key, Any]]:
        yield place, node
        if isinstance(node, (dict, list, tuple)):
            for name, child in node.items() if isinstance(node, dict) else enumerate(node):
                yield from visit(child, (*place, name))

    for name in sorted(RUN_KEYS & cfg.keys()):
        yield from visit(cfg[name], (name,))


def _at(cfg: Any, place: Key) -> Any:
    """Return the value at a place of a config, or None."""
    for part in place:
        try:
            cfg = cfg[part]
        except (KeyError, IndexError, TypeError, AttributeError):
            return None
    return cfg


def _read_bases(source: Source) -> Config:
    """Read the bases of a config file as one config."""
    merged = {}
    for base in source.bases:
        merged |= Config.fromfile(base, import_custom_modules=False)._cfg_dict
    return name_types(Config(merged))


def _read_sources(file: Path) -> list[Source]:
    """Read a config file and its bases, in the same order as mmengine reads them."""
    source, sources = _read_source(file), {}
    for base in source.bases:
        sources |= {base_source.path: base_source for base_source in _read_sources(base)}
    return [*sources.values(), source]


def _read_source(file: Path) -> Source:
    with tempfile.TemporaryDirectory() as folder:
        # mmengine replaces expressions such as {{ fileDirname }} before it reads the file
        text = Path(folder, f"config{file.suffix}")
        Config._substitute_predefined_vars(str(file), str(text))
        Config._substitute_env_variables(str(text), str(text))
        if file.suffix == ".py":
            module = ast.parse(text.read_text("utf-8"))
            lazy = Config._is_lazy_import(str(text))
            source = Source(file, _imported_bases(file, module) if lazy else [])
            for statement in module.body:
                _read_statement(statement, source)
        else:
            lazy, source = False, Source(file, assigned=set(load(text)))
        if not lazy:
            bases = Config._get_base_files(str(text))
            source.bases = [Path(Config._get_cfg_path(base, str(file))[0]) for base in bases]
    return source


def _imported_bases(file: Path, module: ast.Module) -> list[Path]:
    """Return the files that a config imports within `with read_base():`."""
    files = []
    for name in Config._get_base_modules([*module.body]):
        level = len(name) - len(name.lstrip("."))
        package, *parts = name[level:].split(".")
        if level:
            folder, parts = file.absolute().parents[level - 1], [package, *parts]
        else:
            folder = Path(get_installed_path(package))
        files.append(folder.joinpath(*parts).with_suffix(".py"))
    return files


def _read_statement(statement: ast.stmt, source: Source) -> None:
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return
    if isinstance(statement, ast.Assign | ast.AnnAssign | ast.AugAssign) and statement.value:
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        for target in targets:
            place = _target(target)
            if place and place != ("_base_",):
                source.assigned.add(str(place[0]))
                _read_value(statement.value, place, source)
            elif isinstance(target, ast.Tuple | ast.List):  # train, val = 32, 16
                source.assigned |= {str(part[0]) for item in target.elts if (part := _target(item))}
                _note_uses(statement.value, (), source)
        return
    call = statement.value if isinstance(statement, ast.Expr) else None
    if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute):
        place = _target(call.func.value)  # model.update(dict(...)), train_pipeline.append(...)
        if place:
            source.assigned.add(str(place[0]))
            for value in (*call.args, *call.keywords):
                name = getattr(value, "arg", None)
                child = value.value if isinstance(value, ast.keyword) else value
                _read_value(child, (*place, name) if name else place, source)
            return
    body = [child for child in ast.iter_child_nodes(statement) if isinstance(child, ast.stmt)]
    for child in body:
        _read_statement(child, source)
    for child in ast.iter_child_nodes(statement):
        if child not in body:
            _note_uses(child, (), source)


def _target(node: ast.expr) -> Key:
    """Return the place in the config that an assignment sets, or () if it sets none."""
    if isinstance(node, ast.Name):
        return (node.id,)
    if isinstance(node, ast.Attribute):
        return (*outer, node.attr) if (outer := _target(node.value)) else ()
    if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
        return (*outer, node.slice.value) if (outer := _target(node.value)) else ()
    return ()


def _read_value(node: ast.expr, place: Key, source: Source) -> None:
    """Record the variables that a value is computed from, for each item of a dict or a list."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict":
        for argument in node.args:
            _read_value(argument, place, source)
        for keyword in node.keywords:
            inner = (*place, keyword.arg) if keyword.arg else place
            _read_value(keyword.value, inner, source)
    elif isinstance(node, ast.Dict):
        for key, value in zip(node.keys, node.values, strict=True):
            inner = (*place, key.value) if isinstance(key, ast.Constant) else place
            _read_value(value, inner, source)
    elif isinstance(node, ast.List | ast.Tuple) and any(
        isinstance(item, ast.Call | ast.Dict) for item in node.elts
    ):
        for index, item in enumerate(node.elts):
            _read_value(item, (*place, index), source)
    else:
        _note_uses(node, place, source)


def _note_uses(node: ast.AST, place: Key, source: Source) -> None:
    for part in ast.walk(node):
        if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Load) and part.id != "_base_":
            names, used = [part.id], source.used
        elif isinstance(part, ast.Attribute) and _target(part)[:1] == ("_base_",):
            names, used = [_target(part)[1]], source.used_from_base
        elif isinstance(part, ast.Constant) and isinstance(part.value, str):
            names = re.findall(r"\{\{\s*_base_\.(\w+)", part.value)
            used = source.used_from_base
        else:
            continue
        for name in names:
            used.add(name)
            if place:
                source.computed.setdefault(name, []).append(place)
