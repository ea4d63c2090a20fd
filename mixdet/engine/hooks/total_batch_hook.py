"""Warn if the learning rate of a run was chosen for another batch size."""

from __future__ import annotations

from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.runner import Runner


@HOOKS.register_module()
class TotalBatchHook(Hook):
    """Warn if the total batch size of all processes is not `auto_scale_lr.base_batch_size`.

    With `auto_scale_lr.enable` mmengine scales the learning rate in proportion to the batch size
    (Goyal et al. 2017, section 2.1) and logs this. The hook then does not warn. Unlike mmengine,
    the hook counts all batches whose gradients are accumulated as one batch.
    """

    def before_train(self, runner: Runner) -> None:
        """Compare the batch sizes."""
        auto_scale_lr = runner.cfg.get("auto_scale_lr") or {}
        base = auto_scale_lr.get("base_batch_size")
        size = getattr(runner.train_dataloader.batch_sampler, "batch_size", None)
        if base is None or size is None or auto_scale_lr.get("enable"):
            return
        steps = getattr(runner.optim_wrapper, "_accumulative_counts", 1)
        total = runner.world_size * size * steps
        if total != base:
            runner.logger.warning(
                f"The recipe's learning rate is for batches of {base} images, but this run's "
                f"have {total} ({runner.world_size} processes x {size} x {steps} accumulated): "
                f"--auto-scale-lr multiplies the learning rate by {total / base:.4g}"
            )
