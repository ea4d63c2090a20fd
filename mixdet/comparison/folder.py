"""The files of a comparison: what is in them, reading and writing."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mixdet.errors import MixDetError
from mixdet.outputs import writable_folder, write_atomically

RENAMED_KEYS = {"pictures_interval": "images_interval"}  # keys of rows.json, old and new


@dataclass(frozen=True)
class Plan:
    """What is compared.

    Attributes:
        configs: Paths of the configs; the first is the baseline.
        seeds: Seeds of each config.
        cfg_options: `key=value` overrides of all configs.
        data_root: Another folder for the data sets of all configs, or None.
        command: The command line that trained them, for the report.
    """

    configs: tuple[str, ...]
    seeds: tuple[int, ...]
    cfg_options: tuple[str, ...] = ()
    data_root: str | None = None
    command: str = ""

    @property
    def rows(self) -> list[str]:
        """Names of the rows, in order."""
        return [Path(config).stem for config in self.configs]


@dataclass(frozen=True)
class RunRecord:
    """One trained network, scored: a line of `runs.jsonl`.

    Attributes:
        row: Name of the config.
        seed: Its seed.
        fingerprint: Hash of the config as it was trained, without the seed and the work folder.
        metrics: COCO's 12 numbers after the last epoch, by mmengine's names.
        curve: mAP by epoch: (epoch, mAP).
        losses: (iteration, loss), each the mean of the iterations since the last.
        seconds_per_iteration: Median over the log's entries, data loading included.
        environment: Versions, hardware, threads.
    """

    row: str
    seed: int
    fingerprint: str
    metrics: dict[str, float]
    curve: list[list[float]]
    losses: list[list[float]]
    seconds_per_iteration: float
    environment: dict[str, Any]


@dataclass(frozen=True)
class RowRecord:
    """What does not depend on the seed: an entry of `rows.json`.

    Attributes:
        params: Parameters of the detector.
        madds: Multiply-adds for one image.
        input_size: (height, width) in pixels that `madds` are of.
        latency_ms: Lower quartile, median and upper quartile for one image, post-processing
            included, in milliseconds.
        latency_of: Where it was measured.
        images_interval: mAP's difference to the baseline: mean, low, high of a bootstrap over
            validation images. None for the baseline, and where detections are missing.
    """

    params: int
    madds: int
    input_size: tuple[int, int]
    latency_ms: tuple[float, float, float]
    latency_of: str
    images_interval: tuple[float, float, float] | None = None


@dataclass
class Comparison:
    """A comparison as it stands in its folder."""

    folder: Path
    plan: Plan
    runs: list[RunRecord] = field(default_factory=list)
    rows: dict[str, RowRecord] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> Comparison:
        """Read a folder.

        Raises:
            MixDetError: There is no comparison in it, or a file of it is damaged.
        """
        file = folder / "comparison.json"
        if not file.is_file():
            raise MixDetError(f"{folder}: no comparison here ({file.name} is missing)")
        plan = Plan(**{key: _frozen(value) for key, value in _parse(file).items()})
        found = cls(folder, plan)
        lines, rows = folder / "runs.jsonl", folder / "rows.json"
        if lines.is_file():
            found.runs = [RunRecord(**entry) for entry in _parse(lines, by_line=True)]
        if rows.is_file():
            found.rows = {
                row: RowRecord(**{RENAMED_KEYS.get(key, key): entry[key] for key in entry})
                for row, entry in _parse(rows).items()
            }
        return found

    def write(self) -> None:
        """Write the plan, the runs and the rows."""
        order = {row: index for index, row in enumerate(self.plan.rows)}
        self.runs.sort(key=lambda run: (order[run.row], run.seed))
        rows = {row: asdict(record) for row, record in self.rows.items()}
        for name, text in (
            ("comparison.json", json.dumps(asdict(self.plan), indent=1) + "\n"),
            ("runs.jsonl", "".join(json.dumps(asdict(run)) + "\n" for run in self.runs)),
            ("rows.json", json.dumps(rows, indent=1) + "\n"),
        ):
            write_atomically(self.folder / name, text.encode())

    def run_folder(self, row: str, seed: int) -> Path:
        """The work folder of a run."""
        return self.folder / "runs" / row / f"seed_{seed}"

    def runs_of(self, row: str) -> dict[int, RunRecord]:
        """The finished runs of a row, by seed."""
        return {run.seed: run for run in self.runs if run.row == row}

    def scores(self, row: str, metric: str = "coco/bbox_mAP") -> dict[int, float]:
        """A metric in percent, by seed; without the runs where no such object exists."""
        return {
            seed: 100 * run.metrics[metric]
            for seed, run in self.runs_of(row).items()
            if run.metrics[metric] >= 0
        }

    @contextmanager
    def locked(self) -> Iterator[int]:
        """Hold the folder; yields a file descriptor that the runs inherit.

        So the folder stays locked for as long as a run lives whose parent was killed.

        Raises:
            MixDetError: Another process holds it, or nothing can be written there.
        """
        writable_folder("--out", self.folder)
        with (self.folder / ".lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise MixDetError(
                    f"{self.folder}: a comparison, or a run that it left, is at work here: wait "
                    "for it or stop it"
                ) from error
            os.set_inheritable(file.fileno(), True)
            yield file.fileno()


def _parse(path: Path, by_line: bool = False) -> Any:
    try:
        text = path.read_text(encoding="utf-8")
        return [json.loads(line) for line in text.splitlines()] if by_line else json.loads(text)
    except (OSError, ValueError) as error:
        raise MixDetError(f"{path}: cannot be read ({error})") from error


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def names_are_unique(configs: Iterable[str]) -> None:
    """Rows are called after their files.

    Raises:
        MixDetError: Two files have the same name, or one is given twice.
    """
    seen: dict[str, str] = {}
    for config in configs:
        name = Path(config).stem
        if name in seen:
            raise MixDetError(
                f"{seen[name]} and {config} have the same name: give each config once, and rename "
                "one of two"
            )
        seen[name] = config
