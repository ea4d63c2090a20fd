"""KeepMemoryHook avoids page faults, and changes nothing if glibc refuses its settings."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from mmengine.optim import OptimWrapper, OptimWrapperDict
from torch.optim import SGD

from mixdet.engine import KeepMemoryHook
from mixdet.engine.hooks.keep_memory_hook import (
    DEFAULT_MMAP_THRESHOLD,
    M_MMAP_THRESHOLD,
    keep_freed_memory,
)

SCRIPT = """
import resource, sys
import torch
from mixdet.engine.hooks.keep_memory_hook import keep_freed_memory

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


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs glibc's allocator")
# `size` is in MiB per tensor. The script makes eight tensors at a time.
@pytest.mark.heavy
@pytest.mark.parametrize("size", [12, 150])
def test_freed_memory_is_used_again_without_page_faults(size):
    script = SCRIPT.format(size=size)
    output = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout
    done, before, after = output.split()[-3:]
    if done == "False":
        pytest.skip("this C library refuses the settings")
    assert int(before) > 10 * int(after)


@pytest.fixture
def glibc(monkeypatch):
    """A function that replaces glibc's `mallopt` with one that refuses thresholds above a limit.

    Older versions of glibc refuse such thresholds too. The function returns a dict that collects
    the accepted settings.
    """

    def make(limit: int) -> dict[int, int]:
        taken: dict[int, int] = {}

        def mallopt(name: int, value: int) -> int:
            allowed = name != M_MMAP_THRESHOLD or value <= limit
            if allowed:
                taken[name] = value
            return int(allowed)

        monkeypatch.setattr("ctypes.CDLL", lambda _: SimpleNamespace(mallopt=mallopt))
        monkeypatch.setattr("sys.platform", "linux")
        return taken

    return make


@pytest.mark.parametrize("limit", [0, 32 << 20, 1 << 30])
def test_an_older_glibc_gets_a_lower_threshold_or_none(glibc, limit):
    taken = glibc(limit)
    assert keep_freed_memory() == bool(limit)
    assert taken.get(M_MMAP_THRESHOLD, 0) == limit
    assert bool(taken) == bool(limit)


@pytest.mark.parametrize("limit", [DEFAULT_MMAP_THRESHOLD, 1 << 30])
@pytest.mark.parametrize("batches", [1, 3])
@pytest.mark.parametrize("several", [False, True], ids=["an optimizer", "several"])
def test_the_mmap_threshold_rises_after_the_first_step(glibc, monkeypatch, limit, batches, several):
    """The hook raises the size from which glibc uses mmap. If glibc refuses, nothing changes."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    taken, hook, seen = glibc(limit), KeepMemoryHook(), []
    weight = torch.nn.Parameter(torch.ones(2))
    wrapper = OptimWrapper(SGD([weight], 0.1, momentum=0.9), accumulative_counts=batches)
    # With several optimizers, the threshold rises only when all of them have made a step.
    other = OptimWrapper(SGD([torch.nn.Parameter(torch.ones(2))], 0.1))
    wrappers = OptimWrapperDict(one=other, other=wrapper) if several else wrapper
    runner = SimpleNamespace(optim_wrapper=wrappers)
    hook.before_run(runner)
    hook.before_train(runner)
    for iteration in range(2 * batches):
        seen.append((taken.get(M_MMAP_THRESHOLD), bool(wrapper.optimizer.state)))
        wrapper.update_params(weight.sum())
        hook.after_train_iter(runner, iteration)
    first, later = (
        (None, None) if limit == DEFAULT_MMAP_THRESHOLD else (DEFAULT_MMAP_THRESHOLD, limit)
    )
    assert seen == [(first, False)] * batches + [(later, True)] * batches
