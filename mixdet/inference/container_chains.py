"""Check video containers that are a chain of elements. Each element states its size.

Each check returns `CUT` if the file ends too early, `HOLE` if data in its middle are missing or
overwritten, and None if the chain is complete.
"""

from __future__ import annotations

import mmap
import re
import zlib
from collections import Counter
from collections.abc import Callable

CUT, HOLE = "cut", "hole"

# An element ends where the next one begins. An end beyond the file means that the file was cut.
# None means that the bytes at a position are no element
ElementEnd = Callable[[int], int | None]

MAX_PADDING = 4096  # zeros after the last element, or between two packs of a program stream

SEGMENT, CLUSTER = 0x18538067, 0x1F43B675  # the elements of Matroska that hold frames
ASF_FILE_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
PACK = b"\0\0\1\xba"  # starts a pack of an MPEG program stream
STUFFING = re.compile(rb"\0{1,%d}(?=\0\0\x01[\xb9-\xff])" % MAX_PADDING)
FOUR_LETTERS = re.compile(rb"[\w ]{4}")  # the kind of a chunk or a box
MXF_KEY = b"\x06\x0e\x2b\x34"
REVERSED_BITS = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def _follow(
    content: mmap.mmap, start: int, element_end: ElementEnd, mark: bytes = b""
) -> str | None:
    """Follow the elements from a position to the end of the file.

    Args:
        content: The file.
        start: Position of the first element.
        element_end: Returns the end of the element at a position.
        mark: The bytes that start an element, if they are known. If they do not occur after a
            broken element, the result is `CUT`. Without `mark`, it is `HOLE`.
    """
    position = start
    while position < len(content):
        end = element_end(position)
        if end is None:
            rest = content[position : position + MAX_PADDING + 1]
            if len(rest) <= MAX_PADDING and not rest.strip(b"\0"):
                return None
            return HOLE if content.find(mark, position + 1) >= 0 else CUT
        if end > len(content):
            return CUT
        position = end
    return None


def check_avi(content: mmap.mmap) -> str | None:
    chunks: Counter[bytes] = Counter()
    streams: list[int | None] = []  # the number of chunks that a video stream states

    def chunk_end(position: int) -> int | None:
        kind, size = content[position : position + 4], _little(content, position + 4, 4)
        if not FOUR_LETTERS.fullmatch(kind):
            return None
        if kind in (b"RIFF", b"LIST"):
            return position + 12  # its chunks follow
        if kind == b"strh":
            is_video = content[position + 8 : position + 12] == b"vids"
            streams.append(_little(content, position + 40, 4) if is_video else None)
        chunks[kind] += 1
        return position + 8 + size + size % 2

    damage = _follow(content, 0, chunk_end)
    for number, stated in enumerate(streams):
        stored = chunks[b"%02ddc" % number] + chunks[b"%02ddb" % number]
        if damage is None and stated and stored and stored < stated:
            damage = CUT  # the file was cut between two chunks
    return damage


def check_matroska(content: mmap.mmap) -> str | None:
    def element_end(position: int) -> int | None:
        kind, position = _vint(content, position, keep_marker=True)
        size, position = _vint(content, position)
        if kind is None or size is None:
            return None
        if kind in (SEGMENT, CLUSTER):  # its elements follow
            is_whole = size == -1 or position + size <= len(content)
            return position if is_whole else position + size
        return None if size == -1 else position + size

    return _follow(content, 0, element_end)


def _vint(content: mmap.mmap, position: int, keep_marker: bool = False) -> tuple[int | None, int]:
    """Read a number of variable length.

    Returns:
        The number and the position after it. The number is None if the bytes are no number, and -1
        if they say that the size is unknown.
    """
    length = 9 - content[position].bit_length()
    value = _big(content, position, length)
    if length > (4 if keep_marker else 8):
        return None, position
    if keep_marker:
        return value, position + length
    value -= 1 << 7 * length
    return -1 if value == (1 << 7 * length) - 1 else value, position + length


def check_asf(content: mmap.mmap) -> str | None:
    """Check the data packets, which have equal sizes, and the numbers of the objects in them."""
    properties = content.find(ASF_FILE_PROPERTIES, 0, 2**16)
    header = _little(content, 16, 8)
    first, stated = header + 50, _little(content, header + 40, 8)
    size = _little(content, properties + 92, 4) if properties > 0 else 0
    if not size or first >= len(content):
        return CUT
    complete = (len(content) - first) // size
    if content[properties + 88] & 1:  # a live recording does not state the number of its packets
        stated = complete
    if complete < stated:
        return CUT
    parts: dict[int, tuple[int, int, int]] = {}
    packets = range(first, first + stated * size, size)
    return None if all(_asf_continues(content, at, size, parts) for at in packets) else HOLE


