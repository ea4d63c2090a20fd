"""Measure what a training costs, by a short training with the same config.

The short training has a few iterations to warm up, about 20 that are timed, and a validation of a
few images. `mixdet.engine.training_length` chooses the length of a training from these costs.

A run on one thread that loads its data itself (`num_workers=0`) is timed by the processor time of
the process, which other programs on the machine change little. Any other run is timed by wall-clock
time.
"""

from __future__ import annotations

import contextlib
import copy
import gc
import io
import itertools
import logging
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmdet.registry import LOOPS
from mmengine.config import Config
from mmengine.dataset import InfiniteSampler
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner

from mixdet.errors import MixDetError

WARMUP_ITERATIONS, TIMED_ITERATIONS = 6, 20
VALIDATION_BATCHES = 4
# More epochs or iterations than any training has. The hook stops the short training much earlier.
ENDLESS = 10**7


@dataclass(frozen=True)
class TrainingCosts:
    """What a training costs, in seconds.

    Attributes:
        clock: 'CPU' if the seconds are processor time, 'wall' if they are wall-clock time.
        start: Everything that happens once, such as building the data sets.
        iteration: An iteration, data loading included.
        epoch: What an epoch costs in addition to its iterations, such as the start of workers.
        val_image: An image of a validation, scoring included.
        validation: What a validation costs in addition to its images.
        iterations: Number of iterations of an epoch.
        val_images: Number of images of a validation, or 0 if the config has none.
    """

    clock: str
    start: float
    iteration: float
    epoch: float
    val_image: float
    validation: float
    iterations: int
    val_images: int

    def __str__(self) -> str:
        validation = f"{self.val_image:.4f} s for an image of the validation ({self.val_images})"
        return (
            f"{self.iteration:.4f} s for an iteration ({self.iterations} in an epoch), "
            + (validation if self.val_images else "no validation")
            + (", processor time" if self.clock == "CPU" else "")
        )


def loop_unit(cfg: Config) -> str:
    """Return what the training loop of a config counts: 'epochs' or 'iterations'.

    Raises:
        MixDetError: The loop is derived from neither of mmengine's loops.
    """
    kind = cfg.train_cfg.get("type")
    if kind is None:
        return "epochs" if cfg.train_cfg.get("by_epoch", True) else "iterations"
    loop = LOOPS.get(kind) if isinstance(kind, str) else kind
    for base, unit in ((EpochBasedTrainLoop, "epochs"), (IterBasedTrainLoop, "iterations")):
        if isinstance(loop, type) and issubclass(loop, base):
            return unit
    raise MixDetError(
        f"--minutes: train_cfg.type={kind} is not derived from mmengine's loops over epochs or "
        "iterations: leave --minutes out, and set the length in train_cfg"
    )


def measure_costs(
    cfg: Config, clock: Callable[[], float] | None = None, started: float = 0.0
) -> TrainingCosts:
    """Measure the costs of a training by a short training with the same config.

    The short training logs nothing and does not affect the real training. It writes its files to a
    temporary folder in the work folder.

    Args:
        cfg: The config, with its work folder. It is not changed.
        clock: Function that returns seconds. By default it is the processor time of the process
            for a run on one thread without workers, and the wall-clock time for any other run.
        started: Seconds that the process of the training has taken before it reads its config.
    """
    unit = loop_unit(cfg)
    name = "CPU" if _runs_on_one_thread(cfg) else "wall"
    clock = clock or (time.process_time if name == "CPU" else time.perf_counter)
    Path(cfg.work_dir).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".measuring_", dir=cfg.work_dir) as folder:
        begin = clock()
        hook = MeasureHook(clock)
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints
            runner = Runner.from_cfg(_short_config(cfg, unit, folder))
            runner.register_hook(hook)
            runner.train()
        total = clock() - begin
        iterations = hook.iterations
        del runner
        gc.collect()  # ends the workers before their folder is deleted
    timed = hook.seconds_of_iterations + hook.seconds_of_validation
    return TrainingCosts(
        clock=name,
        start=started + max(0.0, total - timed),
        iteration=hook.iteration,
        epoch=hook.epoch,
        val_image=hook.val_image,
        validation=hook.validation,
        iterations=iterations,
        val_images=hook.val_images,
    )


def _runs_on_one_thread(cfg: Config) -> bool:
    loaders = (cfg.get(f"{name}_dataloader") or {} for name in ("train", "val"))
    workers = sum(loader.get("num_workers", 0) for loader in loaders)
    return torch.get_num_threads() == 1 and not workers and not torch.cuda.is_available()


def _short_config(cfg: Config, unit: str, folder: str) -> Config:
    """Return the config of the short training: it logs to the folder only, and has no end."""
    cfg = copy.deepcopy(cfg)
    name = f"measuring_{time.time_ns()}"  # mmengine keeps loggers and visualizers by their names
    cfg.work_dir, cfg.experiment_name, cfg.log_level = folder, name, "ERROR"
    cfg.load_from, cfg.resume = None, False
    if cfg.get("visualizer"):
        cfg.visualizer.name = name
        cfg.visualizer.vis_backends = [{"type": "LocalVisBackend"}]  # no tracker
    cfg.train_cfg["max_epochs" if unit == "epochs" else "max_iters"] = ENDLESS
    cfg.train_cfg["val_interval"] = ENDLESS
    # On Ctrl-C the hook would write a checkpoint, and tell the user to resume from it
    hooks = cfg.get("default_hooks") or {}
    for key in [key for key, hook in hooks.items() if (hook or {}).get("type") == "InterruptHook"]:
        del hooks[key]
    return cfg


