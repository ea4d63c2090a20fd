"""Report the scores, the checkpoints and a contact sheet at the end of a run."""

from __future__ import annotations

from pathlib import Path

from mmdet.registry import HOOKS
from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, Runner
from mmengine.runner.base_loop import BaseLoop

from mixdet.data_check.used_data import training_objects
from mixdet.evaluation import CocoDetectionMetric
from mixdet.evaluation.weak_classes import find_weak_classes, weak_class_note
from mixdet.visual.contact_sheet import write_contact_sheet_from_results
from mixdet.visual.drawn_images import draw_images


@HOOKS.register_module()
class ReportHook(Hook):
    """Report the results after training and after a test.

    The hook logs the table of scores, a warning for each class that the detector hardly finds, and
    the paths of the checkpoints. It also adds files to the work folder. `val_detections.json`
    contains the detections of the last validation, and `test_detections.json` the detections of a
    test. If the metric has a `results_file`, the detections are written to that file instead. The
    contact sheets `val_sheet.jpg` and `test_sheet.jpg` show detections and true boxes. Scores and
    detections come from the loop's `CocoDetectionMetric`. Without this metric, the hook logs only
    the checkpoints. If the images have no true boxes, the hook logs no scores and draws no sheet.

    After a test, `test_errors.html` and `test_errors.json` contain the error analysis of
    `mixdet.error_analysis`. After training, the hook makes no analysis: apply
    `tools/analyze_errors.py` with `--split val` to `val_detections.json`.

    Args:
        sheet: Whether to draw a contact sheet, or the path to write the sheet to.
        errors: Whether to analyze the errors of a test.
        drawings: Folder to draw all images of a test into, with true and predicted boxes, or None.
    """

    priority = "LOWEST"  # run after the checkpoint hook has written the last checkpoint

    def __init__(
        self, sheet: bool | str = True, errors: bool = True, drawings: str | None = None
    ) -> None:
        self.sheet = sheet
        self.errors = errors
        self.drawings = drawings

    def before_val(self, runner: Runner) -> None:
        """Set the metric's results file."""
        self._set_results_file(runner, runner.val_loop, "val")

    def before_test(self, runner: Runner) -> None:
        """Set the metric's results file."""
        self._set_results_file(runner, runner.test_loop, "test")

    def after_train(self, runner: Runner) -> None:
        """Report the last validation and the checkpoints."""
        if not is_main_process():
            return
        if runner.val_loop is not None:
            by_epoch = isinstance(runner.train_loop, EpochBasedTrainLoop)
            length = f"{runner.epoch} epochs" if by_epoch else f"{runner.iter} iterations"
            title = f"Validation after {length}, in percent"
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
            self._draw_images(runner, runner.test_loop)
            self._report_errors(runner, runner.test_loop)

    def _set_results_file(self, runner: Runner, loop: BaseLoop, mode: str) -> None:
        metric = _metric(loop)
        if metric is not None and metric.results_file is None:
            metric.results_file = str(Path(runner.work_dir, f"{mode}_detections.json"))

    def _report(self, runner: Runner, loop: BaseLoop, mode: str, title: str) -> None:
        metric = _metric(loop)
        if metric is None or metric.scores is None:
            return
        if metric.scored.has_objects:
            runner.logger.info(f"{title}\n{metric.scores.table()}")
            for note in _weak_class_notes(runner.cfg, metric):
                runner.logger.warning(note)
        runner.logger.info(f"detections: {metric.results_file}")
        image_folder = _image_folder(loop)
        if self.sheet and image_folder is not None and metric.scored.has_objects:
            default = Path(runner.work_dir, f"{mode}_sheet.jpg")
            path = Path(self.sheet) if isinstance(self.sheet, str) else default
            write_contact_sheet_from_results(metric.scored, image_folder, metric.results_file, path)
            runner.logger.info(f"true and predicted boxes: {path}")

    def _draw_images(self, runner: Runner, loop: BaseLoop) -> None:
        metric, image_folder = _metric(loop), _image_folder(loop)
        if self.drawings is None or metric is None or image_folder is None:
            return
        count = draw_images(metric.scored, image_folder, metric.results_file, self.drawings)
        runner.logger.info(f"drawn images: {count} in {self.drawings}")

    def _report_errors(self, runner: Runner, loop: BaseLoop) -> None:
        metric = _metric(loop)
        if not self.errors or metric is None or not metric.scored.has_objects:
            return
        # These imports load matplotlib, which a training does not need.
        from mixdet.error_analysis import analyze_errors, write_error_files
        from mixdet.error_analysis.config_errors import read_results
        from mixdet.error_analysis.error_page import IMAGES
        from mixdet.error_analysis.error_text import threshold_text

        errors = analyze_errors(
            metric.scored, read_results(metric.results_file), ap=metric.scores.per_class
        )
        folder, page = _image_folder(loop), Path(runner.work_dir, "test_errors.html")
        images = metric.scored.images if folder is not None else []
        files = {image["id"]: Path(folder, image["file_name"]) for image in images}
        title = f"Errors of {Path(runner.cfg.filename or runner.experiment_name).stem}"
        write_error_files(errors, page, title, files, IMAGES if files else 0)
        runner.logger.info(threshold_text(errors))
        runner.logger.info(f"error analysis: {page}")


def _image_folder(loop: BaseLoop) -> str | None:
    """Return the folder of the images, or None if the data set does not name it."""
    return getattr(loop.dataloader.dataset, "data_prefix", {}).get("img")


def _weak_class_notes(cfg: Config, metric: CocoDetectionMetric) -> list[str]:
    """Return a sentence about each class that the detector hardly finds."""
    weak = list(find_weak_classes(metric.scores.per_class_50))
    if not weak:
        return []
    objects = training_objects(cfg)  # reads the training annotations again, so only if needed
    return [weak_class_note(name, objects) for name in weak]


def _metric(loop: BaseLoop) -> CocoDetectionMetric | None:
    metrics = loop.evaluator.metrics
    return next((metric for metric in metrics if isinstance(metric, CocoDetectionMetric)), None)
