"""The number of images between two steps of the optimizer."""

from __future__ import annotations

from mmengine.runner import Runner


def accumulated_batches(runner: Runner) -> int:
    """Return the number of batches whose gradients are accumulated for one step of the optimizer.

    Args:
        runner: The runner. Its optimizer wrapper may be a config that is not built yet.
    """
    wrapper = runner.optim_wrapper
    if isinstance(wrapper, dict):
        return wrapper.get("accumulative_counts", 1)
    return getattr(wrapper, "_accumulative_counts", 1)


def scale_lr_by_accumulated_batches(runner: Runner) -> None:
    """Make mmengine count accumulated batches when it scales the learning rate.

    mmengine multiplies the learning rate by the batch size of all processes, divided by
    `auto_scale_lr.base_batch_size`. It does not count the batches that
    `optim_wrapper.accumulative_counts` adds up before each step of the optimizer. To correct this,
    the function divides `base_batch_size` by their number. It must be called before the optimizer
    is built. Further calls change nothing.
    """
    scale = runner.cfg.get("auto_scale_lr") or {}
    if scale.get("enable") and "base_batch_size" in scale:
        base = scale["base_batch_size"] / accumulated_batches(runner)
        runner.auto_scale_lr = {**scale, "base_batch_size": base}
