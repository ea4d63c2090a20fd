"""Each side in a process of its own, which it may set up as it likes and which works when asked."""

from __future__ import annotations

import contextlib
import multiprocessing
import time
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.connection import Connection

from benchmarks.timing import K, turns

REST = 0.1  # seconds before a turn: ONNX Runtime's threads spin for some 0.03 after a run


class Served:
    """The other process, as `served` yields it.

    Attributes:
        wall: Seconds that the last request took by the clock.
        cpu: Seconds that the process computed for it.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.wall = self.cpu = 0.0

    def __call__(self, request: object) -> object:
        """Send a request, wait, and return the answer."""
        self._connection.send(request)
        answer, self.wall, self.cpu = self._connection.recv()
        return answer


@contextlib.contextmanager
def served(start: Callable[..., Callable], *args: object) -> Iterator[Served]:
    """A process that answers.

    Args:
        start: Runs there once, and gives the function that answers a request. A module's function:
            it is found by its name.
        *args: For it.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, start, args))
    process.start()
    theirs.close()  # so that a process that dies is noticed
    try:
        yield Served(ours)
    finally:
        ours.close()
        process.join()


def _serve(client: Connection, start: Callable[..., Callable], args: tuple) -> None:
    answer = start(*args)
    with contextlib.suppress(EOFError):  # the client has what it wants
        while True:
            request = client.recv()
            wall, cpu = time.perf_counter(), time.process_time()
            answered = answer(request)
            client.send((answered, time.perf_counter() - wall, time.process_time() - cpu))


def take_turns(
    tasks: Mapping[K, tuple[Served, object]], rounds: int, threads: int, warm: bool = False
) -> dict[K, list[float]]:
    """As `alternate`, for processes and what to ask them.

    Args:
        tasks: A process and a request each.
        rounds: How often each is timed.
        threads: That each computes with.
        warm: Ask twice in a turn, and time the second: what the others left of a short task's
            memory in the caches is not its cost.

    Returns:
        Seconds of each round: where one thread computes, those that it did, which do not count the
        time in which others have its core; else those of the clock.
    """
    seconds: dict[K, list[float]] = {name: [] for name in tasks}
    for turn, name in turns(tasks, rounds):
        process, request = tasks[name]
        if threads > 1:
            time.sleep(REST)
        if warm:
            process(request)
        process(request)
        if turn:
            seconds[name].append(process.cpu if threads == 1 else process.wall)
    return seconds
