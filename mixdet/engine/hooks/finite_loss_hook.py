"""Stop a run at the first NaN or infinite loss, and name the layer in which the fault begins."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn

from mixdet.engine.hooks.seed_iteration_hook import SeedIterationHook
from mixdet.errors import MixDetError

MAX_IMAGE_NAMES = 8  # largest number of images that an error message names


@HOOKS.register_module()
class FiniteLossHook(Hook):
    """Stop at the first NaN or infinite loss, before its gradients reach the weights.

    The hook then runs the batch once more, to name the first layer whose output is not finite. The
    hook also stops the run before a checkpoint with NaN or infinite weights is written. The last
    checkpoint on disk therefore stays usable. (If gradients overflow, weights can become infinite
    although the loss is finite.)

    A forward hook of torch reads the losses, since mmengine's hooks run after the optimizer's step.
    """

    priority = "VERY_HIGH"

    def before_train(self, runner: Runner) -> None:
        """Register the forward hook."""

        def check(model: nn.Module, args: tuple, kwargs: dict, output: Any) -> None:
            names = _non_finite_names(output) if kwargs.get("mode") == "loss" else []
            if names:
                self._handle.remove()  # `_report` runs the batch again, without this check
                raise MixDetError(_report(runner, model, kwargs, names))

        self._handle = _unwrapped(runner).register_forward_hook(check, with_kwargs=True)

    def after_train(self, runner: Runner) -> None:
        """Remove the forward hook."""
        self._handle.remove()

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Check the weights before they are written.

        Raises:
            MixDetError: A weight, or a statistic of batch norm, is NaN or infinite.
        """
        # Other buffers, such as masks, may be infinite by design.
        parameter_names = {name for name, _ in _unwrapped(runner).named_parameters()}
        broken = [
            name
            for name, weight in checkpoint["state_dict"].items()
            if (name in parameter_names or name.endswith(("running_mean", "running_var")))
            and not _is_finite(weight)
        ]
        if broken:
            raise MixDetError(
                f"{len(broken)} weights are NaN or infinite after iteration {runner.iter}; the "
                f"first is {broken[0]}: no checkpoint is written; {_advice(runner)}"
            )


def _report(runner: Runner, model: nn.Module, kwargs: dict, loss_names: list[str]) -> str:
    paths = [sample.metainfo.get("img_path", "?") for sample in kwargs.get("data_samples") or ()]
    more = f" and {len(paths) - MAX_IMAGE_NAMES} more" if len(paths) > MAX_IMAGE_NAMES else ""
    return (
        f"a loss is NaN or infinite in iteration {runner.iter + 1} (epoch {runner.epoch + 1}): "
        f"{', '.join(loss_names)}; {_first_origin(runner, model, kwargs)}; images of the batch: "
        f"{', '.join(paths[:MAX_IMAGE_NAMES])}{more}; {_advice(runner)}"
    )


def _first_origin(runner: Runner, model: nn.Module, kwargs: dict) -> str:
    """Run the batch again, and describe where the first value that is not finite appears."""
    if _non_finite_names(kwargs["inputs"]):
        return "first in the images themselves"
    for hook in runner.hooks:
        if isinstance(hook, SeedIterationHook):  # the same seed gives the same dropout
            hook.before_train_iter(runner, 0)
    with torch.no_grad(), _watch_outputs(model) as messages:
        model(**kwargs)
    return messages[0] if messages else "first in the loss; the output of every layer is finite"


@contextmanager
def _watch_outputs(model: nn.Module) -> Iterator[list[str]]:
    """Yield a list that receives a message about the first layer with a non-finite output."""
    messages: list[str] = []

    def watch(name: str, module: nn.Module):
        def check(module: nn.Module, args: tuple, output: Any) -> None:
            if not messages and _non_finite_names(output):
                weights = [key for key, value in module.named_parameters() if not _is_finite(value)]
                cause = f", whose {weights[0]} is not finite" if weights else ""
                messages.append(f"first in the output of {name} ({type(module).__name__}){cause}")

        return module.register_forward_hook(check)

    handles = [watch(name, module) for name, module in model.named_modules() if name]
    try:
        yield messages
    finally:
        for handle in handles:
            handle.remove()


def _non_finite_names(values: Any, name: str = "") -> list[str]:
    """Return the names of the tensors with NaN or infinity in a nested structure."""
    if isinstance(values, torch.Tensor):
        return [] if _is_finite(values) else [name]
    if isinstance(values, dict):
        return [
            tensor_name
            for key, value in values.items()
            for tensor_name in _non_finite_names(value, str(key))
        ]
    if isinstance(values, list | tuple):
        names = [tensor_name for value in values for tensor_name in _non_finite_names(value, name)]
        return list(dict.fromkeys(names))  # the tensors of a list share one name
    return []


def _is_finite(tensor: torch.Tensor) -> bool:
    return not tensor.is_floating_point() or bool(torch.isfinite(tensor).all())


def _unwrapped(runner: Runner) -> nn.Module:
    return runner.model.module if is_model_wrapper(runner.model) else runner.model


def _advice(runner: Runner) -> str:
    last = Path(runner.work_dir, "last_checkpoint")
    path = last.read_text() if last.is_file() else "none yet"
    return (
        f"last checkpoint: {path}; lower optim_wrapper.optimizer.lr, or limit the gradients with "
        "optim_wrapper.clip_grad.max_norm"
    )
