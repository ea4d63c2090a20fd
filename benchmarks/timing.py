"""Time tasks in turns. The load of the machine then slows all tasks alike."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

K = TypeVar("K")


def time_in_turns(
    tasks: Mapping[K, Callable[[int], object]],
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[K, list[float]]:
    """Time every task once per round, after a round that is not timed.

    Args:
        tasks: Functions that take the number of the round. The untimed round has number 0.
        rounds: Number of timed rounds.
        clock: `time.perf_counter`, or `time.process_time` for tasks that run entirely in this
            process. CPU time leaves out the time in which other processes use the core.

    Returns:
        Seconds of each round, by task.
    """
    seconds: dict[K, list[float]] = {name: [] for name in tasks}
    for turn, name in turn_order(tasks, rounds):
        start = clock()
        tasks[name](turn)
        if turn:
            seconds[name].append(clock() - start)
    return seconds


def turn_order(names: Mapping[K, object], rounds: int) -> Iterator[tuple[int, K]]:
    """Yield (round, name) for every name and round. Every other round runs in reversed order.

    Args:
        names: A mapping with the names as keys.
        rounds: Number of timed rounds, counted from 1. They follow round 0, which is not timed.
    """
    for turn in range(rounds + 1):
        for name in reversed(names) if turn % 2 else names:
            yield turn, name


def median_and_range(values: list[float]) -> dict[str, float]:
    """Return the median, the lowest and the highest value."""
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def items_per_second(seconds: list[float], items: int) -> dict[str, float]:
    """Return the median, lowest and highest rate of rounds that process `items` items each."""
    return median_and_range([items / value for value in seconds])


def speedup(peer: list[float], ours: list[float]) -> dict[str, float]:
    """Divide the peer's seconds by ours in each round. Return median, lowest and highest ratio."""
    return median_and_range([a / b for a, b in zip(peer, ours, strict=True)])


def format_range(values: dict[str, float], digits: int = 0) -> str:
    """Format the result of `median_and_range`, such as '120 (110-125)'."""
    median, low, high = (f"{values[key]:.{digits}f}" for key in ("median", "low", "high"))
    return f"{median} ({low}-{high})"


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Make OpenCV and torch compute with one thread, as in a worker of a data loader."""
    import cv2
    import torch

    threads_before = cv2.getNumThreads(), torch.get_num_threads()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(threads_before[0])
        torch.set_num_threads(threads_before[1])
