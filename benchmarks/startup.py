"""How long the tools take to start."""

from __future__ import annotations

import os
import subprocess
import sys
import time

from benchmarks.timing import median_of, spread, turns
from mixdet.machine import machine
from mixdet.visual.tables import text_table

COMMANDS = {
    "python -c 'print()'": ("-c", "print()"),
    "python -c 'import mixdet; print()'": ("-c", "import mixdet; print()"),
    "python tools/predict.py --help": ("tools/predict.py", "--help"),
}


def measure_start(rounds: int = 10) -> dict[str, object]:
    """Time commands of the repository's root to the first byte that they write.

    Args:
        rounds: How often each is timed, in turns.

    Returns:
        machine, settings and commands: milliseconds of the clock, and of the whole process's own
        time.
    """
    found = machine()
    wall: dict[str, list[float]] = {name: [] for name in COMMANDS}
    cpu: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for turn, name in turns(COMMANDS, rounds):
        start = time.perf_counter()
        with subprocess.Popen([sys.executable, *COMMANDS[name]], stdout=subprocess.PIPE) as process:
            process.stdout.read(1)
            first = time.perf_counter() - start
            process.stdout.read()
            *_, usage = os.wait4(process.pid, 0)
            process.returncode = 0  # it has been waited for
        if turn:
            wall[name].append(1000 * first)
            cpu[name].append(1000 * (usage.ru_utime + usage.ru_stime))
    rows = [
        {"command": name, "first_byte": median_of(wall[name]), "cpu": median_of(cpu[name])}
        for name in COMMANDS
    ]
    return {"kind": "start", "machine": found, "settings": {"rounds": rounds}, "commands": rows}


def start_table(record: dict[str, object], markdown: bool = False) -> str:
    """The record of `measure_start` as text."""
    rows = [
        [f"`{row['command']}`", spread(row["first_byte"]), spread(row["cpu"])]
        for row in record["commands"]
    ]
    return text_table(["command", "first byte, ms", "processor time, ms"], rows, markdown)
