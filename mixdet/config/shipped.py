"""Find the configs and tools of the package, in a checkout or in an installation."""

from __future__ import annotations

import os
from pathlib import Path

from mixdet.errors import MixDetError, did_you_mean

__all__ = ["config_names", "find_config"]

PACKAGE = Path(__file__).parents[1]


def shipped_folder(folder: str) -> Path:
    """Return the path of `configs` or `tools`.

    In an installation the folder is in `mixdet/.mim`, where OpenMMLab's mim looks for it.

    Args:
        folder: `configs` or `tools`.
    """
    installed = PACKAGE / ".mim" / folder
    return installed if installed.is_dir() else PACKAGE.parent / folder


def config_names() -> dict[str, Path]:
    """Return the files of the shipped configs that can be trained, by file name without `.py`."""
    files = sorted(shipped_folder("configs").rglob("*.py"))
    return {file.stem: file for file in files if "_base_" not in file.parts}


def find_config(path: str | os.PathLike) -> Path:
    """Find the file of a config.

    Args:
        path: Path of the config, or the bare name of a shipped config. In an installation without a
            checkout, the path `configs/NAME.py` also finds the shipped config.

    Raises:
        MixDetError: There is no such file and no such shipped config.
    """
    file = Path(path)
    if file.is_file():
        return file
    names = config_names()
    if file.stem in names and (file.parent == Path() or file.parts[0] == "configs"):
        return names[file.stem]
    hint = did_you_mean(file.stem, names) or "`mixdet configs` lists the shipped configs"
    raise MixDetError(f"{path}: no such config file; {hint}")
