"""Check the annotations before every training run and every test."""

from __future__ import annotations

from mmdet.registry import HOOKS
from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mixdet.data_check import quick_report


@HOOKS.register_module()
class DataCheckHook(Hook):
    """Stop a run whose data are unusable. Log warnings, and how many images and objects are used.

    The hook reads the annotation files and lists the image folders, but opens no image.
    `tools/check_data.py` opens the images too, and shows examples.
    """

    priority = "VERY_HIGH"

    def __init__(self) -> None:
        self._checked = False

    def before_train_data(self, runner: Runner) -> None:
        """Check the data before `ResumableTrainLoop` builds the data sets. See `before_train`."""
        self._checked = True
        _check(runner, ("train_dataloader", "val_dataloader"))

    def before_train(self, runner: Runner) -> None:
        """Check the training and the validation data, and the metrics of the validation.

        Raises:
            MixDetError: The check finds a problem of the level "error".
        """
        if not self._checked:  # the loop is not a ResumableTrainLoop
            self.before_train_data(runner)

    def before_test(self, runner: Runner) -> None:
        """Check the test data and the metrics of the test.

        Raises:
            MixDetError: The check finds a problem of the level "error".
        """
        _check(runner, ("test_dataloader",))


@master_only
def _check(runner: Runner, loaders: tuple[str, ...]) -> None:
    report = quick_report(runner.cfg, loaders)
    report.refuse_errors()
    for problem in report.problems:
        if problem.level == "warning":
            runner.logger.warning(problem.line())
    for summary in report.summaries:
        if summary.used_images is not None:
            runner.logger.info(summary.line())
