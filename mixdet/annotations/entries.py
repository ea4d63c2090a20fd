"""The annotations of a file as dicts with all their fields, such as polygons."""

from __future__ import annotations

import json
import mmap
import os
import pickle
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import msgspec
import numpy as np

from mixdet.errors import MixDetError

Content = bytes | mmap.mmap
FREE_EVERY = 2**14  # annotations


class Entries(Protocol):
    """Reads single annotations of a file."""

    def read(self, indices: Iterable[int]) -> list[dict[str, Any]]:
        """Return the annotations with these indices, as Python's `json` reads them."""


class FileEntries:
    """Annotations that stay in their file until they are asked for.

    The first request reads the whole file once, to find out where each annotation is.

    Args:
        path: The file.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = path
        self.state = file_state(path)

    def read(self, indices: Iterable[int]) -> list[dict[str, Any]]:
        """Return the annotations with these indices.

        Raises:
            MixDetError: The file has changed since it was read first.
        """
        entries = []
        try:
            starts, lengths = self._spans
            with Path(self.path).open("rb") as file:
                unchanged = file_state(file.fileno()) == self.state
                for index in indices if unchanged else ():
                    file.seek(starts[index])
                    entries.append(json.loads(file.read(lengths[index])))
        except (OSError, ValueError, msgspec.MsgspecError) as error:
            raise MixDetError(f"{self.path}: cannot be read again ({error})") from error
        if not unchanged:
            raise MixDetError(f"{self.path} was changed while it was in use: start again")
        return entries

    @cached_property
    def _spans(self) -> tuple[np.ndarray, np.ndarray]:
        with mapped(self.path) as content:
            return find_spans(content)


class StoredEntries:
    """Annotations that are kept in memory as pickles, which the workers of a data loader share.

    Args:
        entries: The annotations.
    """

    def __init__(self, entries: Sequence[dict]) -> None:
        parts = [pickle.dumps(entry) for entry in entries]
        self._ends = np.cumsum([len(part) for part in parts], dtype=np.int64)
        self._content = b"".join(parts)

    def read(self, indices: Iterable[int]) -> list[dict[str, Any]]:
        """Return the annotations with these indices."""
        starts = (self._ends[index - 1] if index else 0 for index in indices)
        return [pickle.loads(memoryview(self._content)[start:]) for start in starts]


class TextEntries:
    """Annotations of a file that is kept in memory as text, since the file itself is temporary.

    Args:
        content: The content of the file.
    """

    def __init__(self, content: bytes) -> None:
        self._content = content

    def read(self, indices: Iterable[int]) -> list[dict[str, Any]]:
        """Return the annotations with these indices."""
        starts, lengths = self._spans
        spans = ((starts[index], starts[index] + lengths[index]) for index in indices)
        return [json.loads(self._content[start:end]) for start, end in spans]

    @cached_property
    def _spans(self) -> tuple[np.ndarray, np.ndarray]:
        return find_spans(self._content)


class _RawAnnotations(msgspec.Struct):
    annotations: list[msgspec.Raw] | None = None


def find_spans(content: Content) -> tuple[np.ndarray, np.ndarray]:
    """Return the first byte (n,) and the length in bytes (n,) of each annotation in a file."""
    raw = msgspec.json.decode(content, type=_RawAnnotations).annotations or []
    lengths = np.fromiter((len(memoryview(entry)) for entry in raw), np.int64, len(raw))
    base = np.frombuffer(content, np.uint8).ctypes.data
    start = np.frombuffer(raw[0], np.uint8).ctypes.data - base if raw else 0
    starts = np.empty(len(raw), np.int64)
    for index, length in enumerate(lengths.tolist()):
        start = content.find(b"{", start)  # only a comma and spaces can come before it
        starts[index] = start
        start += length
    return starts, lengths


def file_state(file: str | os.PathLike | int) -> tuple[int, ...]:
    """Return numbers that change when a file is changed or replaced."""
    status = os.fstat(file) if isinstance(file, int) else Path(file).stat()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


@contextmanager
def mapped(path: str | os.PathLike) -> Iterator[Content]:
    """Map a file, whose pages the operating system reads when they are needed.

    Empty files and those of some file systems cannot be mapped. Their bytes are read.
    """
    with Path(path).open("rb") as file:
        try:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError):
            content = file.read()
    try:
        yield content
    finally:
        release(content)


def release(content: Content) -> None:
    """Remove the pages of a mapped file from the memory of this process. They stay readable."""
    if hasattr(mmap, "MADV_DONTNEED") and isinstance(content, mmap.mmap):
        content.madvise(mmap.MADV_DONTNEED)
