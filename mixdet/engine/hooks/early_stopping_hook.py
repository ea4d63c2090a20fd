"""Early stopping that keeps its state when a run is resumed."""

from __future__ import annotations

from mmdet.registry import HOOKS
from mmengine.hooks import EarlyStoppingHook
from mmengine.runner import Runner

STATE_KEY = "early_stopping"  # a key in the message hub, which every checkpoint contains


@HOOKS.register_module()
class ResumableEarlyStoppingHook(EarlyStoppingHook):
    """mmengine's `EarlyStoppingHook`, with its state in the checkpoints.

    When a run is resumed, mmengine's hook forgets the best score and the number of validations
    without improvement. A run that is resumed often may therefore never stop early.
    """

    _default_greater_keys = (*EarlyStoppingHook._default_greater_keys, "AR_")

    def before_train(self, runner: Runner) -> None:
        """Restore the state from the checkpoint."""
        state = runner.message_hub.get_info(STATE_KEY)
        if state:
            self.best_score, self.wait_count = state["best_score"], state["wait_count"]

    def after_val_epoch(self, runner: Runner, metrics: dict) -> None:
        """Decide whether to stop, and store the state for the next checkpoint."""
        super().after_val_epoch(runner, metrics)
        state = {"best_score": float(self.best_score), "wait_count": self.wait_count}
        runner.message_hub.update_info(STATE_KEY, state)
