"""What a run ends with: the scores, the checkpoint, a sheet of images."""

from __future__ import annotations

from pathlib import Path

from mmdet.registry import HOOKS
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.runner.base_loop import BaseLoop

from mixdet.evaluation import CocoDetectionMetric


@HOOKS.register_module()
class ReportHook(Hook):
    """After training, and after a test: a table, the checkpoint's path, a sheet of detections.

    The detections are written to `val_detections.json` (or `test_...`) in the work folder, unless
    the metric has a `results_file` already, and drawn with the true boxes in `val_sheet.jpg`. It
    reads the loop's `CocoDetectionMetric`; where there is none, only the checkpoint is named.

    Args:
        sheet: Draw the sheet: True for the path above, another path, or False.
    """

    priority = "LOWEST"  # after the last checkpoint

    def __init__(self, sheet: bool | str = True) -> None:
        self.sheet = sheet

    def before_val(self, runner: Runner) -> None:
        """Name the results file."""
        self._name_results(runner, runner.val_loop, "val")

    def before_test(self, runner: Runner) -> None:
        """Name the results file."""
        self._name_results(runner, runner.test_loop, "test")

    def after_train(self, runner: Runner) -> None:
        """Report the last validation, and which checkpoints there are."""
        if not is_main_process():
            return
        if runner.val_loop is not None:
            title = f"Validation after {runner.epoch} epochs, in percent"
            self._report(runner, runner.val_loop, "val", title)
        info = runner.message_hub.runtime_info
        if "last_ckpt" in info:
            runner.logger.info(f"last checkpoint: {info['last_ckpt']}")
        if "best_ckpt" in info:
            runner.logger.info(f"best checkpoint: {info['best_ckpt']} ({info['best_score']:.4f})")

    def after_test_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        """Report the test."""
        if is_main_process():
            self._report(runner, runner.test_loop, "test", "Test, in percent")

    def _name_results(self, runner: Runner, loop: BaseLoop, mode: str) -> None:
        metric = _metric(loop)
        if metric is not None and metric.results_file is None:
            metric.results_file = str(Path(runner.work_dir, f"{mode}_detections.json"))

    def _report(self, runner: Runner, loop: BaseLoop, mode: str, title: str) -> None:
        metric = _metric(loop)
        if metric is None or metric.scores is None:
            return
        runner.logger.info(f"{title}\n{metric.scores.table()}")
        runner.logger.info(f"detections: {metric.results_file}")
        images = getattr(loop.dataloader.dataset, "data_prefix", {}).get("img")
        if self.sheet and images is not None:
            from mixdet.visual.contact_sheet import write_contact_sheet_from_results

            named = isinstance(self.sheet, str)
            path = Path(self.sheet) if named else Path(runner.work_dir, f"{mode}_sheet.jpg")
            write_contact_sheet_from_results(metric.ann_file, images, metric.results_file, path)
            runner.logger.info(f"true and predicted boxes: {path}")


def _metric(loop: BaseLoop) -> CocoDetectionMetric | None:
    metrics = loop.evaluator.metrics
    return next((metric for metric in metrics if isinstance(metric, CocoDetectionMetric)), None)
