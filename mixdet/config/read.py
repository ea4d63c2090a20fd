"""Read a config file, in the same way for training, testing, counting and predicting."""

from __future__ import annotations

import argparse
import copy
import os
from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config, DictAction
from mmengine.registry import init_default_scope
from mmengine.utils import import_modules_from_strings

from mixdet.config.data_paths import set_data_root
from mixdet.config.input_size import set_input_size
from mixdet.config.plain import parse_config
from mixdet.config.shipped import find_config
from mixdet.config.types import name_types, registered_name
from mixdet.config.variables import RUN_KEYS, keys_instead_of, settings_without_effect
from mixdet.errors import MixDetError, did_you_mean, one_line
from mixdet.moved import refuse_moved

__all__ = ["load_config", "read_config"]

# The names of mmengine's default hooks. mmengine leaves out a default hook if the config sets it to
# None. mmengine fails if any other hook is None, so `load_config` removes these hooks.
DEFAULT_HOOKS = "runtime_info", "timer", "sampler_seed", "logger", "param_scheduler", "checkpoint"

MAX_LISTED_KEYS = 8  # largest number of keys that a message lists


def read_config(
    path: str | os.PathLike,
    cfg_options: Sequence[str] = (),
    size: int | tuple[int, int] | None = None,
) -> Config:
    """Read a config, apply options to it, then import its `custom_imports`.

    A `type` that is a class becomes the name of the class. The imports come last, since an option
    may add an import.

    Args:
        path: Path of the config, or the bare name of a shipped config.
        cfg_options: `key=value` strings that override the config.
        size: Size of the network's input in pixels: (width, height), or the side of a square (see
            `mixdet.config.input_size.set_input_size`). It is set before the options are applied.

    Raises:
        MixDetError: The config cannot be read, an option or the size does not fit it, or an import
            fails.
    """
    file = find_config(path)
    try:
        cfg = name_types(Config.fromfile(file, import_custom_modules=False))
    except Exception as error:  # a config is Python code, which can raise anything
        raise MixDetError(f"{path}: cannot be read as a config: {one_line(error)}") from error
    _check_variables(cfg, file)
    if size is not None:
        set_input_size(cfg, size)
    _merge(cfg, cfg_options, file)
    custom_imports = cfg.get("custom_imports") or {"imports": None}
    try:
        modules = custom_imports["imports"] or ()
        for module in [modules] if isinstance(modules, str) else modules:
            refuse_moved(str(module))  # raises even if the config allows failed imports
        import_modules_from_strings(**custom_imports)
    except Exception as error:  # the modules can raise anything
        message = str(error) if isinstance(error, MixDetError) else one_line(error)
        reason = error.__context__  # mmengine's own error only says which import failed
        if isinstance(reason, ImportError):
            message += f" ({one_line(reason)})"
        raise MixDetError(f"{path}: custom_imports: {message}") from error
    return cfg


def load_config(
    path: str,
    cfg_options: Sequence[str] = (),
    work_dir: str | None = None,
    data_root: str | None = None,
    size: int | tuple[int, int] | None = None,
) -> Config:
    """Read a config as `read_config` does, and apply the options that training and testing share.

    `DataCheckHook`, `SettingsCheckHook` and `ProgressHook` become default hooks unless the config
    sets them.

    Args:
        path: See `read_config`.
        cfg_options: See `read_config`.
        work_dir: The work folder. By default it is `work_dir` in the config, or
            `work_dirs/<config>`.
        data_root: Another folder, in the same layout, for all data sets and metrics.
        size: See `read_config`.

    Raises:
        MixDetError: The config cannot be read, or an option does not fit it.
    """
    cfg = read_config(path, cfg_options, size)
    init_default_scope(cfg.get("default_scope", "mmdet"))
    checks = {
        "data_check": {"type": "DataCheckHook"},
        "settings_check": {"type": "SettingsCheckHook"},
    }
    cfg.default_hooks = checks | (cfg.get("default_hooks") or {})
    hooks = cfg.default_hooks
    hooks.setdefault("progress", {"type": "ProgressHook"})  # last, so its lines end the log
    for name in [name for name, hook in hooks.items() if hook is None]:
        if name not in DEFAULT_HOOKS:
            del hooks[name]
    cfg.work_dir = work_dir or cfg.get("work_dir") or str(Path("work_dirs", Path(path).stem))
    if data_root is not None:
        set_data_root(cfg, data_root)
    return cfg


def checkpoint_config(meta: dict) -> Config | None:
    """Return the config that a checkpoint was trained with.

    Args:
        meta: The part `meta` of the checkpoint.

    Returns:
        The config. None if the checkpoint has no config, or reading the config would run code.
    """
    try:
        return Config(parse_config(meta["cfg"], registered_name))
    except (KeyError, TypeError, ValueError):
        return None


def require(config: str, cfg: Config, *keys: str) -> None:
    """Check that a config has the keys that a run needs.

    Raises:
        MixDetError: The config lacks a key.
    """
    missing = [key for key in keys if cfg.get(key) is None]
    if missing:
        raise MixDetError(
            f"{config}: the config lacks {', '.join(missing)}, which the run needs: add what is "
            "missing"
        )


def _check_variables(cfg: Config, file: Path) -> None:
    """Refuse a config that sets a variable after other values were computed from it.

    Raises:
        MixDetError: A file sets such a variable.
    """
    for path, variable, instead in settings_without_effect(cfg, file):
        raise MixDetError(
            f"{path}: {variable} has no effect, since nothing is computed from it: set "
            f"{_listed(instead)} instead, and remove {variable}"
        )


def _merge(cfg: Config, options: Sequence[str], file: Path) -> None:
    malformed = next((option for option in options if "=" not in option), None)
    if malformed is not None:
        raise MixDetError(f"--cfg-options {malformed}: give it as key=value")
    if options:
        before = copy.deepcopy(cfg)
        parser = argparse.ArgumentParser()
        parser.add_argument("--cfg-options", nargs="+", action=DictAction)
        try:
            cfg.merge_from_dict(parser.parse_args(["--cfg-options", *options]).cfg_options)
        except (KeyError, TypeError, AssertionError, IndexError) as error:
            raise MixDetError(f"--cfg-options do not fit the config: {one_line(error)}") from error
        for option in options:
            _check_option(option.partition("=")[0], cfg, before, file)


def _check_option(key: str, cfg: Config, before: Config, file: Path) -> None:
    """Refuse a key without effect: an unknown key, or a variable that the config has already used.

    Raises:
        MixDetError: The key has no effect.
    """
    variable = key.partition(".")[0]
    if variable in RUN_KEYS:
        return
    instead = keys_instead_of(key, cfg, before, file)
    if variable not in before and not instead:
        hint = did_you_mean(variable, RUN_KEYS | before.keys()) or "add it to the config"
        raise MixDetError(f"--cfg-options {variable}: the config has no such key; {hint}")
    if instead:
        option = {"data_root": ", or --data-root", "input_size": ", or --size"}.get(key, "")
        remedy = f"set {_listed(instead)} instead{option}"
        raise MixDetError(
            f"--cfg-options {key} has no effect, since nothing is computed from it: {remedy}"
        )


def _listed(keys: Sequence[str]) -> str:
    more = len(keys) - MAX_LISTED_KEYS
    return ", ".join(keys[:MAX_LISTED_KEYS]) + (f" and {more} more" if more > 0 else "")
