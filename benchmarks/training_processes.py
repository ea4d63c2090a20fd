"""Benchmark `gloo`: is training with two processes on one CPU faster than with one?"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import torch.distributed as dist

from benchmarks.networks import NETWORKS, check_known
from benchmarks.processes import RemoteFunction, remote_function, time_remote_in_turns
from benchmarks.timing import format_range, items_per_second, speedup
from benchmarks.training_step import prepare_training
from mixdet.machine import machine_record
from mixdet.visual.tables import text_table
from tests.synthetic import random_batch

# (processes, threads per process). Each of two processes trains on half of the batch.
PROCESSES_AND_THREADS = {
    "one process, one thread": (1, 1),
    "one process, two threads": (1, 2),
    "two processes, one thread each": (2, 1),
}


class RemoteFunctionGroup:
    """Remote functions that run at the same time. A group is called like a `RemoteFunction`.

    Attributes:
        wall: Wall time of the last call in seconds.
    """

    def __init__(self, functions: Sequence[RemoteFunction]) -> None:
        self._functions = functions
        self.wall = 0.0

    def __call__(self, argument: object) -> None:
        """Call all functions at once, and wait for the last."""
        start = time.perf_counter()
        with ThreadPoolExecutor(len(self._functions)) as pool:
            list(pool.map(lambda function: function(argument), self._functions))
        self.wall = time.perf_counter() - start


def measure(
    rounds: int = 5, networks: Sequence[str] = tuple(NETWORKS), size: int = 320, batch: int = 8
) -> dict[str, object]:
    """Compare the wall time of training steps of MixDet in one process and in two.

    Args:
        rounds: Number of timed rounds.
        networks: Keys of `NETWORKS`.
        size: Side of the square images in pixels.
        batch: Images per step of all processes together. The number must be even and at least 4:
            batch norm on the 1x1 level needs two images in each process.

    Returns:
        machine, settings and rows, with images per second.

    Raises:
        MixDetError: A network is unknown.
    """
    check_known("--networks", networks, NETWORKS)
    measured_on = machine_record()
    rows = [row for name in networks for row in _measure_network(name, rounds, size, batch)]
    settings = {"rounds": rounds, "size": size, "batch": batch}
    return {"kind": "gloo", "machine": measured_on, "settings": settings, "rows": rows}


def _measure_network(name: str, rounds: int, size: int, batch: int) -> list[dict[str, object]]:
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        tasks = {}
        for title, (processes, threads) in PROCESSES_AND_THREADS.items():
            init_method = f"file://{folder}/{processes}-{threads}"
            settings = (name, size, batch // processes, threads, processes, init_method)
            functions = [
                stack.enter_context(remote_function(_start_process, rank, *settings))
                for rank in range(processes)
            ]
            tasks[title] = RemoteFunctionGroup(functions), "step"
        # threads=2 selects wall time, also for the processes with one thread. threads=1 would
        # select CPU time, which a group does not have.
        seconds = time_remote_in_turns(tasks, rounds, threads=2)
    one_process = next(iter(seconds.values()))
    return [
        {"network": name, "side": title, "speedup": speedup(one_process, values)}
        | {"images_per_second": items_per_second(values, batch)}
        for title, values in seconds.items()
    ]


def _start_process(
    rank: int, name: str, size: int, batch: int, threads: int, processes: int, init_method: str
) -> Callable[[object], None]:
    """Return a function that makes a training step together with the other processes."""
    if processes > 1:
        timeout = timedelta(minutes=5)  # ends the wait for a process that failed
        dist.init_process_group("gloo", init_method, timeout, rank=rank, world_size=processes)
    _, step = prepare_training(name, "eager", size, batch, amp=False, threads=threads)
    data = random_batch(batch, size, seed=rank)
    step(data)  # warm-up: from the second step on, the process reuses freed memory
    return lambda _: step(data)


def table(record: dict[str, object], markdown: bool = False) -> str:
    """Lay out the record of `measure` as text."""
    rows = [
        [
            row["network"],
            row["side"],
            format_range(row["images_per_second"], 1),
            format_range(row["speedup"], 2),
        ]
        for row in record["rows"]
    ]
    processes = f"processes (batch of {record['settings']['batch']})"
    header = ["network", processes, "images/s", "times faster"]
    return text_table(header, rows, markdown)


def page_table(record: dict[str, object]) -> str:
    """Lay out the medians as Markdown, with one row per network."""
    cells: dict[str, dict[str, str]] = {}
    for row in record["rows"]:
        rate, ratio = row["images_per_second"]["median"], row["speedup"]["median"]
        cells.setdefault(row["network"], {})[row["side"]] = f"{rate:.1f} ({ratio:.2f})"
    header = ["images/s (times faster)", *PROCESSES_AND_THREADS]
    rows = [
        [network, *(by_title[title] for title in PROCESSES_AND_THREADS)]
        for network, by_title in cells.items()
    ]
    return text_table(header, rows, markdown=True)
