"""Outputs are tried before the work that fills them, not after it."""

from __future__ import annotations

import os
from pathlib import Path

from mixdet.errors import MixDetError


def writable_file(option: str, path: str | os.PathLike) -> Path:
    """Make the folder of a file, and the file where it is missing.

    Args:
        option: What the user calls it, such as `--out`.
        path: The file.

    Raises:
        MixDetError: It cannot be written.
    """
    file = Path(path)
    writable_folder(option, file.parent)
    try:
        with file.open("ab"):
            return file
    except OSError as error:
        raise MixDetError(f"{option} {path}: {error.strerror}") from error


def writable_folder(option: str, path: str | os.PathLike) -> Path:
    """Make a folder where it is missing.

    Args:
        option: What the user calls it, such as `--work-dir`.
        path: The folder.

    Raises:
        MixDetError: It cannot be made, or nothing can be written into it.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MixDetError(f"{option} {path}: {error.strerror}") from error
    if not os.access(folder, os.W_OK):
        raise MixDetError(f"{option} {path}: nothing can be written there")
    return folder
