"""Reading a config file: one way for training, testing, counting and predicting."""

from __future__ import annotations

import argparse
import inspect
import os
from collections.abc import Sequence

from mmengine.config import Config, DictAction
from mmengine.runner import Runner
from mmengine.utils import import_modules_from_strings

from mixdet.errors import MixDetError, did_you_mean, one_line
from mixdet.shipped import find_config


def read_config(path: str | os.PathLike, cfg_options: Sequence[str] = ()) -> Config:
    """Read a config, apply options to it, then import what it names: options may name more.

    Args:
        path: Path of the config, or the bare name of a shipped one.
        cfg_options: `key=value` strings that override it.

    Raises:
        MixDetError: The config cannot be read, an option does not fit it, or an import fails.
    """
    file = find_config(path)
    try:
        cfg = Config.fromfile(file, import_custom_modules=False)
    except Exception as error:  # a config is code: whatever it raises is the config's fault
        raise MixDetError(f"{path}: cannot be read as a config: {one_line(error)}") from error
    _merge(cfg, cfg_options)
    try:
        import_modules_from_strings(**cfg.get("custom_imports") or {"imports": None})
    except Exception as error:  # as above, of the modules
        raise MixDetError(f"{path}: custom_imports: {one_line(error)}") from error
    return cfg


def _merge(cfg: Config, options: Sequence[str]) -> None:
    wrong = next((option for option in options if "=" not in option), None)
    if wrong is not None:
        raise MixDetError(f"--cfg-options: {wrong} is not of the form key=value")
    if options:
        _check_keys(cfg, options)
        parser = argparse.ArgumentParser()
        parser.add_argument("--cfg-options", nargs="+", action=DictAction)
        try:
            cfg.merge_from_dict(parser.parse_args(["--cfg-options", *options]).cfg_options)
        except (KeyError, TypeError, AssertionError, IndexError) as error:
            raise MixDetError(f"--cfg-options do not fit the config: {one_line(error)}") from error


def _check_keys(cfg: Config, options: Sequence[str]) -> None:
    """Refuse a new key that is like one which is read: it would go by unseen."""
    read = {*cfg, *inspect.signature(Runner).parameters} - {"cfg"}
    for option in options:
        key = option.partition("=")[0].partition(".")[0]
        hint = None if key in read else did_you_mean(key, read, alike=0.85)  # a slip of a letter
        if hint:
            raise MixDetError(f"--cfg-options {key}: the config has no such key; {hint}")
