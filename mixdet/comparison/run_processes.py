"""Start the processes of a comparison: the runs, and the measurement of what a run costs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config

from mixdet.comparison.comparison_folder import Comparison
from mixdet.engine.training_length import TOO_SHORT, TrainingLength
from mixdet.errors import MixDetError
from mixdet.machine import cores


def run_environment(slots: int, slot: int = 0) -> dict[str, str]:
    """Return the environment variables of a run.

    `OMP_NUM_THREADS` has the same value as in this process. If it is not set, the runs share the
    cores.

    Args:
        slots: Number of runs at the same time.
        slot: Index of this run among the simultaneous runs. It selects the GPU.
    """
    environment = dict(os.environ)
    if not environment.get("OMP_NUM_THREADS"):
        environment["OMP_NUM_THREADS"] = str(max(1, cores() // slots))
    if torch.cuda.is_available():
        environment["CUDA_VISIBLE_DEVICES"] = _visible_device(slot)
    return environment


def run_threads(slots: int) -> int:
    """Return the number of threads of each of several simultaneous runs."""
    return int(run_environment(slots)["OMP_NUM_THREADS"].split(",")[0])


def start_worker(
    arguments: dict[str, Any], log: Path, environment: dict[str, str], lock: int
) -> subprocess.Popen:
    """Start `run_worker` in a new process.

    Args:
        arguments: The arguments of `run_worker`, without `started_at`.
        log: File that the output of the process is appended to.
        environment: From `run_environment`.
        lock: File descriptor of the lock of the comparison, which the process inherits.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    arguments = arguments | {"started_at": time.time()}
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", f"{__package__}.run_worker", json.dumps(arguments)],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            pass_fds=(lock,),
            # A Ctrl-C in the terminal then reaches only this process, which forwards it once.
            start_new_session=True,
        )


def choose_lengths(
    comparison: Comparison, configs: dict[str, Config], slots: int, lock: int
) -> None:
    """Measure the rows whose runs have no length yet, one after another, and store the lengths.

    Args:
        comparison: The comparison. Its plan states minutes.
        configs: The config of each row.
        slots: Number of runs at the same time. The measurement has the threads of a run.
        lock: See `start_worker`.

    Raises:
        MixDetError: A measurement failed.
    """
    plan, environment = comparison.plan, run_environment(slots)
    missing = [row for row in plan.rows if row not in comparison.lengths]
    if missing:
        _warn_of_shared_cores(configs, slots)
    for row in missing:
        folder = comparison.folder / "runs" / row
        file, log = folder / "length.json", folder / "length.txt"
        arguments = {
            "config": plan.configs[plan.rows.index(row)],
            "minutes": plan.minutes,
            "work_dir": str(folder),
            "data_root": plan.data_root,
            "cfg_options": plan.cfg_options,
            "length_file": str(file),
        }
        process = start_worker(arguments, log, environment, lock)
        try:
            code = process.wait()
        except BaseException:
            process.kill()
            process.wait()
            raise
        if code:
            raise MixDetError(
                f"{row}: its cost could not be measured (exit code {code}): see {log}"
            )
        length = TrainingLength(**json.loads(file.read_text()))
        print(f"{row}: measured {length.measured}; {length}", flush=True)
        if not length.fits:
            print(f"warning: {row}: --minutes {plan.minutes:g}: {TOO_SHORT}", file=sys.stderr)
        comparison.lengths[row] = length
        comparison.write()


def _warn_of_shared_cores(configs: dict[str, Config], slots: int) -> None:
    """Warn if simultaneous runs need more cores than there are, since each is measured alone."""
    threads = run_threads(slots)
    workers = max(cfg.train_dataloader.get("num_workers", 0) for cfg in configs.values())
    needed = slots * (threads + workers)
    if slots > 1 and needed > cores():
        print(
            f"warning: {slots} runs at a time with {threads} threads and {workers} workers share "
            f"{cores()} cores, but their cost is measured with one run alone, so they take longer "
            "than --minutes: set train_dataloader.num_workers=0, or fewer --processes",
            file=sys.stderr,
        )


def _visible_device(slot: int) -> str:
    """Return the GPU for the run in a slot. There is one slot per simultaneous run."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    devices = visible.split(",") if visible else [str(i) for i in range(torch.cuda.device_count())]
    return devices[slot % len(devices)]
