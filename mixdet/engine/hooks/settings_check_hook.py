"""Before the first training iteration, refuse settings that would have no effect."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
from collections.abc import Iterator

import torch
from mmdet.evaluation.metrics import DumpODVGResults, DumpProposals
from mmdet.registry import HOOKS, PARAM_SCHEDULERS
from mmengine.evaluator import BaseMetric, DumpResults
from mmengine.hooks import CheckpointHook, EarlyStoppingHook, Hook
from mmengine.optim.scheduler.param_scheduler import ReduceOnPlateauParamScheduler
from mmengine.runner import EpochBasedTrainLoop, Runner
from mmengine.structures import InstanceData

from mixdet.engine.schedules import schedule_configs
from mixdet.errors import MixDetError
from mixdet.evaluation import CocoDetectionMetric

WRITERS = (DumpResults, DumpProposals, DumpODVGResults)  # these write files and give no metric


@HOOKS.register_module()
class SettingsCheckHook(Hook):
    """Check the monitored metrics and the schedules of a training.

    Three settings name a metric to monitor: `save_best` of a checkpoint hook, and `monitor` of
    early stopping and of `ReduceOnPlateauLR`. If the metric does not exist, mmengine finds out only
    after the first validation. This hook compares the monitored name with the names that the
    evaluator gives. To get the names of another package's metric, the hook applies the metric to
    one image of the validation set, with one invented box as the detection.

    A loop without epochs, such as `IterBasedTrainLoop`, never steps a schedule with
    `by_epoch=True`. Such a loop also states that the training has one epoch, so a schedule that has
    `convert_to_iter_based=True` and no `end` ends too early. The hook refuses both schedules.

    MixDet's tools add this hook to every config. `default_hooks.settings_check=None` removes it.
    """

    priority = "VERY_HIGH"  # check the settings before other hooks act on them

    def before_train(self, runner: Runner) -> None:
        """Check the settings.

        Raises:
            MixDetError: A setting has no effect.
        """
        if not isinstance(runner.train_loop, EpochBasedTrainLoop):
            _check_schedules(runner)
        monitors = list(_monitors(runner))
        if runner.val_loop is None:
            for where, _ in monitors:
                # save_best is allowed without a validation, since every shipped config sets it
                if "save_best" not in where:
                    raise MixDetError(f"{where} needs a validation, but val_cfg is None")
        elif monitors:
            _check_monitors(runner, monitors)


def _check_schedules(runner: Runner) -> None:
    loop = type(runner.train_loop).__name__
    for where, schedule in schedule_configs(runner.cfg.get("param_scheduler")):
        kind = schedule["type"]
        kind = PARAM_SCHEDULERS.get(kind) if isinstance(kind, str) else kind
        if not schedule.get("by_epoch", True) or issubclass(kind, ReduceOnPlateauParamScheduler):
            continue
        if not schedule.get("convert_to_iter_based"):
            problem = "never changes the learning rate"
        elif "end" not in schedule:
            problem = "ends after one pass over the data"
        else:
            continue
        raise MixDetError(
            f"{where}: {kind.__name__} counts epochs, but {loop} has none, so it {problem}: set "
            "by_epoch=False, and give begin, end and milestones in iterations"
        )


def _monitors(runner: Runner) -> Iterator[tuple[str, str]]:
    """Yield each setting that monitors a metric, as text, and the name of the metric."""
    for hook in runner.hooks:
        if isinstance(hook, CheckpointHook):
            for name in hook.save_best or ():
                yield f"{type(hook).__name__}: save_best={name!r}", name
        elif isinstance(hook, EarlyStoppingHook):
            yield f"{type(hook).__name__}: monitor={hook.monitor!r}", hook.monitor
    schedulers = runner.param_schedulers or []
    by_optimizer = schedulers.values() if isinstance(schedulers, dict) else [schedulers]
    for scheduler in (scheduler for group in by_optimizer for scheduler in group):
        if isinstance(scheduler, ReduceOnPlateauParamScheduler):
            yield f"{type(scheduler).__name__}: monitor={scheduler.monitor!r}", scheduler.monitor


def _check_monitors(runner: Runner, monitors: list[tuple[str, str]]) -> None:
    evaluator = runner.val_loop.evaluator
    names: list[str] = []
    unknown: list[str] = []  # a name that contains one of these texts may be a metric too
    # mmdet's `MultiDatasetsEvaluator` puts the name of the data set before each name of a metric
    prefixes = getattr(evaluator, "dataset_prefixes", None)
    for index, metric in enumerate(evaluator.metrics):
        prefix = f"{prefixes[index]}/" if prefixes else ""
        if isinstance(metric, CocoDetectionMetric):
            names += [f"{prefix}{metric.prefix}/{name}" for name in metric.names]
        elif all(name in names for _, name in monitors):
            return
        else:
            image_names = _names_on_one_image(runner, metric)
            names += [prefix + name for name in image_names or ()]
            # One image may lack some classes, so names that contain a class may be missing.
            classes = (evaluator.dataset_meta or {}).get("classes") or ()
            unknown += [""] if image_names is None else map(str, classes)
    for where, name in monitors:
        if name == "auto":
            if "" not in unknown:
                _check_rule(runner, names)
        elif name not in names and not any(part in name for part in unknown):
            renamed = name.replace("@", "_")
            raise MixDetError(
                f"{where}: validation gives no such metric: "
                + (f"it is called {renamed} now, " if renamed in names else "")
                + (f"use one of {', '.join(names)}" if names else "the evaluator has no metric")
            )


def _check_rule(runner: Runner, names: list[str]) -> None:
    """Check that mmengine knows whether a higher value of the first metric is better or worse."""
    for hook in runner.hooks:
        if isinstance(hook, CheckpointHook) and hook.save_best == ["auto"] and None in hook.rules:
            try:
                type(hook)(save_best=next(iter(names), "no metric"))
            except ValueError as error:
                raise MixDetError(
                    f"{type(hook).__name__}: save_best='auto': {error}: set rule to 'greater' or "
                    f"'less', or save_best to one of {', '.join(names)}"
                ) from error


def _names_on_one_image(runner: Runner, metric: BaseMetric) -> list[str] | None:
    """Apply a copy of a metric to one image, and return the names of its results.

    Return None if the metric cannot be computed from the boxes of one image.
    """
    if isinstance(metric, WRITERS):
        return []
    level = runner.logger.level
    runner.logger.setLevel(logging.CRITICAL)  # the metric would log its results
    try:
        sample = runner.val_loop.dataloader.dataset[0]["data_samples"]
        sample.pred_instances = InstanceData(
            bboxes=torch.tensor([[0.0, 0.0, 16.0, 16.0]]),
            scores=torch.ones(1),
            labels=torch.zeros(1, dtype=torch.long),
        )
        trial = copy.copy(metric)
        trial.results = []
        if hasattr(trial, "outfile_prefix"):
            trial.outfile_prefix = None
        if hasattr(trial, "img_ids"):
            trial.img_ids = [sample.img_id]
        with contextlib.redirect_stdout(io.StringIO()):
            trial.process({}, [sample.to_dict()])
            names = list(trial.compute_metrics(trial.results))
    except Exception:  # any class can be a metric, and may need masks, text or several images
        return None
    finally:
        runner.logger.setLevel(level)
    return [f"{metric.prefix}/{name}" if metric.prefix else name for name in names]
