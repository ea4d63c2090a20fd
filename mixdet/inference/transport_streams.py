"""Check the packets of MPEG transport streams. All packets have one size, and are numbered."""

from __future__ import annotations

import mmap

import numpy as np

from mixdet.inference.container_chains import CUT, HOLE, MAX_PADDING

PACKET = 188  # bytes of a packet, which starts with `G`
# Bytes from one packet to the next. M2TS puts 4 bytes before each packet, and DVB 16 bytes after it
STEPS = (PACKET, 192, 204)


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
    """Check that the packets are complete, and that no packet of the video is missing."""
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
        head, is_packet = head[: last + 1], is_packet[: last + 1]
    elif (len(content) - first) % step not in (0, PACKET):
        return CUT
    program = (head[:, 1] & 0x1F).astype(int) << 8 | head[:, 2]
    for video in np.unique(program[_starts_video(packets[: len(head)], head)]):
        if _loses_packets(packets, head, program == video):
            return HOLE
    return None


def _starts_video(packets: np.ndarray, head: np.ndarray) -> np.ndarray:
    """Return the indices of the transport packets in which a packet of video data starts."""
    starts = np.flatnonzero(head[:, 1] & 0x40)
    has_field = (head[starts, 3] & 0x20) > 0
    data = np.where(has_field, 5 + head[starts, 4].astype(int), 4)
    starts, data = starts[data <= PACKET - 4], data[data <= PACKET - 4]
    code = packets[starts[:, None], data[:, None] + np.arange(4)]
    return starts[(code[:, :3] == (0, 0, 1)).all(1) & (code[:, 3] >> 4 == 0xE)]


def _loses_packets(packets: np.ndarray, head: np.ndarray, is_video: np.ndarray) -> bool:
    """Tell whether numbers are missing in the packets of a video.

    The 4-bit number of a packet is one more than the number of the packet before. A flag marks the
    exceptions. A packet may be sent twice.
    """
    may_jump = is_video & (head[:, 3] & 0x20 > 0) & (head[:, 4] > 0) & (head[:, 5] & 0x80 > 0)
    places = np.flatnonzero(is_video & (head[:, 3] & 0x10 > 0))
    steps = np.diff(head[places, 3] & 0xF) % 16
    repeated = np.flatnonzero(steps == 0)
    pairs = packets[places[np.stack([repeated, repeated + 1])], PACKET // 2 : PACKET]
    others = repeated[(pairs[0] != pairs[1]).any(1)]
    jumps = steps > 1
    jumps[others] = True  # packets with equal numbers, but different content
    flagged = np.diff(np.cumsum(may_jump)[places]) > 0
    return bool((jumps & ~flagged).any())
