"""The files of a comparison: their contents, and how they are read and written."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mixdet.engine.training_length import TrainingLength
from mixdet.errors import MixDetError
from mixdet.outputs import writable_folder, write_atomically

# Renamed keys of rows.json, as {old name: new name}. Old files still have the old names.
RENAMED_KEYS = {"input_size": "input_hw", "pictures_interval": "images_interval"}


@dataclass(frozen=True)
class Plan:
    """The configs and seeds of a comparison.

    Attributes:
        configs: Paths of the configs; the first is the baseline.
        seeds: Every config is trained with each of these seeds.
        cfg_options: `key=value` overrides of all configs.
        data_root: Folder to use instead of the data folder of each config, or None.
        command: The command line of the comparison, for the report.
        minutes: Minutes that each run may take, or None if the configs say how long a run is.
    """

    configs: tuple[str, ...]
    seeds: tuple[int, ...]
    cfg_options: tuple[str, ...] = ()
    data_root: str | None = None
    command: str = ""
    minutes: float | None = None

    @property
    def rows(self) -> list[str]:
        """Names of the rows: the file name of each config without its suffix."""
        return [Path(config).stem for config in self.configs]


@dataclass(frozen=True)
class RunRecord:
    """The result of one training run: a line of `runs.jsonl`.

    Attributes:
        row: Name of the config.
        seed: Seed of the run.
        fingerprint: Hash of the config without the seed and the work folder.
        metrics: COCO's 12 metrics after the last epoch, by their names in mmengine's log.
        curve: (epoch, mAP) of each validation.
        losses: (iteration, loss) of each entry of the log. The loss is the mean over the iterations
            since the previous entry.
        seconds_per_iteration: Time of an iteration, data loading included: the median over the
            entries of the log.
        environment: Versions, hardware and threads.
        minutes: Duration of the run: 'wall' is the elapsed time, 'cpu' the processor time of the
            process and its workers. None if a part of the run was not recorded.
    """

    row: str
    seed: int
    fingerprint: str
    metrics: dict[str, float]
    curve: list[list[float]]
    losses: list[list[float]]
    seconds_per_iteration: float
    environment: dict[str, Any]
    minutes: dict[str, float] | None = None


@dataclass(frozen=True)
class RowRecord:
    """The measurements that are taken once per row, not once per seed: an entry of `rows.json`.

    Attributes:
        params: Parameters of the detector.
        madds: Multiply-adds for one image.
        input_hw: (height, width) in pixels of the image that `madds` are counted for.
        latency_ms: Lower quartile, median and upper quartile of the time for one image,
            post-processing included, in milliseconds.
        latency_of: Hardware that the latency was measured on.
        images_interval: Mean, lower bound and upper bound of the difference in mAP to the baseline,
            from a bootstrap over validation images. None for the baseline.
        onnx_ms: As `latency_ms`, for the exported network on ONNX Runtime with one thread. None if
            it was not measured.
        onnx_of: Processor that `onnx_ms` was measured on, or why it was not measured.
        measured_at: When the latencies were measured. Rows with the same time were measured in
            turns.
        train_objects: Number of objects of each class in the training data, or None if unknown.
    """

    params: int
    madds: int
    input_hw: tuple[int, int]
    latency_ms: tuple[float, float, float]
    latency_of: str
    images_interval: tuple[float, float, float] | None = None
    onnx_ms: tuple[float, float, float] | None = None
    onnx_of: str = ""
    measured_at: str = ""
    train_objects: dict[str, int] | None = None


@dataclass
class Comparison:
    """A comparison as stored in its folder.

    Attributes:
        folder: The folder.
        plan: Configs and seeds.
        runs: Results of the finished runs.
        rows: Measurements by name of the row. A row is measured after its last run.
        lengths: Length of each run of a row, by name of the row. Empty if the plan has no minutes.
    """

    folder: Path
    plan: Plan
    runs: list[RunRecord] = field(default_factory=list)
    rows: dict[str, RowRecord] = field(default_factory=dict)
    lengths: dict[str, TrainingLength] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> Comparison:
        """Read a comparison from its folder.

        Raises:
            MixDetError: The folder holds no comparison, or one of its files is damaged.
        """
        file = folder / "comparison.json"
        if not file.is_file():
            raise MixDetError(
                f"{folder}: no comparison here ({file.name} is missing): give the folder of a "
                "comparison"
            )
        content = read_json(file)
        lengths = content.pop("lengths", {})
        comparison = cls(folder, Plan(**{key: _as_tuple(content[key]) for key in content}))
        comparison.lengths = {row: TrainingLength(**lengths[row]) for row in lengths}
        runs_file, rows_file = folder / "runs.jsonl", folder / "rows.json"
        if runs_file.is_file():
            comparison.runs = [RunRecord(**entry) for entry in read_json(runs_file, lines=True)]
        if rows_file.is_file():
            comparison.rows = {
                row: RowRecord(**{RENAMED_KEYS.get(key, key): entry[key] for key in entry})
                for row, entry in read_json(rows_file).items()
            }
        return comparison

    def write(self) -> None:
        """Write the plan, the runs and the rows."""
        order = {row: index for index, row in enumerate(self.plan.rows)}
        self.runs.sort(key=lambda run: (order[run.row], run.seed))
        rows = {row: asdict(self.rows[row]) for row in sorted(self.rows, key=order.get)}
        plan = asdict(self.plan)
        if self.lengths:
            plan["lengths"] = {row: length.as_dict() for row, length in self.lengths.items()}
        for name, text in (
            ("comparison.json", json.dumps(plan, indent=1) + "\n"),
            ("runs.jsonl", "".join(json.dumps(asdict(run)) + "\n" for run in self.runs)),
            ("rows.json", json.dumps(rows, indent=1) + "\n"),
        ):
            write_atomically(self.folder / name, text.encode())

    def run_folder(self, row: str, seed: int) -> Path:
        """Return the work folder of a run."""
        return self.folder / "runs" / row / f"seed_{seed}"

    def is_finished(self, row: str) -> bool:
        """Return whether all runs of a row are finished."""
        return self.runs_of(row).keys() >= set(self.plan.seeds)

    def runs_of(self, row: str) -> dict[int, RunRecord]:
        """Return the finished runs of a row by seed."""
        return {run.seed: run for run in self.runs if run.row == row}

    def scores(self, row: str, metric: str = "coco/bbox_mAP") -> dict[int, float]:
        """Return a metric of a row in percent, by seed.

        Runs with a metric of -1 are left out. The metric is -1 if the validation set has no object
        to compute it from, such as no small object for `coco/bbox_mAP_s`.
        """
        return {
            seed: 100 * run.metrics[metric]
            for seed, run in self.runs_of(row).items()
            if run.metrics[metric] >= 0
        }

    @contextmanager
    def locked(self) -> Iterator[int]:
        """Lock the folder, and yield the file descriptor of the lock.

        The training processes inherit the descriptor. While one of them is alive, the folder stays
        locked, even if the parent process is killed.

        Raises:
            MixDetError: Another process has locked the folder, or the folder is not writable.
        """
        writable_folder("--out", self.folder)
        with (self.folder / ".lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise MixDetError(
                    f"{self.folder}: another comparison, or one of its runs, uses this folder: "
                    "wait for the end of that process, or stop it"
                ) from error
            os.set_inheritable(file.fileno(), True)
            yield file.fileno()


def check_unique_names(configs: Iterable[str]) -> None:
    """Check that each config has a different file name, since rows are named after the files.

    Raises:
        MixDetError: Two configs have the same file name, or one config is given twice.
    """
    config_by_name: dict[str, str] = {}
    for config in configs:
        name = Path(config).stem
        if name in config_by_name:
            raise MixDetError(
                f"{config_by_name[name]} and {config} have the same name: give each config once, "
                "and rename one of two files with the same name"
            )
        config_by_name[name] = config


def read_json(path: Path, lines: bool = False) -> Any:
    """Read a JSON file, or a list from a file with one JSON value in each line.

    Raises:
        MixDetError: The file cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
        return [json.loads(line) for line in text.splitlines()] if lines else json.loads(text)
    except (OSError, ValueError) as error:
        raise MixDetError(f"{path}: cannot be read ({error})") from error


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
