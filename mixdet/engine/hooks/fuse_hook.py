"""Test a fused copy of a detector, which gives the same results in less time."""

from __future__ import annotations

from mmdet.models.detectors import SingleStageDetector
from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn

from mixdet.errors import MixDetError
from mixdet.models.detectors import fused_twin


@HOOKS.register_module()
class FuseHook(Hook):
    """During a test, replace the detector's test step by the test step of a fused copy.

    In the copy, batch norm is folded into the convolutions, and a MixConv neither splits nor joins
    channels (see `mixdet.deploy.fuse`). The copy is used only if its outputs on the first image
    equal the detector's. If they differ, or if the detector cannot be fused, the hook logs a
    warning and the detector is tested without fusing. Validation during training never uses a
    fused copy.
    """

    def __init__(self) -> None:
        self._model: nn.Module | None = None  # the model with a replaced `test_step`

    def before_run(self, runner: Runner) -> None:
        """Restore the test step, in case an error ended an earlier test."""
        self.after_test_epoch(runner)

    before_train = before_val = before_test = before_run

    def before_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None
    ) -> None:
        """Fuse the detector before the first batch, and compare the outputs on its first image."""
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        if batch_idx or not isinstance(model, SingleStageDetector):
            return
        try:
            fused = fused_twin(model, data_batch)
        except MixDetError as error:
            runner.logger.warning(f"FuseHook: the detector is tested without fusing: {error}")
            return
        self._model, runner.model.test_step = runner.model, fused.test_step

    def after_test_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        """Restore the detector's own test step."""
        if self._model is not None:
            del self._model.test_step
            self._model = None
