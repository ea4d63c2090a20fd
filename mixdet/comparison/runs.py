"""Train every config with every seed, each run in a process of its own."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config

import mixdet
from mixdet.comparison.folder import Comparison, Plan, RunRecord, names_are_unique
from mixdet.config.data_paths import check_data
from mixdet.config.read import load_config
from mixdet.errors import MixDetError
from mixdet.machine import cores, processor

PACKAGES = ("torch", "torchvision", "mmengine", "mmdet", "pycocotools", "numpy")


def train_all(plan: Plan, folder: Path, processes: int = 0) -> Comparison:
    """Train what is missing; what is done stays, what was interrupted goes on.

    Runs go seed by seed, so that an unfinished comparison holds all rows of its first seeds. Ctrl-C
    stops the runs, each with a checkpoint to go on from.

    Args:
        plan: What to compare.
        folder: Where the comparison is, or is to be.
        processes: Runs side by side; 0 is one a GPU, or one on a CPU. On a CPU they share its
            cores, on GPUs they take turns.

    Returns:
        The comparison, every run done.

    Raises:
        MixDetError: A config cannot be read or does not fit the others, the folder holds runs of
            other configs under these names, or a run failed (its log is named; the others are
            finished first).
    """
    names_are_unique(plan.configs)
    configs = {row: _config(plan, path) for row, path in zip(plan.rows, plan.configs, strict=True)}
    _same_validation(plan, configs)
    fingerprints = {row: _fingerprint(cfg) for row, cfg in configs.items()}
    comparison = _opened(plan, folder, fingerprints)
    queue = [
        (row, seed)
        for seed in plan.seeds
        for row in plan.rows
        if seed not in comparison.runs_of(row)
    ]
    with comparison.locked() as lock:
        comparison.write()
        _make_data(configs, queue)
        workers = processes or max(1, torch.cuda.device_count())
        failed = _Pool(comparison, fingerprints, queue, workers, lock).run()
    if failed:
        logs = ", ".join(str(path) for path in failed)
        raise MixDetError(f"{len(failed)} of the runs failed: see {logs}")
    return comparison


class _Pool:
    """Runs at work, and those that wait."""

    def __init__(
        self,
        comparison: Comparison,
        fingerprints: dict[str, str],
        queue: Sequence[tuple[str, int]],
        workers: int,
        lock: int,
    ) -> None:
        self.comparison, self.fingerprints = comparison, fingerprints
        self.queue, self.lock = list(queue), lock
        self.free = list(range(min(workers, max(1, len(queue)))))
        self.threads = max(1, cores() // len(self.free))
        self.live: dict[tuple[str, int], tuple[subprocess.Popen, int, float]] = {}
        self.minutes: list[float] = []
        self.failed: list[Path] = []

    def run(self) -> list[Path]:
        """Work the queue off; returns the logs of the runs that failed."""
        whole = len(self.comparison.plan.rows) * len(self.comparison.plan.seeds)
        print(f"{whole - len(self.queue)} of {whole} runs are done, {len(self.free)} at a time")
        try:
            while self.queue or self.live:
                while self.queue and self.free:
                    self._start(*self.queue.pop(0))
                time.sleep(0.2)
                for key, (process, *_) in list(self.live.items()):
                    if process.poll() is not None:
                        self._finish(*key)
        except BaseException:
            print("stopping: each run writes a checkpoint; the same command goes on from there")
            for process, *_ in self.live.values():
                process.send_signal(signal.SIGINT)
            for process, *_ in self.live.values():
                process.wait()
            raise
        return self.failed

    def _start(self, row: str, seed: int) -> None:
        plan, slot = self.comparison.plan, self.free.pop()
        folder = self.comparison.run_folder(row, seed)
        folder.mkdir(parents=True, exist_ok=True)
        arguments = {
            "config": plan.configs[plan.rows.index(row)],
            "work_dir": str(folder),
            "seed": seed,
            "resume": "auto",
            "data_root": plan.data_root,
            "cfg_options": plan.cfg_options,
        }
        environment = os.environ | {"OMP_NUM_THREADS": str(self.threads)}
        if torch.cuda.is_available():
            environment["CUDA_VISIBLE_DEVICES"] = _visible(slot)
        with (folder / "output.txt").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", f"{__package__}.worker", json.dumps(arguments)],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                pass_fds=(self.lock,),
                start_new_session=True,  # a terminal's Ctrl-C reaches it through us, and once
            )
        self.live[row, seed] = process, slot, time.monotonic()

    def _finish(self, row: str, seed: int) -> None:
        process, slot, started = self.live.pop((row, seed))
        self.free.append(slot)
        folder = self.comparison.run_folder(row, seed)
        minutes = (time.monotonic() - started) / 60
        if process.returncode:
            self.failed.append(folder / "output.txt")
            print(f"{row} seed {seed} failed (exit code {process.returncode}): {self.failed[-1]}")
            return
        environment = describe_environment(self.threads)
        record = read_run(row, seed, self.fingerprints[row], folder, environment)
        self.comparison.runs.append(record)
        self.comparison.rows = {}  # measured with fewer runs
        self.comparison.write()
        self.minutes.append(minutes)
        waiting = len(self.queue) + len(self.live)
        left = waiting * statistics.mean(self.minutes) / (len(self.live) + len(self.free))
        print(
            f"{row} seed {seed}: {100 * record.metrics['coco/bbox_mAP']:.1f} mAP in "
            f"{minutes:.1f} minutes; {waiting} left, about {left:.0f} minutes",
            flush=True,
        )


def read_run(
    row: str, seed: int, fingerprint: str, folder: Path, environment: dict[str, Any]
) -> RunRecord:
    """Collect a finished run from what mmengine wrote, also when it was resumed.

    Raises:
        MixDetError: There is no validation in its log.
    """
    scores, losses, times = {}, {}, {}
    for entry in _scalars(folder):
        if "coco/bbox_mAP" in entry:
            scores[entry["step"]] = {
                name: value for name, value in entry.items() if name.startswith("coco/")
            }
        elif "loss" in entry:
            losses[entry["step"]], times[entry["step"]] = entry["loss"], entry["time"]
    if not scores:
        raise MixDetError(f"{folder}: the log has no validation with COCO's numbers")
    return RunRecord(
        row=row,
        seed=seed,
        fingerprint=fingerprint,
        metrics=scores[max(scores)],
        curve=[[step, scores[step]["coco/bbox_mAP"]] for step in sorted(scores)],
        losses=[[step, losses[step]] for step in sorted(losses)],
        seconds_per_iteration=statistics.median(times.values()) if times else 0.0,
        environment=environment,
    )


def describe_environment(threads: int | None = None) -> dict[str, Any]:
    """Versions and hardware, for a result to carry."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else processor()
    return {
        "mixdet": mixdet.__version__,
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in PACKAGES},
        "device": device,
        "cores": cores(),
        "threads": threads or torch.get_num_threads(),
    }


