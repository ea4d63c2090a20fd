"""Write each prediction of a run at once, and the list of all predictions at the end."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from mixdet.errors import MixDetError
from mixdet.outputs import writable_folder, write_atomically

# Errors after which no other file can be written either: disk full, quota used up, disk broken
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)


class DiskError(MixDetError):
    """No further file can be written, for example because the disk is full."""


def write_error(path: str | os.PathLike, error: OSError) -> MixDetError:
    """Return the error to raise for a file that cannot be written."""
    full = error.errno in DISK_ERRORS
    remedy = "free some space or choose another --out" if full else "choose another --out"
    message = f"{path} cannot be written ({error.strerror}): {remedy}"
    return DiskError(message) if full else MixDetError(message)


class ResultFiles:
    """The two files of a run in a folder.

    `predictions.jsonl` has one entry per line. A line is in the file as soon as `add` returns, so
    an error cannot lose it. `predictions.json` is the list of these entries.

    Attributes:
        entries: The entries so far.
        path: The file with the entries: `predictions.jsonl`, or `predictions.json` after `finish`.

    Args:
        folder: The folder. Files of an earlier run are replaced.

    Raises:
        MixDetError: The files cannot be written.
    """

    def __init__(self, folder: str | os.PathLike) -> None:
        folder = writable_folder("--out", folder)
        self.entries: list[dict[str, Any]] = []
        self.path = folder / "predictions.jsonl"
        self._list_path = folder / "predictions.json"
        if self._list_path.is_dir():
            raise MixDetError(f"{self._list_path} is a folder: choose another --out")
        try:
            self._lines = self.path.open("wb", buffering=0)
        except OSError as error:
            raise write_error(self.path, error) from error

    def add(self, entry: dict[str, Any]) -> None:
        """Write an entry.

        Raises:
            DiskError: The entry cannot be written, for example because the disk is full.
        """
        line_start = self._lines.tell()
        line = json.dumps(entry).encode() + b"\n"
        try:
            while line:  # on a disk that is nearly full, a part of the line is written
                line = line[self._lines.write(line) :]
        except OSError as error:
            with suppress(OSError):
                self._lines.truncate(line_start)
            raise DiskError(str(write_error(self.path, error))) from error
        self.entries.append(entry)

    def finish(self) -> None:
        """Write `predictions.json`.

        Raises:
            MixDetError: The file cannot be written.
        """
        self._lines.close()
        lines = ",\n".join(map(json.dumps, self.entries))
        write_atomically(self._list_path, f"[\n{lines}\n]\n".encode())
        self.path = self._list_path

    def __str__(self) -> str:
        count = len(self.entries)
        images = f"{count} image{'s' * (count != 1)}"
        return f"the results of {images} are in {self.path}" if count else "no image is done"


@contextmanager
def result_files(folder: str | os.PathLike) -> Iterator[ResultFiles]:
    """Open the files of a run, and finish them, also if an error ends the run.

    The name of the file with the results is added to this error's message. An `OSError` or a lack
    of memory becomes a `MixDetError`.
    """
    results = ResultFiles(folder)
    try:
        yield results
    except BaseException as error:
        with suppress(MixDetError):
            results.finish()
        if isinstance(error, KeyboardInterrupt):
            raise KeyboardInterrupt(str(results)) from error
        if isinstance(error, MixDetError):
            raise MixDetError(f"{error} ({results})") from error
        if isinstance(error, OSError):
            where = f"{error.filename}: " if error.filename else ""
            raise MixDetError(f"{where}{error.strerror or error} ({results})") from error
        if _is_out_of_memory(error):
            raise MixDetError(
                f"the memory is used up: use a smaller --batch-size ({results})"
            ) from error
        error.add_note(str(results))
        raise
    try:
        results.finish()
    except MixDetError as error:
        raise MixDetError(f"{error} ({results})") from error


def _is_out_of_memory(error: BaseException) -> bool:
    """Tell whether memory ran out, in Python, in torch, in OpenCV or in a runtime."""
    words = ("out of memory", "insufficient memory", "failed to allocate", "bad allocation")
    return isinstance(error, MemoryError) or any(word in str(error).lower() for word in words)
