"""Do one training run in its own process: `python -m mixdet.comparison.run_worker ARGUMENTS`.

ARGUMENTS is a JSON object: the arguments of `mixdet.launch.train`, and the time (seconds since the
epoch) at which the process was started. The worker adds a line to `usage.jsonl` in the work folder:
the minutes and the threads that it used. If ARGUMENTS has the key `length_file`, the worker only
measures the config, and writes the length that a run should have to that file.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from pathlib import Path

import torch

from mixdet.comparison.run_record import USAGE_FILE
from mixdet.engine.training_length import TrainingLength
from mixdet.errors import run_tool
from mixdet.launch import choose_length, train
from mixdet.outputs import write_atomically


def main() -> None:
    """Train, or measure, with the JSON arguments of the command line."""
    arguments = json.loads(sys.argv[1])
    started_at = arguments.pop("started_at")
    if (file := arguments.pop("length_file", None)) is not None:
        length = choose_length(**arguments, started=time.process_time())
        write_atomically(file, json.dumps(length.as_dict()).encode())
        return
    if (length := arguments.pop("length", None)) is not None:
        length = TrainingLength(**length)
    try:
        train(**arguments, length=length)
    finally:
        gc.collect()  # ends the loader's workers: their processor time is known only afterwards
        times = os.times()
        usage = {
            "wall": (time.time() - started_at) / 60,
            "cpu": sum(times[:4]) / 60,  # of this process, and of its workers
            "threads": torch.get_num_threads(),
        }
        with Path(arguments["work_dir"], USAGE_FILE).open("a") as lines:
            print(json.dumps(usage), file=lines)


if __name__ == "__main__":
    run_tool(main)
