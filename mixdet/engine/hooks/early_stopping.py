"""Early stopping that a resume does not start over."""

from __future__ import annotations

from mmdet.registry import HOOKS
from mmengine.hooks import EarlyStoppingHook
from mmengine.runner import Runner

STATE = "early_stopping"  # in the message hub, which every checkpoint holds


@HOOKS.register_module()
class ResumableEarlyStoppingHook(EarlyStoppingHook):
    """mmengine's `EarlyStoppingHook`, whose best score and patience outlive a resume.

    mmengine's keeps them in no checkpoint, so that a run which is resumed often never stops.
    """

    def before_train(self, runner: Runner) -> None:
        """Take up where the checkpoint was written."""
        state = runner.message_hub.get_info(STATE)
        if state:
            self.best_score, self.wait_count = state["best_score"], state["wait_count"]

    def after_val_epoch(self, runner: Runner, metrics: dict) -> None:
        """Decide, and note what was decided from."""
        super().after_val_epoch(runner, metrics)
        state = {"best_score": float(self.best_score), "wait_count": self.wait_count}
        runner.message_hub.update_info(STATE, state)
