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


def write_atomically(path: str | os.PathLike, content: bytes) -> None:
    """Write a file so that its name never stands for a part of it, not even after a power cut.

    The folder is made where it is missing. What a killed run leaves is `.NAME.part`, which the next
    write of the same file replaces.

    Raises:
        MixDetError: The disk is full, or refuses otherwise.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException as error:
        part.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise MixDetError(
                f"{path} cannot be written ({error.strerror}); what stood there before is whole"
            ) from error
        raise
