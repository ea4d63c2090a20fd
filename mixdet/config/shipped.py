"""Configs and tools that come with the package, with a checkout beside it or without."""

from __future__ import annotations

import os
from pathlib import Path

from mixdet.errors import MixDetError, did_you_mean

PACKAGE = Path(__file__).parents[1]


def shipped(folder: str) -> Path:
    """A folder of the repository: in an installation below `.mim`, where OpenMMLab's mim looks.

    Args:
        folder: `configs` or `tools`.
    """
    installed = PACKAGE / ".mim" / folder
    return installed if installed.is_dir() else PACKAGE.parent / folder


def config_names() -> dict[str, Path]:
    """The shipped configs that can be trained, by their bare names."""
    files = sorted(shipped("configs").rglob("*.py"))
    return {file.stem: file for file in files if "_base_" not in file.parts}


def find_config(path: str | os.PathLike) -> Path:
    """The file of a config: the path itself, or a shipped config's bare name.

    `configs/NAME.py`, as the documents write it, is found without a checkout too.

    Raises:
        MixDetError: There is neither.
    """
    given = Path(path)
    if given.is_file():
        return given
    names = config_names()
    if given.stem in names and (given.parent == Path() or given.parts[0] == "configs"):
        return names[given.stem]
    hint = did_you_mean(given.stem, names) or "`mixdet configs` lists those with a name"
    raise MixDetError(f"{path}: no such config file; {hint}")
