"""Make random damaged files, and check that their readers accept them or raise `MixDetError`."""

from __future__ import annotations

import copy
import faulthandler
import json
import math
import os
import resource
import signal
import struct
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random
from typing import Any

from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from mixdet.errors import MixDetError

RUN_FILES = 5_000  # files per run of hypothesis. All files of a run stay in memory
TIMEOUT = 60  # seconds that reading one file may take
MEMORY = 600 * 2**20  # bytes by which the memory of this process may grow, for all files together
DEEP = "<deep>"  # replaced by a deep nesting in the JSON text, since `json.dumps` cannot write one

# Events of `sys.addaudithook`. The first argument of a file event is a path or a file descriptor
FILE_EVENTS = {
    "open",
    "os.listdir",
    "os.scandir",
    "os.remove",
    "os.rename",
    "os.mkdir",
    "os.truncate",
}
FORBIDDEN_EVENTS = {"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork"} | {
    "socket.connect", "socket.getaddrinfo", "pickle.find_class", "urllib.Request",
}  # fmt: skip
_events: list[tuple] | None = None
_has_audit_hook = False


def _record_event(event: str, arguments: tuple) -> None:
    if _events is not None and event in FILE_EVENTS | FORBIDDEN_EVENTS:
        _events.append((event, *arguments))


@contextmanager
def _watch_files(root: Path) -> Iterator[None]:
    """Fail after a forbidden event, or after a file event with a path outside the root.

    Files of Python modules may be read, since some libraries import modules late. After `TIMEOUT`
    seconds a signal ends the process.
    """
    global _events
    signal.setitimer(signal.ITIMER_REAL, TIMEOUT)
    _events = []
    try:
        yield
    finally:
        events, _events = _events, None
        signal.setitimer(signal.ITIMER_REAL, 0)
        for event, *arguments in events:
            assert event in FILE_EVENTS, (event, arguments)
            if not isinstance(arguments[0], int):
                path = Path(os.path.realpath(os.fsdecode(arguments[0])))
                is_code = path.suffix in (".py", ".pyc", ".so") or _is_import_folder(path)
                assert path.is_relative_to(root) or is_code, (event, arguments)


def _is_import_folder(path: Path) -> bool:
    """Return whether Python searches a folder for modules. An import lists such a folder."""
    return str(path) in map(os.path.realpath, sys.path_importer_cache)


@contextmanager
def _limit_memory() -> Iterator[None]:
    """Fail if the peak of memory grows by `MEMORY` or more. Print a traceback at a timeout."""
    global _has_audit_hook
    if not _has_audit_hook:  # an audit hook cannot be removed
        sys.addaudithook(_record_event)
        _has_audit_hook = True
    Path("/proc/self/clear_refs").write_text("5")  # reset the peak to the memory in use now
    before, limits = _peak_memory(), resource.getrlimit(resource.RLIMIT_AS)
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + 4 * 2**30, limits[1]))
    faulthandler.register(signal.SIGALRM, chain=True)  # after the traceback, the process ends
    try:
        yield
    finally:
        faulthandler.unregister(signal.SIGALRM)
        resource.setrlimit(resource.RLIMIT_AS, limits)
    grown = _peak_memory() - before
    print(f"memory grew by {grown / 2**20:.0f} MiB")
    assert grown < MEMORY


