"""Hostile content for the readers of others' files, and a watch on what a reader does with it."""

from __future__ import annotations

import copy
import faulthandler
import json
import os
import resource
import struct
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from mixdet.errors import MixDetError

ROUND = 5_000  # inputs after which hypothesis forgets what it has tried, which would fill memory
SECONDS = 60  # for one input: more is a hang
MEMORY = 300 * 2**20  # bytes that a whole run may add to this process
DEEP = "<deep>"  # stands for a nesting that `json.dumps` would not write

# Events of `sys.addaudithook` whose first argument is a path, and those that nothing may cause
FILES = {"open", "os.listdir", "os.scandir", "os.remove", "os.rename", "os.mkdir", "os.truncate"}
FORBIDDEN = {"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork"} | {
    "socket.connect", "socket.getaddrinfo", "pickle.find_class", "urllib.Request",
}  # fmt: skip
_seen: list[tuple] | None = None
_hooked = False


def _note(event: str, arguments: tuple) -> None:
    if _seen is not None and (event in FILES or event in FORBIDDEN):
        _seen.append((event, *arguments))


@contextmanager
def _watched(root: Path) -> Iterator[None]:
    """Fail where a file outside the root is opened, code is run, or an input takes a minute.

    Python's own modules may be read, which some libraries import when they are needed.
    """
    global _seen, _hooked
    if not _hooked:  # a hook cannot be taken away again
        sys.addaudithook(_note)
        _hooked = True
    faulthandler.dump_traceback_later(SECONDS, exit=True)
    _seen = []
    try:
        yield
    finally:
        events, _seen = _seen, None
        faulthandler.cancel_dump_traceback_later()
    for event, *arguments in events:
        assert event in FILES, (event, arguments)
        if not isinstance(arguments[0], int):
            path = Path(os.path.realpath(os.fsdecode(arguments[0])))
            code = path.suffix in (".py", ".pyc", ".so") or path.name == "site-packages"
            assert path.is_relative_to(root) or code, (event, arguments)


def fuzz(
    inputs: st.SearchStrategy, read: Callable, root: Path, count: int, prepare: Callable
) -> None:
    """Give a reader many inputs: it may accept each, or refuse it with a `MixDetError`.

    Args:
        inputs: What to give.
        read: The reader, called without arguments.
        root: The only folder whose files it may open.
        count: How many inputs.
        prepare: Called with each input before the reader, unwatched.
    """
    root = root.resolve()
    Path("/proc/self/clear_refs").write_text("5")  # the highest memory is counted from here
    before, begin, tried, accepted = _peak(), time.monotonic(), 0, 0
    limits = resource.getrlimit(resource.RLIMIT_AS)
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + 4 * 2**30, limits[1]))

    def one(content) -> None:
        nonlocal tried, accepted
        tried += 1
        prepare(content)
        with suppress(MixDetError), _watched(root):
            read()
            accepted += 1

    try:
        for number, first in enumerate(range(0, count, ROUND)):
            rules = settings(
                max_examples=min(ROUND, count - first),
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
            )
            seed(number)(rules(given(inputs)(one)))()
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
    seconds = time.monotonic() - begin
    print(f"{tried:,} inputs, {accepted:,} accepted, {seconds:.0f} s, {_peak() - before:,} bytes")
    assert tried >= count
    assert 0 < accepted < tried
    assert _peak() - before < MEMORY


