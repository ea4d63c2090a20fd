"""Warn if the learning rate of a run was chosen for another batch size."""

from __future__ import annotations

from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mixdet.engine.batch_size import accumulated_batches


@HOOKS.register_module()
class TotalBatchHook(Hook):
    """Warn if the total batch size of all processes is not `auto_scale_lr.base_batch_size`.

    With `auto_scale_lr.enable` mmengine scales the learning rate in proportion to the batch size
    (Goyal et al. 2017, section 2.1) and logs this. The hook then does not warn. All batches whose
    gradients are accumulated count as one batch. mmengine's factor leaves this accumulation out.
    `ResumableTrainLoop` and `tools/train.py` correct the factor. If neither did, the hook warns.
    """

    def before_train(self, runner: Runner) -> None:
        """Compare the batch sizes."""
        auto_scale_lr = runner.cfg.get("auto_scale_lr") or {}
        base = auto_scale_lr.get("base_batch_size")
        size = getattr(runner.train_dataloader.batch_sampler, "batch_size", None)
        if base is None or size is None:
            return
        steps = accumulated_batches(runner)
        total = runner.world_size * size * steps
        batches = f"{runner.world_size} processes x {size} x {steps} accumulated"
        if auto_scale_lr.get("enable"):
            if steps > 1 and runner.auto_scale_lr["base_batch_size"] == base:
                runner.logger.warning(
                    f"auto_scale_lr has multiplied the learning rate by {total / steps / base:.4g} "
                    f"without counting accumulated batches: {total / base:.4g} is right for "
                    f"{total} images ({batches}): train with ResumableTrainLoop or MixDet's "
                    "tools/train.py"
                )
        elif total != base:
            runner.logger.warning(
                f"The recipe's learning rate is for batches of {base} images, but the batches of "
                f"this run have {total} ({batches}): "
                f"--auto-scale-lr multiplies the learning rate by {total / base:.4g}"
            )
