"""`scale`: measure what annotations of COCO's size cost, against mmdet and another version."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from benchmarks.scale_files import ANNOTATIONS, IMAGES, large_data_set
from benchmarks.timing import format_range, median_and_range, speedup, turn_order
from mixdet.errors import MixDetError
from mixdet.machine import machine_record
from mixdet.visual.tables import text_table

SCRIPT = Path(__file__).with_name("scale_process.py")
CHECKOUT = SCRIPT.parents[1]
SIDES = ("peer", "mixdet")
# What is measured, with the task of `scale_process` for the peer and for MixDet
TASKS = {
    "data set": ("mmdet", "data set"),
    "training up to the first forward pass": ("training", "training"),
    "true boxes of the metric": ("metric", "metric"),
}


def measure(
    rounds: int = 5,
    baseline: str | None = None,
    images: int = IMAGES,
    annotations: int = ANNOTATIONS,
) -> dict[str, object]:
    """Measure CPU time and memory beyond the imports, each time in a new process.

    The peer of the data set is mmdet's `CocoDataset`. The peer of the other tasks is another
    version of MixDet.

    Args:
        rounds: Number of rounds.
        baseline: Folder of a checkout of another version. None measures the data sets only.
        images: Number of training images.
        annotations: Number of their annotations.

    Returns:
        machine, settings and rows. Each row has CPU seconds and MB of memory: at the peak, at the
        end, and the unique memory of each of two workers of a data loader.

    Raises:
        MixDetError: The baseline is no checkout, or a process failed.
    """
    if baseline is not None and not Path(baseline, "mixdet").is_dir():
        raise MixDetError(f"--baseline {baseline}: no checkout of MixDet: it has no folder mixdet")
    measured_on = machine_record()
    root = large_data_set(images, annotations)
    runs = {
        (name, side): (task, Path(baseline) if side == "peer" and peer == ours else CHECKOUT)
        for name, (peer, ours) in TASKS.items()
        for side, task in zip(SIDES, (peer, ours), strict=True)
        if peer != ours or baseline is not None
    }
    measured: dict[tuple[str, str], list[dict]] = {run: [] for run in runs}
    for turn, run in turn_order(runs, rounds):
        if turn:  # each process is new, so no round is needed to fill caches
            measured[run].append(_measure_process(*runs[run], root))
    rows = [
        {
            "task": name,
            "speedup": speedup(*(_values(measured[name, side], "cpu") for side in SIDES)),
            "memory_ratio": speedup(*(_values(measured[name, side], "peak_mb") for side in SIDES)),
            **{side: _summary(measured[name, side]) for side in SIDES},
        }
        for name in TASKS
        if (name, "peer") in runs
    ]
    settings = {"rounds": rounds, "images": images, "annotations": annotations}
    settings["baseline"] = baseline and _version(baseline)
    return {"kind": "scale", "machine": measured_on, "settings": settings, "rows": rows}


def _version(checkout: str) -> str:
    command = ["git", "-C", checkout, "describe", "--always", "--dirty"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    return run.stdout.strip() or "another version"


def _measure_process(task: str, checkout: Path, root: Path) -> dict[str, float]:
    paths = [str(checkout), *filter(None, [os.environ.get("PYTHONPATH")])]
    run = subprocess.run(
        [sys.executable, SCRIPT, task, root],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        cwd=checkout,
        capture_output=True,
        text=True,
        check=False,
    )
    if run.returncode:
        raise MixDetError(f"{task}: the process failed: {run.stderr.strip().splitlines()[-1:]}")
    return json.loads(run.stdout.splitlines()[-1])


def _values(results: list[dict], key: str) -> list[float]:
    return [result[key] for result in results]


def _summary(results: list[dict]) -> dict[str, dict[str, float]]:
    return {key: median_and_range(_values(results, key)) for key in results[0]}


def table(record: dict[str, object], markdown: bool = False) -> str:
    """Lay out the record of `measure` as text."""
    rows = []
    for row in record["rows"]:
        for side in SIDES:
            values, is_ours = row[side], side == "mixdet"
            peer = "mmdet" if row["task"] == "data set" else record["settings"]["baseline"]
            rows.append(
                [
                    row["task"],
                    "MixDet" if is_ours else peer,
                    format_range(values["cpu"], 1),
                    format_range(values["peak_mb"]),
                    format_range(values["stays_mb"]),
                    format_range(values["worker_mb"]) if "worker_mb" in values else "",
                    format_range(row["speedup"], 1) if is_ours else "",
                    format_range(row["memory_ratio"], 1) if is_ours else "",
                ]
            )
    header = ["what", "program", "CPU seconds", "peak MB", "MB at the end", "MB of a worker"]
    return text_table([*header, "times faster", "times less memory"], rows, markdown)