class _FirstBatches:
    """The first batches of a data loader. All other attributes are taken from the data loader.

    Attributes:
        passes: How often the batches were iterated over.
    """

    def __init__(self, loader: Any, *counts: int) -> None:
        """Keep a data loader.

        Args:
            loader: The data loader.
            counts: Number of batches of the first pass, the second pass and so on. The last number
                holds for all later passes.
        """
        self.loader, self.counts, self.passes = loader, counts, 0

    def __iter__(self) -> Iterator[Any]:
        self.passes += 1
        count = self.counts[min(self.passes, len(self.counts)) - 1]
        for _, batch in zip(range(count), self.loader, strict=False):
            yield batch

    def __len__(self) -> int:
        return len(self.loader)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)


class MeasureHook(Hook):
    """Time iterations and a short validation, then stop the training.

    The hook replaces the data loaders by their first batches, so that epochs are short. The first
    epoch warms up. The later ones are timed.

    Args:
        clock: Function that returns seconds.

    Attributes:
        iterations: Number of iterations of an epoch.
        val_images: Number of images of a validation.
    """

    priority = "VERY_HIGH"  # the time between two calls contains the work of all hooks

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._marks: list[tuple[int, float]] = []  # (pass over the batches, seconds)
        self._batches: _FirstBatches | None = None
        self._val_marks: list[float] = []
        self._val_seen = 0
        self._begin = self._scored = self._end = 0.0
        self.iterations = self.val_images = 0

    def before_train(self, runner: Runner) -> None:
        """Replace the data loaders by their first batches."""
        loop = runner.train_loop
        self.iterations = len(loop.dataloader)
        self._batches = _FirstBatches(loop.dataloader, WARMUP_ITERATIONS, TIMED_ITERATIONS + 1)
        if hasattr(loop, "dataloader_iterator"):  # of a loop by iterations
            if isinstance(loop.dataloader.sampler, InfiniteSampler):
                self._batches.counts = (ENDLESS,)
            loop.dataloader_iterator = type(loop.dataloader_iterator)(self._batches)
        loop.dataloader = self._batches

    def after_train_iter(self, runner: Runner, batch_idx: int, **_) -> None:
        """Mark the end of an iteration, and stop the training after enough iterations."""
        self._marks.append((self._batches.passes, self._now()))
        if len(self._timed()[0]) >= TIMED_ITERATIONS or self._batches.passes > TIMED_ITERATIONS:
            runner.train_loop.stop_training = True

    def after_train(self, runner: Runner) -> None:
        """Validate a few images."""
        loop = runner.val_loop
        if loop is None:
            return
        self.val_images = len(loop.dataloader.dataset)
        loop.dataloader = _FirstBatches(loop.dataloader, VALIDATION_BATCHES)
        level = runner.logger.level
        runner.logger.setLevel(logging.CRITICAL)  # some metrics log that images are missing
        self._begin = self._now()
        loop.run()
        self._end = self._now()
        runner.logger.setLevel(level)

    def after_val_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs=()) -> None:
        """Mark the end of a batch of the validation."""
        self._val_marks.append(self._now())
        self._val_seen += len(outputs)

    def after_val_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        """Mark the time after the scoring."""
        self._scored = self._now()

    def _now(self) -> float:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return self._clock()

    def _timed(self) -> tuple[list[float], list[float]]:
        """Return the seconds of iterations within a pass, and of the first iterations of passes."""
        marks = self._marks
        if self._batches.counts == (ENDLESS,):  # one pass: its first iterations warm up
            marks = [(2, seconds) for _, seconds in marks[WARMUP_ITERATIONS - 1 :]]
        within, starting = [], []
        for (before, begin), (after, end) in itertools.pairwise(marks):
            if after != before:
                starting.append(end - begin)
            elif after > 1:
                within.append(end - begin)
        return within, starting

    @property
    def iteration(self) -> float:
        """Seconds of an iteration. If an epoch has only one, this is 0: `epoch` has its time."""
        within, _ = self._timed()
        return sum(within) / len(within) if within else 0.0

    @property
    def epoch(self) -> float:
        """Seconds of an epoch in addition to its iterations."""
        _, starting = self._timed()
        return max(0.0, sum(starting) / len(starting) - self.iteration) if starting else 0.0

    @property
    def seconds_of_iterations(self) -> float:
        """Seconds of all iterations of the short training."""
        return len(self._marks) * self.iteration + len({p for p, _ in self._marks}) * self.epoch

    @property
    def _per_batch(self) -> float:
        marks = self._val_marks
        if len(marks) > 1:
            return (marks[-1] - marks[0]) / (len(marks) - 1)
        return marks[0] - self._begin if marks else 0.0

    @property
    def val_image(self) -> float:
        """Seconds of an image of a validation."""
        if not self._val_seen:
            return 0.0
        scoring = self._scored - self._val_marks[-1]
        return (len(self._val_marks) * self._per_batch + scoring) / self._val_seen

    @property
    def validation(self) -> float:
        """Seconds of a validation in addition to its images."""
        return max(0.0, self.seconds_of_validation - self._val_seen * self.val_image)

    @property
    def seconds_of_validation(self) -> float:
        """Seconds of the short validation."""
        return self._end - self._begin
