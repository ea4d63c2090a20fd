"""The configs and tools of the package, in a checkout or in an installation without one."""

from __future__ import annotations

import os
from pathlib import Path

from mixdet.errors import MixDetError, did_you_mean

PACKAGE = Path(__file__).parents[1]


def shipped_folder(folder: str) -> Path:
    """The path of `configs` or `tools`.

    In an installation the folder is in `mixdet/.mim`, where OpenMMLab's mim looks for it.

    Args:
        folder: `configs` or `tools`.
    """
    installed = PACKAGE / ".mim" / folder
    return installed if installed.is_dir() else PACKAGE.parent / folder


def config_names() -> dict[str, Path]:
    """The files of the shipped configs that can be trained, by their bare names."""
    files = sorted(shipped_folder("configs").rglob("*.py"))
    return {file.stem: file for file in files if "_base_" not in file.parts}


def find_config(path: str | os.PathLike) -> Path:
    """Find the file of a config.

    Args:
        path: Path of the config, or the bare name of a shipped config. `configs/NAME.py`, as the
            documents write it, finds the shipped config without a checkout too.

    Raises:
        MixDetError: There is no such file and no such shipped config.
    """
    given = Path(path)
    if given.is_file():
        return given
    names = config_names()
    if given.stem in names and (given.parent == Path() or given.parts[0] == "configs"):
        return names[given.stem]
    hint = did_you_mean(given.stem, names) or "`mixdet configs` lists the shipped configs"
    raise MixDetError(f"{path}: no such config file; {hint}")
