"""A learning rate is for a batch: a run with another says so."""

from __future__ import annotations

from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.runner import Runner


@HOOKS.register_module()
class TotalBatchHook(Hook):
    """Warn where the images of an iteration, over all processes, are not those of the recipe.

    The recipe's are the config's `auto_scale_lr.base_batch_size`. With `auto_scale_lr.enable`
    mmengine scales the learning rate in proportion (Goyal et al. 2017, section 2.1) and says so.
    Gradients that accumulate count as part of the batch here, not in mmengine's scaling.
    """

    def before_train(self, runner: Runner) -> None:
        """Compare, and name what scales."""
        recipe = runner.cfg.get("auto_scale_lr") or {}
        wanted = recipe.get("base_batch_size")
        size = getattr(runner.train_dataloader.batch_sampler, "batch_size", None)
        if wanted is None or size is None or recipe.get("enable"):
            return
        steps = getattr(runner.optim_wrapper, "_accumulative_counts", 1)
        total = runner.world_size * size * steps
        if total != wanted:
            runner.logger.warning(
                f"The recipe's learning rate is for batches of {wanted} images, and these have "
                f"{total} ({runner.world_size} processes x {size} x {steps} accumulated): with "
                f"--auto-scale-lr it is multiplied by {total / wanted:.4g}"
            )
