"""`start`: time the start of a tool."""

from __future__ import annotations

import os
import subprocess
import sys
import time

from benchmarks.timing import format_range, median_and_range, turn_order
from mixdet.machine import machine_record
from mixdet.visual.tables import text_table

COMMANDS = {
    "python -c 'print()'": ("-c", "print()"),
    "python -c 'import mixdet; print()'": ("-c", "import mixdet; print()"),
    "python tools/predict.py --help": ("tools/predict.py", "--help"),
}


def measure(rounds: int = 5) -> dict[str, object]:
    """Time commands until their first byte of output. Run this in the root of the checkout.

    Args:
        rounds: Number of timed rounds.

    Returns:
        machine, settings and commands. Each command has the wall time to the first byte and the CPU
        time to the end, in milliseconds.
    """
    measured_on = machine_record()
    first_byte: dict[str, list[float]] = {name: [] for name in COMMANDS}
    cpu: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for turn, name in turn_order(COMMANDS, rounds):
        start = time.perf_counter()
        with subprocess.Popen([sys.executable, *COMMANDS[name]], stdout=subprocess.PIPE) as process:
            process.stdout.read(1)
            seconds = time.perf_counter() - start
            process.stdout.read()
            *_, usage = os.wait4(process.pid, 0)
            process.returncode = 0  # otherwise Popen would wait for the ended process again
        if turn:
            first_byte[name].append(1000 * seconds)
            cpu[name].append(1000 * (usage.ru_utime + usage.ru_stime))
    rows = [
        {
            "command": name,
            "first_byte": median_and_range(first_byte[name]),
            "cpu": median_and_range(cpu[name]),
        }
        for name in COMMANDS
    ]
    return {
        "kind": "start",
        "machine": measured_on,
        "settings": {"rounds": rounds},
        "commands": rows,
    }


def table(record: dict[str, object], markdown: bool = False) -> str:
    """Lay out the record of `measure` as text."""
    rows = [
        [f"`{row['command']}`", format_range(row["first_byte"]), format_range(row["cpu"])]
        for row in record["commands"]
    ]
    return text_table(["command", "first byte, ms", "processor time, ms"], rows, markdown)
