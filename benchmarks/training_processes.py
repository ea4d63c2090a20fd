"""Several training processes on one machine's CPU, over gloo, against one."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import torch.distributed as dist

from benchmarks.peers import NETWORKS, check_known
from benchmarks.processes import Served, served, take_turns
from benchmarks.timing import rates, speedup, spread
from benchmarks.train import fixed_batch, ready_to_train
from mixdet.errors import MixDetError
from mixdet.machine import machine
from mixdet.visual.tables import text_table

SIDES = {  # (processes, threads of each), the batch of all being the same
    "one process, one thread": (1, 1),
    "one process, two threads": (1, 2),
    "two processes, one thread each": (2, 1),
}


class Together:
    """Processes that make a step at a time, as `take_turns` asks one."""

    def __init__(self, processes: Sequence[Served]) -> None:
        self._processes = processes
        self.wall = 0.0

    def __call__(self, request: object) -> None:
        """Ask all at once, and wait for the last."""
        start = time.perf_counter()
        with ThreadPoolExecutor(len(self._processes)) as pool:
            list(pool.map(lambda ask: ask(request), self._processes))
        self.wall = time.perf_counter() - start


def measure_gloo(
    rounds: int = 5, networks: Sequence[str] = tuple(NETWORKS), size: int = 320, batch: int = 8
) -> dict[str, object]:
    """Time training steps of ours as `measure_train` does, of one process and of two.

    Args:
        rounds: How often each is timed.
        networks: Some of `NETWORKS`.
        size: Side of the square images in pixels.
        batch: Images a step, of all processes; even, and no less than 4.

    Returns:
        machine, settings and rows; images a second as median, low and high.

    Raises:
        MixDetError: A network is unknown, or the batch does not divide.
    """
    check_known("--networks", networks, NETWORKS)
    if batch < 4 or batch % 2:
        raise MixDetError(f"--batch {batch}: two processes take 2, 3, 4, ... images each")
    found = machine()
    rows = [row for name in networks for row in _network(name, rounds, size, batch)]
    settings = {"rounds": rounds, "size": size, "batch": batch}
    return {"kind": "gloo", "machine": found, "settings": settings, "rows": rows}


def _network(name: str, rounds: int, size: int, batch: int) -> list[dict[str, object]]:
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        tasks = {}
        for side, (processes, threads) in SIDES.items():
            meeting = f"file://{folder}/{processes}-{threads}"
            settings = (name, size, batch // processes, threads, processes, meeting)
            started = [
                stack.enter_context(served(_start, rank, *settings)) for rank in range(processes)
            ]
            tasks[side] = Together(started), "step"
        seconds = take_turns(tasks, rounds, threads=2)  # by the clock
    one = next(iter(seconds.values()))
    return [
        {"network": name, "side": side, "speedup": speedup(one, found)}
        | {"images_per_second": rates(found, batch)}
        for side, found in seconds.items()
    ]


def _start(
    rank: int, name: str, size: int, batch: int, threads: int, processes: int, meeting: str
) -> Callable[[object], None]:
    """A process that makes a training step when asked; of several, together with the others."""
    if processes > 1:
        patience = timedelta(minutes=5)  # with a process that failed
        dist.init_process_group("gloo", meeting, patience, rank=rank, world_size=processes)
    _, step = ready_to_train(name, "eager", size, batch, amp=False, threads=threads)
    data = fixed_batch(batch, size, seed=rank)
    step(data)  # memory that is freed is kept from here on
    return lambda request: step(data)


def gloo_summary(record: dict[str, object]) -> str:
    """The medians of the record of `measure_gloo`, a row a network, as Markdown."""
    cells: dict[str, dict[str, str]] = {}
    for row in record["rows"]:
        rate, ratio = row["images_per_second"]["median"], row["speedup"]["median"]
        cells.setdefault(row["network"], {})[row["side"]] = f"{rate:.1f} ({ratio:.2f})"
    header = ["images/s (times faster)", *SIDES]
    rows = [[network, *(of[side] for side in SIDES)] for network, of in cells.items()]
    return text_table(header, rows, markdown=True)


def gloo_table(record: dict[str, object], markdown: bool = False) -> str:
    """The record of `measure_gloo` as text."""
    rows = [
        [
            row["network"],
            row["side"],
            spread(row["images_per_second"], 1),
            spread(row["speedup"], 2),
        ]
        for row in record["rows"]
    ]
    header = ["network", f"batch of {record['settings']['batch']} on", "images/s", "times faster"]
    return text_table(header, rows, markdown)