def _asf_continues(
    content: mmap.mmap, start: int, size: int, parts: dict[int, tuple[int, int, int]]
) -> bool:
    """Tell whether a data packet of ASF continues the objects of the packets before it.

    For each stream, `parts` has the number of the last object, the number of bytes of this object
    so far, and its size.
    """
    position = start

    def number(code: int) -> int:
        """Read the number at the position. The last two bits of `code` state its width."""
        nonlocal position
        width = (0, 1, 2, 4)[code & 3]
        position += width
        return _little(content, position - width, width)

    if content[position] & 0x80:  # data for the correction of errors
        position += 1 + (content[position] & 0xF)
    lengths, properties = content[position], content[position + 1]
    position += 2
    number(lengths >> 5)
    number(lengths >> 1)
    end = start + size - number(lengths >> 3)
    position += 6  # the time
    payloads = content[position] if lengths & 1 else 1
    position += lengths & 1
    for _ in range(payloads & 0x3F):
        stream = number(1) & 0x7F
        object_number, offset = number(properties >> 4), number(properties >> 2)
        extra = number(properties)
        whole = _little(content, position, 4)
        position += extra
        length = number(payloads >> 6) if lengths & 1 else end - position
        position += length
        if position > end or length <= 0:
            return False
        if extra == 1:  # several small objects
            parts.pop(stream, None)
            continue
        last, done, all_of_it = parts.get(stream, (object_number, offset, 0))
        begins = done == all_of_it and (object_number - last) % 256 == 1 and offset == 0
        if stream in parts and not begins and (object_number, offset) != (last, done):
            return False
        parts[stream] = object_number, offset + length, whole
    return True


def check_flv(content: mmap.mmap) -> str | None:
    first = _big(content, 5, 4) + 4
    # The size of a tag is repeated after the tag, but some programs omit this repetition
    size = 11 + _big(content, first + 1, 3)
    repeats = _big(content, first + size, 4) == size

    def tag_end(position: int) -> int | None:
        is_tag = content[position] & 0x1F in (8, 9, 18)  # sound, video, metadata
        if not is_tag or content[position + 8 : position + 11] != b"\0\0\0":
            return None
        size = 11 + _big(content, position + 1, 3)
        end = position + size + 4
        is_whole = not repeats or end > len(content) or _big(content, end - 4, 4) == size
        return end if is_whole else None

    return _follow(content, first, tag_end)


def check_ogg(content: mmap.mmap) -> str | None:
    pages: dict[int, int] = {}  # the number of the last page of each stream

    def page_end(position: int) -> int | None:
        if content[position : position + 4] != b"OggS":
            return None
        flags, stream = content[position + 5], _little(content, position + 14, 4)
        page = _little(content, position + 18, 4)
        starts = flags & 2 or stream not in pages
        if not starts and page > pages[stream] + 1:
            return None
        pages[stream] = page
        table = position + 27
        data = table + content[position + 26]
        end = data + sum(content[table:data])
        return end if end > len(content) or _has_ogg_checksum(content[position:end]) else None

    return _follow(content, 0, page_end, b"OggS")


def _has_ogg_checksum(page: bytes) -> bool:
    """Check the checksum of a page: a CRC-32 with the bits in the opposite order of zlib's."""
    blank = page[:22] + bytes(4) + page[26:]
    crc = ~zlib.crc32(blank.translate(REVERSED_BITS), 0xFFFFFFFF) & 0xFFFFFFFF
    return crc.to_bytes(4, "big").translate(REVERSED_BITS) == page[22:26]


def check_mxf(content: mmap.mmap) -> str | None:
    def item_end(position: int) -> int | None:
        if content[position : position + 4] != MXF_KEY:
            return None
        size, data = content[position + 16], position + 17
        if size >= 128:  # the size is in the next `size - 128` bytes
            data, size = data + size - 128, _big(content, data, size - 128)
        return data + size

    return _follow(content, 0, item_end, MXF_KEY)


def check_fragments(content: mmap.mmap) -> str | None:
    """Check the boxes of a fragmented MP4, such as a recording that may end at any time."""

    def box_end(position: int) -> int | None:
        size, kind = _big(content, position, 4), position + 4
        if not FOUR_LETTERS.fullmatch(content[kind : kind + 4]):
            return None
        if size == 1:
            size = _big(content, position + 8, 8)
        if content[kind : kind + 4] in (b"moof", b"traf"):
            return position + 8  # its boxes follow
        if size == 0:
            return len(content)
        return position + size if size >= 8 else None

    return _follow(content, 0, box_end, b"moof")


def check_program_stream(content: mmap.mmap) -> str | None:
    def packet_end(position: int) -> int | None:
        if content[position : position + 3] != b"\0\0\1" or content[position + 3] < 0xB9:
            stuffing = STUFFING.match(content, position)
            return stuffing.end() if stuffing else None
        kind = content[position + 3]
        if kind == 0xB9:  # the end of the program
            return position + 4
        if kind == 0xBA:
            is_mpeg2 = content[position + 4] >> 6 == 1
            return position + (14 + (content[position + 13] & 7) if is_mpeg2 else 12)
        return position + 6 + _big(content, position + 4, 2)

    return _follow(content, content.find(PACK), packet_end, PACK)


def _big(content: mmap.mmap, position: int, length: int) -> int:
    return int.from_bytes(content[position : position + length], "big")


def _little(content: mmap.mmap, position: int, length: int) -> int:
    return int.from_bytes(content[position : position + length], "little")
