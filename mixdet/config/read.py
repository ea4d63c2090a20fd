"""Read a config file, in the same way for training, testing, counting and predicting."""

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
from mixdet.moved import refuse_moved

__all__ = ["load_config", "read_config"]

# Top-level config keys that mmengine and mmdet read, although `Runner` has no such argument
KEYS_BESIDE_RUNNER = (
    *("model_wrapper_cfg", "find_unused_parameters", "sync_bn", "compile", "custom_imports"),
    *("activation_checkpointing", "efficient_conv_bn_eval", "tta_model", "tta_pipeline"),
)

# The names of mmengine's default hooks. mmengine leaves out a default hook if the config sets it to
# None. mmengine fails if any other hook is None, so `load_config` removes these hooks.
DEFAULT_HOOKS = "runtime_info", "timer", "sampler_seed", "logger", "param_scheduler", "checkpoint"


def read_config(path: str | os.PathLike, cfg_options: Sequence[str] = ()) -> Config:
    """Read a config, apply options to it, then import its `custom_imports`.

    The imports come last, since an option may add one.

    Args:
        path: Path of the config, or the bare name of a shipped config.
        cfg_options: `key=value` strings that override the config.

    Raises:
        MixDetError: The config cannot be read, an option does not fit it, or an import fails.
    """
    file = find_config(path)
    try:
        cfg = Config.fromfile(file, import_custom_modules=False)
    except Exception as error:  # a config is Python code, which can raise anything
        raise MixDetError(f"{path}: cannot be read as a config: {one_line(error)}") from error
    _merge(cfg, cfg_options)
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
) -> Config:
    """Read a config as `read_config` does, and apply the options that training and testing share.

    Args:
        path: As for `read_config`.
        cfg_options: As for `read_config`.
        work_dir: The work folder. By default it is `work_dir` in the config, or
            `work_dirs/<config>`.
        data_root: Another folder, in the same layout, for all data sets and metrics.

    Raises:
        MixDetError: The config cannot be read, or an option does not fit it.
    """
    cfg = read_config(path, cfg_options)
    init_default_scope(cfg.get("default_scope", "mmdet"))
    hooks = cfg.get("default_hooks") or {}
    for name in [name for name, hook in hooks.items() if hook is None]:
        if name not in DEFAULT_HOOKS:
            del hooks[name]
    cfg.work_dir = work_dir or cfg.get("work_dir") or str(Path("work_dirs", Path(path).stem))
    if data_root is not None:
        set_data_root(cfg, data_root)
    return cfg


def require(config: str, cfg: Config, *keys: str) -> None:
    """Check that a config has the keys that a run needs.

    Raises:
        MixDetError: The config lacks a key.
    """
    missing = [key for key in keys if cfg.get(key) is None]
    if missing:
        raise MixDetError(f"{config}: it lacks {', '.join(missing)}, which the run needs: add it")


def _merge(cfg: Config, options: Sequence[str]) -> None:
    malformed = next((option for option in options if "=" not in option), None)
    if malformed is not None:
        raise MixDetError(f"--cfg-options {malformed}: give it as key=value")
    if options:
        _check_keys(cfg, options)
        parser = argparse.ArgumentParser()
        parser.add_argument("--cfg-options", nargs="+", action=DictAction)
        try:
            cfg.merge_from_dict(parser.parse_args(["--cfg-options", *options]).cfg_options)
        except (KeyError, TypeError, AssertionError, IndexError) as error:
            raise MixDetError(f"--cfg-options do not fit the config: {one_line(error)}") from error


def _check_keys(cfg: Config, options: Sequence[str]) -> None:
    """Refuse a key that has no effect: a misspelled key, or `data_root`.

    `data_root` has no effect because each data set got a copy of it when the config was read.

    Raises:
        MixDetError: An option has such a key.
    """
    known = {*cfg, *inspect.signature(Runner).parameters, *KEYS_BESIDE_RUNNER} - {"cfg"}
    for option in options:
        key = option.partition("=")[0].partition(".")[0]
        if key == "data_root":
            raise MixDetError(
                "--cfg-options data_root does not change the data sets: use --data-root"
            )
        hint = None if key in known else did_you_mean(key, known, cutoff=0.8)
        if hint:
            raise MixDetError(f"--cfg-options {key}: the config has no such key; {hint}")
