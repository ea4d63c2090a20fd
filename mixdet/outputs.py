"""Check output files and folders before a long run, and write files completely or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from mixdet.errors import MixDetError


def writable_file(option: str, path: str | os.PathLike) -> Path:
    """Check that a file can be written; create it and its folder if they are missing.

    Args:
        option: The option that names the file, such as `--out`. The error message states it.
        path: The file.

    Raises:
        MixDetError: The file cannot be written.
    """
    file = Path(path)
    writable_folder(option, file.parent)
    try:
        with file.open("ab"):
            return file
    except OSError as error:
        raise MixDetError(
            f"{option} {path}: {error.strerror}: choose a file that can be written"
        ) from error


def writable_folder(option: str, path: str | os.PathLike) -> Path:
    """Check that files can be written into a folder; create it if it is missing.

    Args:
        option: The option that names the folder, such as `--work-dir`. The error message states it.
        path: The folder.

    Raises:
        MixDetError: The folder cannot be created, or no file can be written into it.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MixDetError(
            f"{option} {path}: {error.strerror}: choose a folder that can be created"
        ) from error
    if not os.access(folder, os.W_OK):
        raise MixDetError(f"{option} {path}: no permission to write there: choose another folder")
    return folder


def write_atomically(path: str | os.PathLike, content: bytes) -> None:
    """Write a file completely or not at all, even if the power fails meanwhile.

    The content is first written to `.NAME.part` in the same folder, and this file is then renamed.
    A run that is killed may leave a `.NAME.part`, which the next write of the same file replaces.
    The folder is created if it is missing.

    Raises:
        MixDetError: The file cannot be written, for example because the disk is full.
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
                f"{path} cannot be written ({error.strerror}): free some space or name another "
                "folder; an earlier file of this name is unchanged"
            ) from error
        raise
