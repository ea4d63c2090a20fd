"""Say how a training is going, in the log and in a figure, and what to do when it is over."""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable
from pathlib import Path
from time import monotonic

from mmdet.registry import HOOKS
from mmengine.dist import is_main_process
from mmengine.hooks import Hook, LoggerHook
from mmengine.runner import EpochBasedTrainLoop, Runner
from mmengine.runner.base_loop import BaseLoop
from torch.utils.data import DataLoader

from mixdet.engine.next_steps import next_commands
from mixdet.engine.validations import Validations, monitor_of
from mixdet.errors import one_line
from mixdet.evaluation import CocoDetectionMetric
from mixdet.evaluation.coco_scores import class_metric_names
from mixdet.outputs import write_atomically

RECENT = 50  # iterations that the time and the loss of an iteration are averaged over
# Drawing may take at most this fraction of the training's time.
DRAWING_SHARE = 0.02


def _harmless(method: Callable) -> Callable:
    """Run a method on the main process only. If it fails, log a warning, and stop calling it."""

    @functools.wraps(method)
    def run(self: ProgressHook, runner: Runner, *args, **kwargs) -> None:
        if not is_main_process() or method.__name__ in self._failed:
            return
        try:
            method(self, runner, *args, **kwargs)
        except Exception as error:  # a training must not end because its progress cannot be shown
            self._failed.add(method.__name__)
            runner.logger.warning(
                f"ProgressHook: {one_line(error)}. The training goes on, without this part of the "
                "progress"
            )

    return run


@HOOKS.register_module()
class ProgressHook(Hook):
    """Show how a training is going.

    - The log gets a line at least every `seconds` of training and of validation, with the time that
      is left. If an iteration takes longer, every iteration gets a line. The line goes to the log
      only, not to `scalars.json` or a tracker. Nothing is added while `LoggerHook` logs often
      enough.
    - After each validation, the log gets a table of its scores beside those of the best validation.
      The best validation has the best value of the metric that `CheckpointHook` or
      `EarlyStoppingHook` monitors, or else of the first metric.
    - After each validation, `progress.png` in the work folder shows the losses and the scores. If
      validations follow each other fast, the figure is not drawn after each of them. Drawing takes
      no more than two percent of the time. At the end, the figure is always up to date.
    - At the end, the log gets the commands for the next steps, with the path of the best
      checkpoint.

    Only the main process does this. If something fails, such as writing the figure, a warning says
    so once, and the training goes on.

    Args:
        seconds: The longest time without a line, if the iterations are shorter.
        figure: Whether to write `progress.png`.
    """

    priority = "LOWEST"  # after the checkpoint hook has written the best checkpoint

    def __init__(self, seconds: float = 10, figure: bool = True) -> None:
        self.seconds = seconds
        self.figure = figure
        self._failed: set[str] = set()
        self._is_training = self._has_started = self._is_figure_old = False
        self._said = self._tick = self._validation_start = self._drawn = 0.0
        self._drawing_seconds = self._validation_seconds = 0.0
        self._durations: deque[float] = deque(maxlen=RECENT)  # of the latest iterations, in seconds
        self._validations = Validations()

    @_harmless
    def before_train(self, runner: Runner) -> None:
        """Start the clock, and read the validations of a run that is resumed."""
        self._is_training, self._has_started = True, False
        self._said = self._tick = self._drawn = monotonic()
        self._validations = Validations.from_message_hub(runner.message_hub)

    @_harmless
    def after_train_iter(self, runner: Runner, batch_idx: int, *args, **kwargs) -> None:
        """Log a line if there was none for `seconds`."""
        self._is_figure_old = True
        duration = self._seconds_since_tick()
        if self._has_started:  # the first iteration also starts the workers of the data loader
            self._durations.append(duration)
        self._has_started = True
        if self._is_due(runner, batch_idx, duration, runner.train_dataloader):
            runner.logger.info(self._training_line(runner))

    @_harmless
    def before_val_epoch(self, runner: Runner) -> None:
        """Start the clock of the validation."""
        self._said = self._tick = self._validation_start = monotonic()

    @_harmless
    def after_val_iter(self, runner: Runner, batch_idx: int, *args, **kwargs) -> None:
        """Log a line if there was none for `seconds`."""
        if self._is_due(runner, batch_idx, self._seconds_since_tick()):
            batches = len(runner.val_dataloader)
            runner.logger.info(f"Progress: validation, batch {batch_idx + 1} of {batches}")

    @_harmless
    def after_val_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        """Log the scores beside the best ones, and draw the figure."""
        if not self._is_training:
            return
        now = monotonic()
        self._validation_seconds = now - self._validation_start
        unit, step = ("epoch", runner.epoch) if _by_epoch(runner) else ("iteration", runner.iter)
        scores = {**(metrics or {}), **_class_scores(runner)}
        self._validations.add(runner.iter, f"{unit} {step}", scores)
        self._is_figure_old = True
        self._validations.to_message_hub(runner.message_hub)
        monitor = monitor_of(runner.hooks, self._validations.latest.scores)
        if monitor is not None:
            runner.logger.info(self._validations.table(monitor))
        if now - self._drawn >= self._drawing_seconds / DRAWING_SHARE:
            self._draw(runner)
        self._said = self._tick = monotonic()

    @_harmless
    def after_train(self, runner: Runner) -> None:
        """Draw the figure, and say what the next steps are."""
        self._is_training = False
        if self._is_figure_old:
            self._draw(runner)
        commands = next_commands(runner)
        if commands:
            runner.logger.info(commands)

    @_harmless
    def _draw(self, runner: Runner) -> None:
        if not self.figure:
            return
        from mixdet.visual.training_figure import draw_training  # loads matplotlib

        start = monotonic()
        path = Path(runner.work_dir, "progress.png")
        logged = runner.message_hub.log_scalars
        names = [key for key in logged if key.startswith("train/") and "loss" in key]
        names.sort(key=lambda name: name != "train/loss")  # the total loss comes first
        losses = {name.removeprefix("train/"): logged[name].data[0] for name in names}
        monitor = monitor_of(runner.hooks, self._validations.latest.scores)
        figure = draw_training(losses, runner.iter, self._validations.curves(monitor))
        write_atomically(path, figure)
        self._drawn = monotonic()
        self._drawing_seconds = self._drawn - start
        self._is_figure_old = False

    def _seconds_since_tick(self) -> float:
        """Return the time since the last iteration ended, and note that this one ends now."""
        now = monotonic()
        seconds, self._tick = now - self._tick, now
        return seconds

    def _is_due(
        self,
        runner: Runner,
        batch_idx: int,
        duration: float,
        train_dataloader: DataLoader | None = None,
    ) -> bool:
        """Tell whether a line is due: without it, the next one would come too late.

        Args:
            runner: The runner.
            batch_idx: Index of the batch.
            duration: Time that the batch took, in seconds. The next one may take as long.
            train_dataloader: The data loader of a training.
        """
        logged = any(
            hook.every_n_inner_iters(batch_idx, hook.interval)
            or (
                train_dataloader is not None
                and hook.end_of_epoch(train_dataloader, batch_idx)
                and not (hook.ignore_last and len(train_dataloader) > hook.interval)
            )
            for hook in runner.hooks
            if isinstance(hook, LoggerHook)
        )
        is_due = not logged and self._tick + duration - self._said > self.seconds
        if logged or is_due:
            self._said = self._tick
        return is_due

    def _training_line(self, runner: Runner) -> str:
        iteration = runner.iter + 1
        parts = [f"Progress: iteration {iteration} of {runner.max_iters}"]
        if _by_epoch(runner):
            parts.append(f"epoch {runner.epoch + 1} of {runner.max_epochs}")
        loss = runner.message_hub.log_scalars.get("train/loss")
        if loss is not None:
            parts.append(f"loss {loss.mean(RECENT):.4f}")
        if not self._durations:
            return ", ".join(parts)
        per_iteration = sum(self._durations) / len(self._durations)
        left = (runner.max_iters - iteration) * per_iteration
        validations = _validations_left(runner)
        left += validations * self._validation_seconds
        without = ", without validations" if validations and not self._validation_seconds else ""
        parts.append(f"about {_duration(left)} left{without}")
        return ", ".join(parts)


