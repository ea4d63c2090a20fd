"""Testing with the network's fused form, which computes the same sooner."""

from __future__ import annotations

from mmdet.models.detectors import SingleStageDetector
from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn

from mixdet.errors import MixDetError


@HOOKS.register_module()
class FuseHook(Hook):
    """While a run tests, have a fused copy of its detector compute (`mixdet.deploy.fuse`).

    Batch norm is folded into convolutions, and no MixConv splits or joins channels. On the first
    batch the copy has to give what the detector gives; one that does not, because its batch norms
    do not stand where folding expects them, is left out, as is one that cannot be made. Validation
    within training is not touched.
    """

    def __init__(self) -> None:
        self._model: nn.Module | None = None  # whose `test_step` is the copy's

    def before_run(self, runner: Runner) -> None:
        """Give the detector its own step back if an error ended the test before."""
        self.after_test_epoch(runner)

    before_train = before_val = before_test = before_run

    def before_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None
    ) -> None:
        """Before the first batch, let the copy make the test steps, if it computes the same."""
        from mixdet.models.detectors import fused_twin

        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        if batch_idx or not isinstance(model, SingleStageDetector):
            return
        try:
            fused = fused_twin(model, data_batch)
        except MixDetError as error:
            runner.logger.warning(f"FuseHook: tested without fusing: {error}")
            return
        self._model, runner.model.test_step = runner.model, fused.test_step

    def after_test_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        """Give the detector its own step back."""
        if self._model is not None:
            del self._model.test_step
            self._model = None
