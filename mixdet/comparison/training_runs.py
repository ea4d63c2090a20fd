"""Train every config with every seed, each run in its own process."""

from __future__ import annotations

import hashlib
import json
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from mmdet.registry import DATASETS
from mmengine.config import Config

from mixdet.comparison.comparison_folder import Comparison, Plan, check_unique_names, read_json
from mixdet.comparison.row_costs import keep_matches, measure_rows
from mixdet.comparison.run_processes import (
    choose_lengths,
    run_environment,
    run_threads,
    start_worker,
)
from mixdet.comparison.run_record import describe_environment, read_run
from mixdet.config.data_paths import check_data, with_annotations
from mixdet.config.read import load_config
from mixdet.engine.training_length import TrainingLength
from mixdet.errors import MixDetError, one_line
from mixdet.outputs import write_atomically

# A file in the folder of a run, written at its start: the fingerprint and the length of the run
BEGUN = "begun.json"
# MixDet's hooks that change nothing of a training
OBSERVING_HOOKS = {"DataCheckHook", "ProgressHook", "ReportHook", "SettingsCheckHook"}


def train_all(plan: Plan, folder: Path, processes: int = 0) -> Comparison:
    """Train all runs of a plan that are not finished yet.

    Finished runs are kept, and interrupted runs are resumed. All configs are trained with the first
    seed, then all configs with the second seed, and so on. An unfinished comparison therefore has
    all runs of its first seeds. On Ctrl-C, each run writes a checkpoint and stops.

    Args:
        plan: Configs and seeds.
        folder: Folder of the comparison. It is created if it does not exist.
        processes: Number of runs at the same time. 0 means one run per GPU, or one run if there is
            no GPU. Runs are distributed over the GPUs. Without a GPU they share the CPU's cores.

    Returns:
        The comparison with all runs finished.

    Raises:
        MixDetError: A config cannot be read or has another validation set than the baseline, the
            folder holds runs that do not belong to the plan, finished or not, or a run failed. The
            error of a failed run is raised after the other runs, and names the logs of all failed
            runs.
    """
    check_unique_names(plan.configs)
    configs = {Path(path).stem: _read_config(plan, path) for path in plan.configs}
    _check_same_validation(plan, configs)
    known = {row: _fingerprints(cfg, plan.minutes) for row, cfg in configs.items()}
    fingerprints = {row: current for row, (current, *_) in known.items()}
    comparison = _open_comparison(plan, folder, known)
    queue = [
        (row, seed)
        for seed in plan.seeds
        for row in plan.rows
        if seed not in comparison.runs_of(row)
    ]
    with comparison.locked() as lock:
        _check_begun(comparison, known, queue)
        comparison.write()
        _make_data(configs, queue)
        # The number does not shrink when few runs are left, so all runs have the same threads.
        slots = min(
            processes or max(1, torch.cuda.device_count()), len(plan.rows) * len(plan.seeds)
        )
        if plan.minutes is not None and queue:
            choose_lengths(comparison, configs, slots, lock)
        failed_logs = _Pool(comparison, fingerprints, queue, slots, lock).run()
    if failed_logs:
        logs = ", ".join(map(str, failed_logs))
        raise MixDetError(f"{len(failed_logs)} of the runs failed: see {logs}")
    return comparison


