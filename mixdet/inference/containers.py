"""Tell what a video file is, and whether its structure shows that parts of it are missing.

FFmpeg, which reads videos for OpenCV, passes over damaged parts without an error.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from pathlib import Path

from mixdet.inference.container_chains import (
    CUT,
    MXF_KEY,
    PACK,
    check_asf,
    check_avi,
    check_flv,
    check_fragments,
    check_matroska,
    check_mxf,
    check_ogg,
    check_program_stream,
)
from mixdet.inference.transport_streams import check_transport_stream, transport_layout

CHECKS: dict[str, Callable[[mmap.mmap], str | None]] = {
    "asf": check_asf,
    "avi": check_avi,
    "flv": check_flv,
    "fragments": check_fragments,
    "matroska": check_matroska,
    "mpegps": check_program_stream,
    "mpegts": check_transport_stream,
    "mxf": check_mxf,
    "ogg": check_ogg,
}


def container_kind(path: str | os.PathLike) -> str | None:
    """Return the kind of a video file by its first bytes.

    Returns:
        'mp4', 'fragments' for an MP4 in fragments, or a key of `CHECKS`. None for any other file.
    """
    with Path(path).open("rb") as file:
        start = file.read(2**14)
    for mark, place, kind in (
        (b"AVI ", 8, "avi"),
        (b"\x1a\x45\xdf\xa3", 0, "matroska"),
        (bytes.fromhex("3026b2758e66cf11"), 0, "asf"),
        (b"FLV\1", 0, "flv"),
        (b"OggS", 0, "ogg"),
        (MXF_KEY, 0, "mxf"),
    ):
        if start.startswith(mark, place):
            return kind
    if start[4:8] in (b"ftyp", b"mdat", b"moov", b"wide", b"free", b"skip"):
        return "fragments" if b"mvex" in start else "mp4"
    if transport_layout(start):
        return "mpegts"
    return "mpegps" if PACK in start[:4096] else None


def find_damage(path: str | os.PathLike, kind: str) -> str | None:
    """Tell whether a part of a video file is missing.

    Args:
        path: The file.
        kind: The container, a key of `CHECKS`.

    Returns:
        `CUT` if the file ends too early, `HOLE` if a part in its middle is missing or overwritten.
        None if the structure of the file is whole. A part that is missing inside an element is not
        found.
    """
    with (
        Path(path).open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
    ):
        try:
            return CHECKS[kind](content)
        except IndexError:  # an element ends before its header does
            return CUT
