"""Measurements of a comparison that are taken once per row (config), not once per seed.

The measurements are the parameters, the multiply-adds, the latencies on PyTorch and on ONNX
Runtime, and the number of objects in the training data. They need the checkpoint of a run, and are
taken as soon as all runs of a row are finished. `keep_matches` stores which objects the detections
of finished runs match. So a report can be written without checkpoints.
"""

from __future__ import annotations

import datetime
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from mixdet.analysis.complexity import count_complexity
from mixdet.comparison.comparison_folder import Comparison, Plan, RowRecord
from mixdet.comparison.image_matches import ImageAP, MatchFile, match_images
from mixdet.comparison.run_record import describe_environment
from mixdet.comparison.score_intervals import bootstrap_images
from mixdet.config.read import load_config
from mixdet.data_check.used_data import training_objects
from mixdet.deploy import export
from mixdet.deploy.labeled_images import LabeledImages, load_labeled_images
from mixdet.errors import MixDetError, one_line
from mixdet.evaluation import ScoredData
from mixdet.evaluation.coco_scores import sorted_ids
from mixdet.images import as_rgb
from mixdet.inference import Detector
from mixdet.inference.manifest import MANIFEST
from mixdet.machine import processor

WARMUP_ROUNDS, TIMED_ROUNDS = 2, 30
LATENCY_IMAGES = 8
DETECTIONS = "val_detections.json"


def measure_rows(comparison: Comparison) -> None:
    """Measure the finished rows that are not measured yet, and write `rows.json`.

    The latencies of all finished rows that still have a checkpoint are measured in turns. Rows that
    were measured before are measured again.

    Args:
        comparison: The comparison. Its `rows` are changed in place.

    Raises:
        MixDetError: The validation images are missing, or rows have no checkpoint or cannot be
            measured. The other rows are measured before the error is raised.
    """
    plan = comparison.plan
    finished = [row for row in plan.rows if comparison.is_finished(row)]
    checkpoints = {row: _checkpoint(comparison, row) for row in finished}
    rows = [row for row in finished if checkpoints[row] is not None]
    if not comparison.rows.keys() >= {*rows}:
        _measure_rows(comparison, {row: checkpoints[row] for row in rows})
    lost = [row for row in finished if row not in comparison.rows]
    if lost:
        raise MixDetError(
            f"{comparison.folder / 'runs'} has no checkpoint of {', '.join(lost)} to measure it "
            "with: delete the line of one of its runs from runs.jsonl, and train this run again"
        )


def _measure_rows(comparison: Comparison, checkpoints: dict[str, Path]) -> None:
    """Measure rows by their checkpoints, and write `rows.json`.

    Raises:
        MixDetError: The validation images are missing, or rows cannot be measured. The other rows
            are measured before the error is raised.
    """
    plan, rows = comparison.plan, [*checkpoints]
    images, networks, exports, records = _latency_images(comparison), {}, {}, {}
    hardware = _hardware()
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    failed: dict[str, str] = {}
    for row in rows:
        try:
            record = _untimed_record(plan, row)  # also imports the modules of the row's config
            exports[row] = _export(checkpoints[row])
            detectors = {("torch", row): _torch_detector(checkpoints[row])}
            if isinstance(exports[row], Path):
                detectors["onnx", row] = Detector(exports[row], runtime="onnx", threads=1)
            for detector in detectors.values():
                detector(images[0])
        except Exception as error:  # the network of a user can raise anything
            failed[row] = str(error) if isinstance(error, MixDetError) else one_line(error)
        else:
            networks |= detectors
            records[row] = record
    latencies = _time_in_turns(networks, images)
    for row, record in records.items():
        on_onnx = isinstance(exports[row], Path)
        comparison.rows[row] = replace(
            record,
            latency_ms=latencies["torch", row],
            latency_of=hardware,
            onnx_ms=latencies.get(("onnx", row)),
            onnx_of=processor() if on_onnx else exports[row],
            measured_at=now,
        )
    comparison.write()
    if failed:
        reasons = "; ".join(f"{row}: {reason}" for row, reason in failed.items())
        raise MixDetError(
            f"{reasons}: the other rows are measured: mend this, and repeat the same command"
        )


def _untimed_record(plan: Plan, row: str) -> RowRecord:
    """Return the record of a row without its latencies."""
    config = plan.configs[plan.rows.index(row)]
    complexity = count_complexity(config, plan.cfg_options)
    cfg = load_config(config, plan.cfg_options, data_root=plan.data_root)
    return RowRecord(
        params=complexity.params,
        madds=complexity.madds,
        input_hw=complexity.input_hw,
        latency_ms=(0.0, 0.0, 0.0),
        latency_of="",
        train_objects=training_objects(cfg),
    )


