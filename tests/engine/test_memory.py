"""KeepMemoryHook by what it does: the kernel hands out no page twice."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest

from mixdet.engine.hooks.memory import M_MMAP_THRESHOLD, keep_freed_memory

SCRIPT = """
import resource, sys
import torch
from mixdet.engine.hooks.memory import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        [torch.ones({size} << 20, dtype=torch.uint8) for _ in range(8)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

import mixdet.plugin
before = faults()
done = keep_freed_memory()
faults()
print(done, before, faults())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
@pytest.mark.parametrize("size", [12, 150])  # MiB, of eight tensors
def test_pages_are_kept(size):
    script = SCRIPT.format(size=size)
    output = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout
    done, before, after = output.split()[-3:]
    if done == "False":
        pytest.skip("this C library refuses the settings")
    assert int(before) > 10 * int(after)


@pytest.mark.parametrize("limit", [0, 32 << 20, 1 << 30])
def test_an_older_glibc_takes_less_or_is_left_alone(monkeypatch, limit):
    """It refuses a threshold above its limit."""
    taken = {}

    def mallopt(name: int, value: int) -> int:
        allowed = name != M_MMAP_THRESHOLD or value <= limit
        if allowed:
            taken[name] = value
        return int(allowed)

    monkeypatch.setattr("ctypes.CDLL", lambda _: SimpleNamespace(mallopt=mallopt))
    monkeypatch.setattr("sys.platform", "linux")
    assert keep_freed_memory() == bool(limit)
    assert taken.get(M_MMAP_THRESHOLD, 0) == limit
    assert bool(taken) == bool(limit)
