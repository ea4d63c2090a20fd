"""Run functions in separate processes, and time them in turns.

Each side of a comparison has its own process. The settings, threads and memory of one side then do
not affect the others.
"""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import time
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.connection import Connection
from pathlib import Path

from benchmarks.timing import K, turn_order

# Pause before each turn. ONNX Runtime's threads keep their cores busy for 0.03 s after a run.
REST_SECONDS = 0.1


class RemoteFunction:
    """A function in another process, which `remote_function` starts.

    Attributes:
        wall: Wall time of the last call in seconds.
        cpu: CPU time of the last call in seconds.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.wall = self.cpu = 0.0

    def __call__(self, argument: object) -> object:
        """Call the function with a picklable argument, wait, and return its result."""
        self._connection.send(argument)
        result, self.wall, self.cpu = self._connection.recv()
        return result


@contextlib.contextmanager
def remote_function(factory: Callable[..., Callable], *args: object) -> Iterator[RemoteFunction]:
    """Start a process that runs a function when asked, and end the process at exit.

    Args:
        factory: A function at the top level of a module. The new process calls `factory` once.
            `factory` returns the function to run, which takes one argument.
        *args: Picklable arguments of `factory`.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_answer_calls, args=(theirs, factory, args))
    process.start()
    theirs.close()  # if the process dies, `recv` then raises instead of waiting
    try:
        yield RemoteFunction(ours)
    finally:
        ours.close()
        process.join()


def _answer_calls(connection: Connection, factory: Callable[..., Callable], args: tuple) -> None:
    function = factory(*args)
    with contextlib.suppress(EOFError):  # the other side has closed the connection
        while True:
            argument = connection.recv()
            wall, cpu = time.perf_counter(), time.process_time()
            result = function(argument)
            connection.send((result, time.perf_counter() - wall, time.process_time() - cpu))


def time_remote_in_turns(
    tasks: Mapping[K, tuple[RemoteFunction, object]], rounds: int, threads: int, warm: bool = False
) -> dict[K, list[float]]:
    """Time every remote call once per round, after a round that is not timed.

    Args:
        tasks: Remote functions and their arguments.
        rounds: Number of timed rounds.
        threads: Number of threads that each function computes with.
        warm: Call twice in a turn, and time only the second call. The first call fills the caches.

    Returns:
        Seconds of each round, by task: CPU time if `threads` is 1, else wall time. CPU time leaves
        out the time in which other processes use the core.
    """
    seconds: dict[K, list[float]] = {name: [] for name in tasks}
    for turn, name in turn_order(tasks, rounds):
        function, argument = tasks[name]
        if threads > 1:
            time.sleep(REST_SECONDS)
        if warm:
            function(argument)
        function(argument)
        if turn:
            seconds[name].append(function.cpu if threads == 1 else function.wall)
    return seconds


def process_memory(key: str) -> float:
    """Return the current ('VmRSS') or peak ('VmHWM') memory of this process in MB.

    The result is NaN on systems other than Linux.
    """
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.is_file() else []
    return next((int(line.split()[1]) / 1e3 for line in lines if line.startswith(key)), math.nan)


def reset_peak_memory() -> None:
    """Set the peak ('VmHWM') of this process to its current memory, on Linux."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