def _peak() -> int:
    """The most memory that this process had, in bytes."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


plain = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 70),
    st.integers(),
    st.sampled_from([10**400, -(10**400), 2**31, 2**63, 2**64, 1e308, -0.0]),
    st.floats(),
    st.text(max_size=6),
)
OTHERS = ["", ".", "..", "/", "a\0b", "\ud800", "x" * 5000, "NaN", DEEP]


def places(node) -> Iterator[tuple]:
    """Every (container, key) in a nested structure."""
    keys = node if isinstance(node, dict) else range(len(node))
    for key in keys if isinstance(node, (dict, list)) else ():
        yield node, key
        if isinstance(node[key], (dict, list)):
            yield from places(node[key])


@st.composite
def json_files(draw, content: dict, words: list[str]) -> bytes:
    """Bytes of a JSON file that was right before something was done to it.

    Args:
        draw: Of hypothesis.
        content: What is right.
        words: Strings to put anywhere.
    """
    content = copy.deepcopy(content)
    leaf = plain | st.sampled_from([*words, *OTHERS])
    value = leaf | st.lists(leaf, max_size=5) | st.dictionaries(st.text(max_size=3), leaf)
    for _ in range(draw(st.sampled_from([0, 1, 1, 1, 2, 3, 6]))):
        spots = list(places(content))
        node, key = spots[draw(st.integers(0, len(spots) - 1))]
        change = draw(st.sampled_from(["put", "put", "drop", "swap", "repeat", "root"]))
        if change == "put":
            node[key] = draw(value)
        elif change == "drop":
            del node[key]
        elif change == "swap":
            other, place = spots[draw(st.integers(0, len(spots) - 1))]
            node[key] = copy.deepcopy(other[place])
        elif change == "repeat" and isinstance(node, list):
            node.append(copy.deepcopy(node[key]))
        elif change == "root" and draw(st.integers(0, 20)) == 0:
            content = draw(value)
        if not isinstance(content, (dict, list)) or not content:
            break
    text = json.dumps(content, ensure_ascii=draw(st.booleans()))
    if f'"{DEEP}"' in text:
        opening, closing = draw(st.sampled_from([("[", "]"), ('{"a":', "}")]))
        depth = draw(st.sampled_from([50, 400, 900, 100_000]))
        text = text.replace(f'"{DEEP}"', opening * depth + "0" + closing * depth)
    coding = draw(st.sampled_from(["utf-8"] * 7 + ["utf-8-sig", "utf-16", "latin-1"]))
    errors = "surrogatepass" if coding.startswith("utf") else "replace"
    return draw(damaged(text.encode(coding, errors), likely=False))


numbers = st.sampled_from([0, 1, 2, 7, 8, 255, 256, 0x7FFF, 0xFFFF, 0x10000, 2**31 - 1, 2**32 - 1])


@st.composite
def damaged(draw, content: bytes, likely: bool = True, others: tuple[bytes, ...] = ()) -> bytes:
    """A file's bytes, cut short, with some of them changed, or with those of another file.

    Args:
        draw: Of hypothesis.
        content: The file.
        likely: Whether to leave it as it is seldom, rather than mostly.
        others: Files whose ends may follow this one's beginning.
    """
    counts = [0, 1, 1, 2, 3, 5] if likely else [0] * 9 + [1, 2]
    content = bytearray(content)
    for _ in range(draw(st.sampled_from(counts))):
        # most formats have their sizes and tables at the beginning
        at = draw(st.integers(0, min(64, len(content))) | st.integers(0, len(content)))
        change = draw(st.sampled_from(["number", "number", "bytes", "insert", "cut", "join"]))
        if change == "number":
            width = draw(st.sampled_from([1, 2, 4]))
            packed = struct.pack("<I", draw(numbers))[:width]
            content[at : at + width] = draw(st.sampled_from([packed, packed[::-1]]))
        elif change == "bytes":
            new = draw(st.binary(min_size=1, max_size=4))
            content[at : at + len(new)] = new
        elif change == "insert":
            content[at:at] = draw(st.binary(max_size=20))
        elif change == "cut":
            del content[at : at + draw(st.sampled_from([1, 4, 30, 10**9]))]
        elif others:
            content[at:] = draw(st.sampled_from(others))[at:]
    return bytes(content)


def with_right_sums(content: bytes) -> bytes:
    """A PNG whose chunks have the check sums of what they hold, so that it is read further."""
    content, at = bytearray(content), 8
    while at + 12 <= len(content):
        end = at + 8 + int.from_bytes(content[at : at + 4], "big")
        if end + 4 > len(content):
            break
        content[end : end + 4] = struct.pack(">I", zlib.crc32(content[at + 4 : end]))
        at = end + 4
    return bytes(content)