class _Pool:
    """The processes of the runs, and the queue of the runs that are not started yet."""

    def __init__(
        self,
        comparison: Comparison,
        fingerprints: dict[str, str],
        queue: Sequence[tuple[str, int]],
        slots: int,
        lock: int,
    ) -> None:
        self.comparison, self.fingerprints = comparison, fingerprints
        self.queue, self.slots, self.lock = list(queue), slots, lock
        self.free_slots = list(range(slots))
        self.active: dict[tuple[str, int], tuple[subprocess.Popen, int, float]] = {}
        self.minutes: list[float] = []
        self.failed_logs: list[Path] = []
        self.row_ended = False

    def run(self) -> list[Path]:
        """Run the whole queue; return the logs of the runs that failed.

        A row is measured as soon as its last run is finished. Latencies need a quiet machine, so
        the next runs start only after the active ones have ended and the row is measured.
        """
        total = len(self.comparison.plan.rows) * len(self.comparison.plan.seeds)
        done = total - len(self.queue)
        print(f"{done} of {total} runs are done; training {self.slots} at a time", flush=True)
        self._measure()  # rows that an interrupted comparison has not measured
        try:
            while self.queue or self.active:
                if not self.active and self.row_ended:
                    self._measure()
                while self.queue and self.free_slots and not self.row_ended:
                    self._start(*self.queue.pop(0))
                time.sleep(0.2)
                for key, (process, *_) in list(self.active.items()):
                    if process.poll() is not None:
                        self._finish(*key)
        except BaseException:
            print("stopping: each run writes a checkpoint, and the same command resumes from it")
            for process, *_ in self.active.values():
                process.send_signal(signal.SIGINT)
            for process, *_ in self.active.values():
                process.wait()
            raise
        self._measure()
        return self.failed_logs

    def _measure(self) -> None:
        """Measure the finished rows."""
        self.row_ended = False
        with _warned("not all rows are measured"):
            measure_rows(self.comparison)

    def _start(self, row: str, seed: int) -> None:
        plan, slot = self.comparison.plan, self.free_slots.pop()
        folder = self.comparison.run_folder(row, seed)
        length = self.comparison.lengths.get(row)
        arguments = {
            "config": plan.configs[plan.rows.index(row)],
            "work_dir": str(folder),
            "seed": seed,
            "resume": "auto",
            "data_root": plan.data_root,
            "cfg_options": plan.cfg_options,
            "length": length and length.as_dict(),
        }
        begun = {"fingerprint": self.fingerprints[row], "length": arguments["length"]}
        write_atomically(folder / BEGUN, json.dumps(begun).encode())
        environment = run_environment(self.slots, slot)
        process = start_worker(arguments, folder / "output.txt", environment, self.lock)
        self.active[row, seed] = process, slot, time.monotonic()

    def _finish(self, row: str, seed: int) -> None:
        process, slot, started = self.active.pop((row, seed))
        self.free_slots.append(slot)
        folder = self.comparison.run_folder(row, seed)
        minutes = (time.monotonic() - started) / 60
        if process.returncode:
            log = folder / "output.txt"
            self.failed_logs.append(log)
            print(f"{row} seed {seed} failed (exit code {process.returncode}): see {log}")
            return
        environment = describe_environment(run_threads(self.slots))
        record = read_run(row, seed, self.fingerprints[row], folder, environment)
        self.comparison.runs.append(record)
        self.comparison.rows.pop(row, None)  # measured without this run, so measure again
        self.comparison.write()
        with _warned("its detections are not kept"):
            keep_matches(self.comparison, row, seed)
        self.row_ended |= self.comparison.is_finished(row)
        self.minutes.append(minutes)
        runs_left = len(self.queue) + len(self.active)
        minutes_left = runs_left * statistics.mean(self.minutes) / self.slots
        print(
            f"{row} seed {seed}: {100 * record.metrics['coco/bbox_mAP']:.1f} mAP in "
            f"{minutes:.1f} minutes; {runs_left} runs left, about {minutes_left:.0f} minutes",
            flush=True,
        )


@contextmanager
def _warned(text: str) -> Iterator[None]:
    """Print an error as a warning, so that the other runs go on."""
    try:
        yield
    except Exception as error:  # the code of a config can raise anything
        reason = error if isinstance(error, MixDetError) else one_line(error)
        print(f"warning: {text}: {reason}", file=sys.stderr, flush=True)


def _read_config(plan: Plan, path: str) -> Config:
    cfg = load_config(path, plan.cfg_options, data_root=plan.data_root)
    check_data(cfg, ("train_dataloader", "val_dataloader"))
    return cfg


def _check_same_validation(plan: Plan, configs: dict[str, Config]) -> None:
    """Raise a `MixDetError` if a validation file or its classes differ from the baseline's."""
    scored = {row: _scored_on(cfg, plan, row) for row, cfg in configs.items()}
    baseline, *rows = plan.rows
    for row in rows:
        for ours, baselines in zip(scored[row], scored[baseline], strict=True):
            if ours != baselines:
                raise MixDetError(
                    f"{row} is validated on {ours} but the baseline {baseline} on {baselines}: "
                    "give configs with the same validation set and the same classes"
                )


