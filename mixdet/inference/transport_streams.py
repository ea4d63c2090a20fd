"""Check the packets of MPEG transport streams. All packets have one size, and are numbered."""

from __future__ import annotations

import mmap

import numpy as np

from mixdet.inference.container_chains import CUT, HOLE, MAX_PADDING

PACKET = 188  # bytes of a packet, which starts with `G`
# Bytes from one packet to the next. M2TS puts 4 bytes before each packet, and DVB 16 bytes after it
STEPS = (PACKET, 192, 204)
NULL_STREAM = 0x1FFF  # packets without content, and without numbers


def transport_layout(start: bytes) -> tuple[int, int] | None:
    """Return where the packets of an MPEG transport stream are.

    Args:
        start: The first bytes of a file. A recording can begin inside a packet.

    Returns:
        The position of the first packet, and the bytes from one packet to the next. None if the
        file is no transport stream.
    """
    for first in range(min(len(start), 4096)):
        if start[first] != ord("G"):
            continue
        for step in STEPS:
            marks, others = start[first::step][:8], start[first + 1 :: step][:8]
            # In an uncompressed video, neighboring bytes can all be `G`, so other bytes must differ
            if len(marks) >= 5 and set(marks) == {ord("G")} != set(others):
                return first, step
    return None


def check_transport_stream(content: mmap.mmap) -> str | None:
    """Check that the packets are complete, and that no number of a packet is left out."""
    first, step = transport_layout(content[: 2**14])
    count = (len(content) - first) // step
    packets = np.frombuffer(content, np.uint8, count * step, first).reshape(count, step)
    head = packets[:, :6].copy()
    is_packet = head[:, 0] == ord("G")
    if not is_packet.all():
        last = np.flatnonzero(is_packet)[-1]
        if (count - 1 - last) * step > MAX_PADDING:
            return CUT
        if not is_packet[: last + 1].all():
            return HOLE
        head = head[: last + 1]  # padding follows
    elif (len(content) - first) % step not in (0, PACKET):
        return CUT
    stream = (head[:, 1] & 0x1F).astype(int) << 8 | head[:, 2]
    has_field = (head[:, 3] & 0x20 > 0) & (head[:, 4] > 0)
    flags = np.cumsum(has_field & (head[:, 5] & 0x80 > 0))
    for number in set(np.unique(stream)) - {NULL_STREAM}:
        places = np.flatnonzero((stream == number) & (head[:, 3] & 0x10 > 0))
        if _loses_packets(packets[places], flags[places]):
            return HOLE
    return None


def _loses_packets(packets: np.ndarray, flags: np.ndarray) -> bool:
    """Tell whether packets of one stream, such as the video, are missing.

    The 4-bit number of a packet is that of the packet before it plus one. A packet may be sent
    twice. Where a recording was edited, a flag near the place says that numbers may be left out.

    Args:
        packets: The packets of the stream that have content.
        flags: For each packet, the number of flags in the file up to it.
    """
    steps = np.diff(packets[:, 3] & 0xF) % 16
    repeated = np.flatnonzero(steps == 0)
    ends = packets[:, PACKET // 2 : PACKET]
    differs = (ends[repeated] != ends[repeated + 1]).any(1)  # it is another packet
    jumps = np.concatenate([np.flatnonzero(steps > 1), repeated[differs]])
    return bool((flags[np.minimum(jumps + 2, len(flags) - 1)] == flags[jumps]).any())
