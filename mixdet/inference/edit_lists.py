"""Read the length of an MP4's video from its edit list, which can cut the video.

OpenCV ignores edit lists.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


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
        if media_time != b"\xff" * width:  # -1 is a pause
            total += int.from_bytes(edits[start : start + width], "big")
    return total


def _boxes(file: BinaryIO, start: int, end: int) -> Iterator[tuple[bytes, tuple[int, int]]]:
    """Yield (kind, (start, end)) of the content of each MP4 box between two positions."""
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


def _read(file: BinaryIO, start: int, end: int) -> bytes:
    file.seek(start)
    return file.read(min(end - start, 2**20))


def _size(file: BinaryIO) -> int:
    return os.fstat(file.fileno()).st_size
