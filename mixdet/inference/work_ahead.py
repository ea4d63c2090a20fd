"""Read and write files in threads while a network computes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from mixdet.machine import cores

Item = TypeVar("Item")
Result = TypeVar("Result")

MAX_THREADS = 4  # enough to read and draw images faster than a network takes them


def thread_pool() -> ThreadPoolExecutor:
    """Return a pool of a few threads, at most one per core."""
    return ThreadPoolExecutor(min(MAX_THREADS, cores()), thread_name_prefix="mixdet")


@contextmanager
def map_ahead(
    pool: ThreadPoolExecutor,
    function: Callable[[Item], Result],
    items: Iterable[Item],
    ahead: int,
    cancel: bool = True,
) -> Iterator[Iterator[Result]]:
    """Call a function in threads, and pass its results on in the order of the items.

    The items are taken in the caller's thread, and at most `ahead` more than results were passed
    on. So the number of results in memory is bounded.

    Args:
        pool: The threads.
        function: Takes an item. If it raises an error, the caller gets the error when it is the
            result's turn.
        items: The items.
        ahead: Number of calls that run, wait, or have a result that waits for its turn.
        cancel: At the end of the `with` block, cancel the calls that have not started. Otherwise
            the pool still runs them.
    """
    calls: deque[Future[Result]] = deque()

    def results() -> Iterator[Result]:
        for item in items:
            calls.append(pool.submit(function, item))
            if len(calls) > ahead:
                yield calls.popleft().result()
        while calls:
            yield calls.popleft().result()

    try:
        yield results()
    finally:
        for call in calls if cancel else ():
            call.cancel()
