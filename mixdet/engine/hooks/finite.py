"""A loss that is no number ends the run where it appears, and says where that is."""

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

from mixdet.engine.hooks.seed import SeedIterationHook
from mixdet.errors import MixDetError

MOST_NAMES = 8


@HOOKS.register_module()
class FiniteLossHook(Hook):
    """Stop at the first NaN or infinite loss, before its gradients reach the weights.

    The batch is then run once more, layer by layer, to name the first one that puts out what is not
    finite. Nor is a checkpoint written whose weights are not finite (gradients can overflow where
    the loss does not), so that the last one on disk is a good one.

    It looks at what the model returns by a forward hook of torch's, since mmengine's come after the
    optimizer's step.
    """

    priority = "VERY_HIGH"

    def before_train(self, runner: Runner) -> None:
        """Watch the model."""

        def check(model: nn.Module, args: tuple, call: dict, output: Any) -> None:
            broken = _not_finite(output) if call.get("mode") == "loss" else []
            if broken:
                self._handle.remove()  # the repeated pass must not end here
                raise MixDetError(_report(runner, model, call, broken))

        self._handle = _unwrapped(runner).register_forward_hook(check, with_kwargs=True)

    def after_train(self, runner: Runner) -> None:
        """Leave the model alone."""
        self._handle.remove()

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Refuse to write what is not finite.

        Raises:
            MixDetError: A weight, or a statistic of batch norm, is NaN or infinite.
        """
        # other buffers may hold infinity by design, as masks do
        learnt = {name for name, _ in _unwrapped(runner).named_parameters()}
        broken = [
            name
            for name, weight in checkpoint["state_dict"].items()
            if (name in learnt or name.endswith(("running_mean", "running_var"))) and _bad(weight)
        ]
        if broken:
            raise MixDetError(
                f"{len(broken)} weights are NaN or infinite after iteration {runner.iter}, the "
                f"first is {broken[0]}: no checkpoint is written; {_advice(runner)}"
            )


def _report(runner: Runner, model: nn.Module, call: dict, broken: list[str]) -> str:
    paths = [sample.metainfo.get("img_path", "?") for sample in call.get("data_samples") or ()]
    more = f" and {len(paths) - MOST_NAMES} more" if len(paths) > MOST_NAMES else ""
    return (
        f"NaN or infinite in iteration {runner.iter + 1} (epoch {runner.epoch + 1}): "
        f"{', '.join(broken)}; {_origin(runner, model, call)}; images of the batch: "
        f"{', '.join(paths[:MOST_NAMES])}{more}; {_advice(runner)}"
    )


def _origin(runner: Runner, model: nn.Module, call: dict) -> str:
    """Where it first appears when the batch is run again, in words."""
    if _not_finite(call["inputs"]):
        return "first in the images themselves"
    for hook in runner.hooks:
        if isinstance(hook, SeedIterationHook):  # for the same dropout
            hook.before_train_iter(runner, 0)
    with torch.no_grad(), _watched(model) as found:
        model(**call)
    return found[0] if found else "first in the loss, every layer's output being finite"


@contextmanager
def _watched(model: nn.Module) -> Iterator[list[str]]:
    """A list that layers put themselves into, in order, whose output is not finite."""
    found: list[str] = []

    def watch(name: str, module: nn.Module):
        def note(module: nn.Module, args: tuple, output: Any) -> None:
            if not found and _not_finite(output):
                weights = [key for key, value in module.named_parameters() if _bad(value)]
                words = f", whose {weights[0]} is not finite" if weights else ""
                found.append(f"first in the output of {name} ({type(module).__name__}){words}")

        return module.register_forward_hook(note)

    handles = [watch(name, module) for name, module in model.named_modules() if name]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _not_finite(values: Any, name: str = "") -> list[str]:
    """Names of the tensors in a nested structure that are not finite."""
    if isinstance(values, torch.Tensor):
        return [name] if _bad(values) else []
    if isinstance(values, dict):
        return [found for key, each in values.items() for found in _not_finite(each, str(key))]
    if isinstance(values, (list, tuple)):
        return list(dict.fromkeys(found for each in values for found in _not_finite(each, name)))
    return []


def _bad(tensor: torch.Tensor) -> bool:
    return tensor.is_floating_point() and not bool(torch.isfinite(tensor).all())


def _unwrapped(runner: Runner) -> nn.Module:
    return runner.model.module if is_model_wrapper(runner.model) else runner.model


def _advice(runner: Runner) -> str:
    last = Path(runner.work_dir, "last_checkpoint")
    name = last.read_text() if last.is_file() else "none yet"
    return (
        f"last checkpoint: {name}; lower optim_wrapper.optimizer.lr, or limit the gradients with "
        "optim_wrapper.clip_grad.max_norm"
    )
