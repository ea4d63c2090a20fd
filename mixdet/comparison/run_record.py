"""The record of a finished run, collected from the files that mmengine wrote."""

from __future__ import annotations

import json
import platform
import statistics
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import mixdet
from mixdet.comparison.comparison_folder import RunRecord
from mixdet.errors import MixDetError
from mixdet.machine import cores, processor

SCALARS = "*/vis_data/scalars.json"  # mmengine's logs in a work folder
USAGE_FILE = "usage.jsonl"  # `run_worker` adds a line for each process
PACKAGES = ("torch", "torchvision", "mmengine", "mmdet", "pycocotools", "numpy")


def read_run(
    row: str, seed: int, fingerprint: str, folder: Path, environment: dict[str, Any]
) -> RunRecord:
    """Collect the record of a run from the logs in its work folder.

    A run that was resumed has several logs. If two logs have an entry for the same step, the later
    entry is used.

    Args:
        row: See `RunRecord`.
        seed: See `RunRecord`.
        fingerprint: See `RunRecord`.
        folder: Work folder of the run.
        environment: See `RunRecord`. Its number of threads is replaced by the recorded number of
            the run, if there is one.

    Raises:
        MixDetError: The logs contain no validation with COCO metrics.
    """
    scores, losses, times = {}, {}, {}
    for entry in _log_entries(folder):
        if "coco/bbox_mAP" in entry:
            scores[entry["step"]] = {
                name: value for name, value in entry.items() if name.startswith("coco/")
            }
        elif "loss" in entry:
            losses[entry["step"]], times[entry["step"]] = entry["loss"], entry["time"]
    if not scores:
        raise MixDetError(
            f"{folder}: the log has no validation with COCO metrics: check val_evaluator and "
            "train_cfg of the config"
        )
    usage = _usage(folder)
    if usage:
        environment = environment | {"threads": usage["threads"]}
    return RunRecord(
        row=row,
        seed=seed,
        fingerprint=fingerprint,
        metrics=scores[max(scores)],
        curve=[[step, scores[step]["coco/bbox_mAP"]] for step in sorted(scores)],
        losses=[[step, losses[step]] for step in sorted(losses)],
        seconds_per_iteration=statistics.median(times.values()) if times else 0.0,
        environment=environment,
        minutes={name: usage[name] for name in ("wall", "cpu")} if usage else None,
    )


def describe_environment(threads: int | None = None) -> dict[str, Any]:
    """Return the versions and the hardware that a result was obtained with.

    Args:
        threads: Number of threads of a run. None means the number of threads of this process.
    """
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else processor()
    return {
        "mixdet": mixdet.__version__,
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in PACKAGES},
        "device": device,
        "cores": cores(),
        "threads": threads or torch.get_num_threads(),
    }


def _usage(folder: Path) -> dict[str, Any] | None:
    """Return the minutes and the threads of a run, over all processes that worked on it.

    Return None if a process did not write its line, for example because it was killed, or was
    started by `tools/train.py`.
    """
    file = folder / USAGE_FILE
    lines = file.read_text().splitlines() if file.is_file() else []
    if len(lines) < len([*folder.glob(SCALARS)]):  # each process writes its own log
        return None
    parts = [json.loads(line) for line in lines]
    total = {name: round(sum(part[name] for part in parts), 3) for name in ("wall", "cpu")}
    return total | {"threads": parts[-1]["threads"]} if parts else None


def _log_entries(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the entries of all logs of a work folder, the oldest first."""
    for path in sorted(folder.glob(SCALARS)):
        for line in path.read_text().splitlines():
            try:
                yield json.loads(line)
            except ValueError:  # The last line is incomplete if the run was killed.
                continue