def _scored_on(cfg: Config, plan: Plan, row: str) -> tuple[str, str]:
    """Return the annotation file of the validation, and the names of the classes as one text."""
    path = plan.configs[plan.rows.index(row)]
    try:
        ann_file = cfg.val_evaluator.ann_file
    except AttributeError as error:
        raise MixDetError(f"{path}: val_evaluator must be one metric with an ann_file") from error
    classes: tuple[str, ...] = ()
    for _, dataset in with_annotations(cfg, ("val_dataloader",)):
        metainfo = DATASETS.get(dataset["type"])._load_metainfo(dataset.get("metainfo"))
        classes = tuple(metainfo.get("classes", ()))
    return ann_file, f"the classes {', '.join(classes)}"


def _fingerprints(cfg: Config, minutes: float | None) -> list[str]:
    """Return the fingerprint of a config, and those that older versions of MixDet gave to it.

    The hooks that only observe a training do not count: with or without them, it is the same.
    Older versions counted them, and had no `progress`.
    """
    content = {key: value for key, value in cfg.to_dict().items() if key != "work_dir"}
    if minutes is not None:
        content["minutes"] = minutes
    hooks = content["default_hooks"]
    observing = {name for name, hook in hooks.items() if _only_observes(hook)}
    fingerprints = []
    for left_out in (observing, {"progress"} & observing, set()):
        counted = {name: hook for name, hook in hooks.items() if name not in left_out}
        text = json.dumps(content | {"default_hooks": counted}, sort_keys=True, default=str)
        fingerprints.append(hashlib.sha256(text.encode()).hexdigest())
    return fingerprints


def _only_observes(hook: dict[str, Any] | None) -> bool:
    kind = str((hook or {}).get("type"))
    return kind.removeprefix("mmdet.") in OBSERVING_HOOKS


def _open_comparison(plan: Plan, folder: Path, known: dict[str, list[str]]) -> Comparison:
    """Return the comparison in the folder, or a new one, with the configs and seeds of the plan.

    Raises:
        MixDetError: The folder holds runs that do not belong to the plan.
    """
    if not (folder / "comparison.json").is_file():
        return Comparison(folder, plan)
    stored = Comparison.read(folder)
    for run in stored.runs:
        if run.row in known and run.fingerprint not in known[run.row]:
            raise MixDetError(
                f"{folder} holds runs of another version of {run.row} (the config, --cfg-options, "
                "--minutes or MixDet's defaults have changed): choose another --out, or delete "
                "the runs of this config and their lines in runs.jsonl"
            )
    missing = sorted({run.row for run in stored.runs} - set(plan.rows))
    if missing:
        raise MixDetError(
            f"{folder} holds runs of {', '.join(missing)}: give these configs too, or choose "
            "another --out"
        )
    same_minutes = plan.minutes == stored.plan.minutes
    lengths = {row: stored.lengths[row] for row in stored.lengths if row in plan.rows}
    return Comparison(folder, plan, stored.runs, stored.rows, lengths if same_minutes else {})


def _check_begun(
    comparison: Comparison, known: dict[str, list[str]], queue: Sequence[tuple[str, int]]
) -> None:
    """Check that the unfinished runs with a checkpoint belong to the plan, since they are resumed.

    A row whose length is not known gets the length that its unfinished run was started with.

    Raises:
        MixDetError: An unfinished run has another config, other options or another length.
    """
    for row, seed in queue:
        folder = comparison.run_folder(row, seed)
        if not (folder / BEGUN).is_file() or not any(folder.glob("*.pth")):
            continue
        begun = read_json(folder / BEGUN)
        length = begun["length"] and TrainingLength(**begun["length"])
        same_length = comparison.lengths.setdefault(row, length) if length else None
        if begun["fingerprint"] not in known[row] or same_length != length:
            raise MixDetError(
                f"{folder} holds an unfinished run of another version of {row} (the config, "
                "--cfg-options, --minutes or MixDet's defaults have changed): choose another "
                "--out, or delete this folder"
            )


def _make_data(configs: dict[str, Config], queue: Sequence[tuple[str, int]]) -> None:
    """Build each data set that writes its own files, before several runs write them at once."""
    data_roots = set()
    for row in {row for row, _ in queue}:
        dataset = configs[row].train_dataloader.dataset
        dataset_class = DATASETS.get(dataset.type)
        makes_its_data = getattr(dataset_class, "makes_its_data", False)
        if makes_its_data and dataset.data_root not in data_roots:
            data_roots.add(dataset.data_root)
            DATASETS.build(dataset)