def _peak_memory() -> int:
    """Return the most memory that this process has used, in bytes."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def fuzz(
    make: Callable[[Random], bytes], file: Path, read: Callable, root: Path, count: int
) -> None:
    """Give many files to a reader. It must accept each file or refuse it with a `MixDetError`.

    Args:
        make: Returns the random content of a file.
        file: The path that each content is written to.
        read: The reader, called without arguments.
        root: The only folder whose files the reader may open.
        count: Number of files. If it is at most `RUN_FILES`, hypothesis chooses every random number
            and can shrink a file that fails. Otherwise hypothesis chooses only the seeds.
    """
    start, total, accepted = time.process_time(), 0, 0

    def read_content(content: bytes) -> None:
        nonlocal total, accepted
        total += 1
        file.write_bytes(content)
        with suppress(MixDetError), _watch_files(root):
            read()
            accepted += 1

    with _limit_memory():
        for number, first in enumerate(range(0, count, RUN_FILES)):
            rules = settings(
                max_examples=min(RUN_FILES, count - first),
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
            )
            inputs = st.randoms(use_true_random=count > RUN_FILES).map(make)
            seed(number)(rules(given(inputs)(read_content)))()
    print(f"{total:,} files, {accepted:,} accepted, {time.process_time() - start:.0f} s of CPU")
    assert total >= count
    assert 0 < accepted < total


EXTREME_VALUES = [
    None, True, False, -3, -1, 0, 1, 2, 70, 10**400, -(10**400), 2**31, 2**63, 2**64, 1e308, -0.0,
    0.5, math.nan, math.inf, -math.inf, "", ".", "..", "/", "a\0b", "\ud800", "x" * 5000, DEEP,
]  # fmt: skip


def json_file(rng: Random, content: dict, words: list[str]) -> bytes:
    """Return the bytes of a JSON file with random changes.

    Args:
        rng: Chooses the changes.
        content: The valid content.
        words: Strings to put in place of values.
    """
    content = copy.deepcopy(content)
    for _ in range(rng.choice([0, 1, 1, 1, 2, 3, 6])):
        if not (places := list(_places(content))):
            break
        node, key = rng.choice(places)
        change = rng.choice(["put", "put", "drop", "swap", "repeat", "root"])
        if change == "put":
            node[key] = _random_value(rng, words)
        elif change == "drop":
            del node[key]
        elif change == "swap":
            other, other_key = rng.choice(places)
            node[key] = copy.deepcopy(other[other_key])
        elif change == "repeat" and isinstance(node, list):
            node.append(copy.deepcopy(node[key]))
        elif change == "root" and rng.random() < 0.05:
            content = _random_value(rng, words)
    text = json.dumps(content, ensure_ascii=rng.random() < 0.5)
    opening, closing = rng.choice([("[", "]"), ('{"a":', "}")])
    depth = rng.choice([50, 400, 900, 100_000])
    text = text.replace(f'"{DEEP}"', opening * depth + "0" + closing * depth)
    encoding = rng.choice(["utf-8"] * 7 + ["utf-8-sig", "utf-16", "latin-1"])
    encoded = text.encode(encoding, "surrogatepass" if encoding.startswith("utf") else "replace")
    return damaged(rng, encoded, [0] * 9 + [1, 2])


def _places(node: Any) -> Iterator[tuple]:
    """Yield every (container, key) of a nested structure."""
    if isinstance(node, (dict, list)):
        for key in node if isinstance(node, dict) else range(len(node)):
            yield node, key
            yield from _places(node[key])


def _random_value(rng: Random, words: list[str]) -> Any:
    kind = rng.random()
    if kind < 0.15:
        return [_random_value(rng, words) for _ in range(rng.randrange(5))]
    if kind < 0.25:
        return {
            rng.choice(["", "id", "a"]): _random_value(rng, words) for _ in range(rng.randrange(3))
        }
    return rng.choice(words if kind < 0.5 else EXTREME_VALUES)


NUMBERS = [0, 1, 2, 7, 8, 255, 256, 0x7FFF, 0xFFFF, 0x10000, 30_000, 2**31 - 1, 2**32 - 1]


def damaged(
    rng: Random, content: bytes, counts: list[int], others: list[bytes] | None = None
) -> bytes:
    """Return the bytes of a file after random changes.

    Args:
        rng: Chooses the changes.
        content: The bytes of the file.
        counts: The number of changes is one of these, chosen at random. A number that is listed
            twice is twice as likely.
        others: Contents of other files. The end of one of them may replace the end of this file.
    """
    content = bytearray(content)
    for _ in range(rng.choice(counts)):
        # most formats have their sizes and tables at the beginning
        at = rng.randrange(min(rng.choice([64, 10**9]), len(content)) + 1)
        change = rng.choice(["number", "number", "bytes", "insert", "cut", "join"])
        if change == "number":
            width = rng.choice([1, 2, 4])
            packed = struct.pack("<I", rng.choice(NUMBERS))[:width]
            content[at : at + width] = rng.choice([packed, packed[::-1]])
        elif change == "bytes":
            new = rng.randbytes(rng.choice([1, 2, 4]))
            content[at : at + len(new)] = new
        elif change == "insert":
            content[at:at] = rng.randbytes(rng.randrange(20))
        elif change == "cut":
            del content[at : at + rng.choice([1, 4, 30, 10**9])]
        elif others:
            content[at:] = rng.choice(others)[at:]
    return bytes(content)


def with_valid_checksums(content: bytes) -> bytes:
    """Correct the checksum of every chunk of a PNG, since readers refuse a wrong checksum."""
    content, at = bytearray(content), 8
    while at + 12 <= len(content):
        end = at + 8 + int.from_bytes(content[at : at + 4], "big")
        if end + 4 > len(content):
            break
        content[end : end + 4] = struct.pack(">I", zlib.crc32(content[at + 4 : end]))
        at = end + 4
    return bytes(content)
