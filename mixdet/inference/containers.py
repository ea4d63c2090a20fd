"""Find out from the structure of a video file where its video ends.

OpenCV reports the length of the longest track. It ignores edit lists, which can cut a track.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

SEGMENT, CLUSTER = 0x18538067, 0x1F43B675  # elements of Matroska that hold the frames


def container_kind(path: str | os.PathLike) -> str | None:
    """Return 'avi', 'matroska' or 'mp4' by the first bytes of a file. None for any other file."""
    with Path(path).open("rb") as file:
        start = file.read(8)
    if start.startswith(b"RIFF"):
        return "avi"
    if start.startswith(b"\x1a\x45\xdf\xa3"):
        return "matroska"
    return "mp4" if start[4:] in (b"ftyp", b"mdat", b"moov", b"wide", b"free", b"skip") else None


def mp4_edited_seconds(path: str | os.PathLike) -> float:
    """Return the length of the video of an MP4 or QuickTime file, as its edit list states.

    Returns:
        Seconds. Infinity if the video has no edit list.
    """
    try:
        with Path(path).open("rb") as file:
            movie = dict(_boxes(file, 0, _size(file)))[b"moov"]
            header = _read(file, *dict(_boxes(file, *movie))[b"mvhd"])
            scale = int.from_bytes(header[20:24] if header[0] else header[12:16], "big")
            for kind, place in _boxes(file, *movie):
                track = dict(_boxes(file, *place)) if kind == b"trak" else {}
                if b"edts" in track and _is_video(file, track):
                    edits = _read(file, *dict(_boxes(file, *track[b"edts"]))[b"elst"])
                    return _edited(edits) / scale or math.inf
    except (KeyError, IndexError, ZeroDivisionError):
        pass  # the file is damaged
    return math.inf


def _is_video(file: BinaryIO, track: dict[bytes, tuple[int, int]]) -> bool:
    media = dict(_boxes(file, *track[b"mdia"]))
    return _read(file, *media[b"hdlr"])[8:12] == b"vide"


def _edited(edits: bytes) -> int:
    """Return the sum of the lengths in an edit list, without its pauses."""
    width = 8 if edits[0] else 4
    total = 0
    for start in range(8, len(edits) - 2 * width, 2 * width + 4):
        media_time = edits[start + width : start + 2 * width]
        if media_time != b"\xff" * width:  # a media time of -1 marks a pause
            total += int.from_bytes(edits[start : start + width], "big")
    return total


def _boxes(file: BinaryIO, start: int, end: int) -> Iterator[tuple[bytes, tuple[int, int]]]:
    """Yield (kind, (start, end)) of each MP4 box between two positions, without its header."""
    while start + 8 <= end:
        file.seek(start)
        header = file.read(16)
        size, kind, skip = int.from_bytes(header[:4], "big"), header[4:8], 8
        if size == 1:
            size, skip = int.from_bytes(header[8:16], "big"), 16
        if size == 0:
            size = end - start
        if size < skip:
            return
        yield kind, (start + skip, min(start + size, end))
        start += size


def is_whole_matroska(path: str | os.PathLike) -> bool:
    """Tell whether every element of a Matroska or WebM file is complete.

    Every frame is an element that states its size. If a file was cut or overwritten, an element
    ends beyond the end of the file, or an element's kind or size cannot be read.
    """
    with Path(path).open("rb") as file:
        return _elements_fit(file, _size(file))


def _elements_fit(file: BinaryIO, end: int) -> bool:
    """Follow the elements from the current position to the end of the file."""
    while file.tell() < end:
        kind, size = _vint(file, keep_marker=True), _vint(file)
        if kind is None or size is None:
            return False
        if kind in (SEGMENT, CLUSTER):
            if size != -1 and file.tell() + size > end:
                return False
            continue  # follow the elements inside
        if size == -1 or file.tell() + size > end:
            return False
        file.seek(size, os.SEEK_CUR)
    return True


def _vint(file: BinaryIO, keep_marker: bool = False) -> int | None:
    """Read a number of variable length.

    Returns:
        The number. None if the bytes are not a number, -1 if they say that the size is unknown.
    """
    first = file.read(1)
    if not first or first == b"\0":
        return None
    length = 9 - first[0].bit_length()
    data = first + file.read(length - 1)
    value = int.from_bytes(data, "big")
    if len(data) < length or (keep_marker and length > 4):
        return None
    if keep_marker:
        return value
    value -= 1 << 7 * length
    return -1 if value == (1 << 7 * length) - 1 else value


def _read(file: BinaryIO, start: int, end: int) -> bytes:
    file.seek(start)
    return file.read(min(end - start, 2**20))


def _size(file: BinaryIO) -> int:
    return os.fstat(file.fileno()).st_size