def keep_matches(comparison: Comparison, *renewed: str | int) -> None:
    """Write which objects the detections of the finished runs match to `matches.npz`.

    Runs that are already in the file are not matched again. A run without `val_detections.json` is
    left out.

    Args:
        comparison: The comparison.
        renewed: Row and seed of a run that is matched again if the file has it, or nothing.

    Raises:
        MixDetError: The validation set or `matches.npz` cannot be read.
    """
    matches = MatchFile.read(comparison.folder)
    matches.runs.pop(renewed, None)
    files = {}
    for run in comparison.runs:
        file = comparison.run_folder(run.row, run.seed) / DETECTIONS
        if (run.row, run.seed) not in matches.runs and file.is_file():
            files[run.row, run.seed] = file
    if not files:
        return
    scored = validation_data(comparison)
    ids = sorted_ids(scored.category_ids)
    matches.classes = [str(scored.annotations.cats[number].get("name")) for number in ids]
    for key, file in files.items():
        matches.runs[key] = match_images(
            scored.annotations, json.loads(file.read_text()), scored.image_ids, scored.category_ids
        )
    matches.write(comparison.folder)


def measure_intervals(comparison: Comparison) -> None:
    """Write the interval over images of each measured row, from `matches.npz`, to `rows.json`.

    As in the interval over seeds, a row is scored with the seeds that the baseline has too. The
    intervals stay as they are if the file lacks one of these runs.
    """
    plan, matches = comparison.plan, MatchFile.read(comparison.folder)
    baseline, *rows = plan.rows
    paired = {
        row: sorted(comparison.runs_of(row).keys() & comparison.runs_of(baseline).keys())
        for row in rows
    }
    if any(
        (name, seed) not in matches.runs
        for row in rows
        for name in (row, baseline)
        for seed in paired[row]
    ):
        return
    intervals = {}
    for seeds in {*map(tuple, paired.values())} - {()}:  # rows with the same seeds share the draws
        names = [baseline, *(row for row in rows if tuple(paired[row]) == seeds)]
        scorers = {name: [ImageAP(matches.runs[name, seed]) for seed in seeds] for name in names}
        images = len(matches.runs[baseline, seeds[0]][0].objects)
        intervals |= bootstrap_images(scorers, images)
    updated = {
        row: replace(record, images_interval=tuple(intervals[row]))
        for row, record in comparison.rows.items()
        if row in intervals
    }
    if any(comparison.rows[row] != updated[row] for row in updated):
        comparison.rows |= updated
        comparison.write()


def validation_data(comparison: Comparison) -> ScoredData:
    """Return the annotations, the classes and the images of the validation set."""
    images = _validation_images(comparison)
    return ScoredData(images.annotations, images.category_ids, images.image_ids)


def _validation_images(comparison: Comparison) -> LabeledImages:
    plan = comparison.plan
    cfg = load_config(plan.configs[0], plan.cfg_options, data_root=plan.data_root)
    return load_labeled_images(cfg, "val_dataloader")


def _checkpoint(comparison: Comparison, row: str) -> Path | None:
    """Return the last checkpoint of a run of a row, or None if no run has one any more."""
    for seed in sorted(comparison.runs_of(row)):
        folder = comparison.run_folder(row, seed)
        name = folder / "last_checkpoint"
        if name.is_file():
            checkpoint = folder / Path(name.read_text().strip()).name
            if checkpoint.is_file():
                return checkpoint
    return None


def _torch_detector(checkpoint: Path) -> Detector:
    return Detector(checkpoint, device="cuda" if torch.cuda.is_available() else "cpu")


def _export(checkpoint: Path) -> Path | str:
    """Export a checkpoint for ONNX Runtime; return the folder, or why it cannot be exported."""
    folder = checkpoint.parent / "onnx"
    if not (folder / MANIFEST).is_file():
        try:
            export(None, checkpoint, folder, targets=("onnx",), kinds=("raw",), check=False)
        except MixDetError as error:
            return str(error)
        except Exception as error:  # torch's exporter can raise any error for a network of a user
            return one_line(error)
    return folder


def _hardware() -> str:
    environment = describe_environment()
    hardware = f"{environment['device']}, batch 1"
    if torch.cuda.is_available():
        return hardware
    threads = environment["threads"]
    return f"{hardware}, {threads} {'thread' if threads == 1 else 'threads'}"


def _time_in_turns(
    networks: dict[tuple[str, str], Detector], images: Sequence[np.ndarray]
) -> dict[tuple[str, str], tuple[float, float, float]]:
    """Time detectors in turns. Return each detector's quartiles of milliseconds per image."""
    times: dict[tuple[str, str], list[float]] = {key: [] for key in networks}
    for index in range(-WARMUP_ROUNDS, TIMED_ROUNDS):
        image = images[index % len(images)]
        for key, detector in networks.items():
            start = time.perf_counter()
            detector(image)  # The results are NumPy arrays, so the GPU has finished.
            if index >= 0:
                times[key].append(1000 * (time.perf_counter() - start))
    return {
        key: tuple(np.percentile(milliseconds, (25, 50, 75)).tolist())
        for key, milliseconds in times.items()
    }


def _latency_images(comparison: Comparison) -> list[np.ndarray]:
    return [as_rgb(path) for path in _validation_images(comparison).files[:LATENCY_IMAGES]]