def _scalars(folder: Path) -> Iterator[dict[str, Any]]:
    """Entries of all logs of a work folder, oldest first; a line cut off by a kill is left out."""
    for path in sorted(folder.glob("*/vis_data/scalars.json")):
        for line in path.read_text().splitlines():
            try:
                yield json.loads(line)
            except ValueError:
                continue


def _config(plan: Plan, path: str) -> Config:
    cfg = load_config(path, plan.cfg_options, data_root=plan.data_root)
    check_data(cfg, ("train_dataloader", "val_dataloader"))
    return cfg


def _same_validation(plan: Plan, configs: dict[str, Config]) -> None:
    files = {row: _ann_file(cfg, plan, row) for row, cfg in configs.items()}
    base, *rows = plan.rows
    for row in rows:
        if files[row] != files[base]:
            raise MixDetError(
                f"{row} is validated on {files[row]} and {base} on {files[base]}: "
                "they do not compare"
            )


def _ann_file(cfg: Config, plan: Plan, row: str) -> str:
    try:
        return cfg.val_evaluator.ann_file
    except AttributeError as error:
        path = plan.configs[plan.rows.index(row)]
        raise MixDetError(f"{path}: val_evaluator must be one metric with an ann_file") from error


def _fingerprint(cfg: Config) -> str:
    content = {key: value for key, value in cfg.to_dict().items() if key != "work_dir"}
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def _opened(plan: Plan, folder: Path, fingerprints: dict[str, str]) -> Comparison:
    """The comparison that the folder holds, with more rows or seeds, or a new one."""
    if not (folder / "comparison.json").is_file():
        return Comparison(folder, plan)
    old = Comparison.read(folder)
    for run in old.runs:
        if run.fingerprint != fingerprints.get(run.row, run.fingerprint):
            raise MixDetError(
                f"{folder} holds runs of another {run.row}: its config or --cfg-options changed "
                "since; choose another --out, or delete that row's runs and its lines in "
                "runs.jsonl"
            )
    lost = sorted({run.row for run in old.runs} - set(plan.rows))
    if lost:
        raise MixDetError(f"{folder} holds runs of {', '.join(lost)}: name that config too")
    return Comparison(folder, plan, old.runs, old.rows)


def _make_data(configs: dict[str, Config], queue: Sequence[tuple[str, int]]) -> None:
    """Data sets that make their files do so once, before runs side by side would."""
    from mmdet.registry import DATASETS

    made = set()
    for row in {row for row, _ in queue}:
        dataset = configs[row].train_dataloader.dataset
        kind = DATASETS.get(dataset.type)
        if getattr(kind, "makes_its_data", False) and dataset.data_root not in made:
            made.add(dataset.data_root)
            DATASETS.build(dataset)


def _visible(slot: int) -> str:
    """The GPU of a slot, among those that this process may use."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    devices = named.split(",") if named else [str(i) for i in range(torch.cuda.device_count())]
    return devices[slot % len(devices)]