def _class_scores(runner: Runner) -> dict[str, float]:
    """Return AP and AP50 of each class in the last validation, by the name of the metric."""
    scores = {}
    evaluator = getattr(runner.val_loop, "evaluator", None)  # a custom loop may have none
    for metric in getattr(evaluator, "metrics", ()):
        if isinstance(metric, CocoDetectionMetric) and metric.scores is not None:
            by_kind = {"AP": metric.scores.per_class, "AP50": metric.scores.per_class_50}
            names = {kind: class_metric_names(by_kind[kind], kind) for kind in by_kind}
            for name in metric.scores.per_class:
                for kind, per_class in by_kind.items():
                    scores[f"{metric.prefix}/{names[kind][name]}"] = per_class[name]
    return scores


def _by_epoch(runner: Runner) -> bool:
    return isinstance(runner.train_loop, EpochBasedTrainLoop)


def _validations_left(runner: Runner) -> int:
    """Return how many validations are still to come."""
    loop: BaseLoop = runner.train_loop
    if runner.val_loop is None:
        return 0
    done, last = (
        (runner.epoch, runner.max_epochs) if _by_epoch(runner) else (runner.iter, runner.max_iters)
    )
    interval, first = loop.val_interval, max(done + 1, loop.val_begin)
    regular = last // interval - (first - 1) // interval
    return max(regular, 0) + (last % interval > 0 and last >= first)


def _duration(seconds: float) -> str:
    """Return a time in words, such as `4 minutes`."""
    for size, unit in ((3600, "hour"), (60, "minute")):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.{int(unit == 'hour')}f} {unit}s"
    return "1 minute" if seconds >= 45 else f"{seconds:.0f} seconds"
