"""Reading a config file: one way for training, testing, counting and predicting."""

from __future__ import annotations

import argparse
import inspect
import os
from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config, DictAction
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmengine.utils import import_modules_from_strings

from mixdet.config.data_paths import set_data_root
from mixdet.config.shipped import find_config
from mixdet.errors import MixDetError, did_you_mean, one_line

# At the top of a config by mmengine and mmdet, beside what `Runner` takes
ALSO_READ = (
    *("model_wrapper_cfg", "find_unused_parameters", "sync_bn", "compile", "custom_imports"),
    *("activation_checkpointing", "efficient_conv_bn_eval", "tta_model", "tta_pipeline"),
)


# Those that mmengine lets a config leave out by None; we let it leave out any
MMENGINES_HOOKS = "runtime_info", "timer", "sampler_seed", "logger", "param_scheduler", "checkpoint"


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


def load_config(
    path: str,
    cfg_options: Sequence[str] = (),
    work_dir: str | None = None,
    data_root: str | None = None,
) -> Config:
    """Read a config, import what it names, and apply the options that training and testing share.

    Raises:
        MixDetError: The config cannot be read, or an option does not fit it.
    """
    cfg = read_config(path, cfg_options)
    init_default_scope(cfg.get("default_scope", "mmdet"))
    hooks = cfg.get("default_hooks") or {}
    for name in [name for name, hook in hooks.items() if hook is None]:
        if name not in MMENGINES_HOOKS:
            del hooks[name]
    cfg.work_dir = work_dir or cfg.get("work_dir") or str(Path("work_dirs", Path(path).stem))
    if data_root is not None:
        set_data_root(cfg, data_root)
    return cfg


def require(config: str, cfg: Config, *keys: str) -> None:
    """Refuse a config that lacks keys.

    Raises:
        MixDetError: It lacks one.
    """
    missing = [key for key in keys if cfg.get(key) is None]
    if missing:
        raise MixDetError(f"{config}: lacks {', '.join(missing)}, which the run needs")


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
    """Refuse a key that nothing reads: a slip of a letter, or one that the data sets have read."""
    read = {*cfg, *inspect.signature(Runner).parameters, *ALSO_READ} - {"cfg"}
    for option in options:
        key = option.partition("=")[0].partition(".")[0]
        if key == "data_root":
            raise MixDetError("--cfg-options data_root: the data sets have it already: --data-root")
        hint = None if key in read else did_you_mean(key, read, alike=0.8)
        if hint:
            raise MixDetError(f"--cfg-options {key}: the config has no such key; {hint}")
