"""Two things timed in turns, so that whatever else the machine does falls on both."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

K = TypeVar("K")


def alternate(
    tasks: Mapping[str, Callable[[int], object]],
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Time every task once a round, in turned order every other round, after one untimed round.

    Args:
        tasks: What to call, with the number of the round, from 0.
        rounds: How often each is timed.
        clock: `time.perf_counter`, or `time.process_time` for what one process computes: that does
            not count the time in which others have its core.

    Returns:
        Seconds of each round, for each task.
    """
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for turn, name in turns(tasks, rounds):
        start = clock()
        tasks[name](turn)
        if turn:
            seconds[name].append(clock() - start)
    return seconds


def turns(names: Mapping[K, object], rounds: int) -> Iterator[tuple[int, K]]:
    """The order of `alternate`: (number of the round, name); round 0 is not to be timed."""
    for turn in range(rounds + 1):
        for name in reversed(names) if turn % 2 else names:
            yield turn, name


def rates(seconds: list[float], items: int) -> dict[str, float]:
    """Items a second: the median of the rounds, the slowest and the fastest."""
    return median_of([items / value for value in seconds])


def median_of(found: list[float]) -> dict[str, float]:
    """The median of some figures, the smallest and the largest."""
    return {"median": statistics.median(found), "low": min(found), "high": max(found)}


def speedup(peer: list[float], ours: list[float]) -> dict[str, float]:
    """How many times faster ours is in each round: the median, the smallest and the largest."""
    return median_of([a / b for a, b in zip(peer, ours, strict=True)])


def spread(values: dict[str, float], digits: int = 0) -> str:
    """Such a result as text: 120 (110-125)."""
    median, low, high = (f"{values[key]:.{digits}f}" for key in ("median", "low", "high"))
    return f"{median} ({low}-{high})"


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """OpenCV and torch compute with one thread, as they do in a worker of a data loader."""
    import cv2
    import torch

    before = cv2.getNumThreads(), torch.get_num_threads()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before[0])
        torch.set_num_threads(before[1])
