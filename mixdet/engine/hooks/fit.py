"""A checkpoint that does not fit the model is not loaded in silence."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner import BaseLoop, Runner
from torch.nn.modules.utils import consume_prefix_in_state_dict_if_present

from mixdet.config.plain import parse_config
from mixdet.errors import MixDetError
from mixdet.models.weights import misfit

# Of a config: what a run learns by (of another seed mmengine tells itself), how many changes are
# named, and those of which a checkpoint has the state, which mmengine restores
RECIPE = "model", "train_dataloader", "optim_wrapper", "param_scheduler", "train_cfg"
NAMED = 5
OF_WRAPPER = "optimizer", "paramwise_cfg"
RESTORED = (*(f"optim_wrapper.{key}" for key in OF_WRAPPER), "param_scheduler")


@HOOKS.register_module()
class CheckpointFitHook(Hook):
    """Refuse to resume or to test with weights that are not the model's; mmengine loads what fits.

    To start from (`load_from`), such weights are allowed, as for other classes: what is left out is
    named in the log, as are settings in which a resumed run and its checkpoint differ.
    """

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Compare names and shapes.

        Raises:
            MixDetError: They differ, and the run resumes or tests.
        """
        model = runner.model
        while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
            model = model.module
        weights = checkpoint.get("state_dict", checkpoint)
        consume_prefix_in_state_dict_if_present(weights, "module.")  # a parallel wrapper's
        fault = misfit(model, weights)
        if not fault:
            if runner._resume:
                _log_changes(runner, checkpoint)
            return
        trains = isinstance(runner._train_loop, BaseLoop)  # else still a config
        if runner._resume or not trains:
            raise MixDetError(f"the checkpoint does not fit the config: {fault}")
        runner.logger.warning(f"load_from fits in part; the rest starts from scratch: {fault}")


def _log_changes(runner: Runner, checkpoint: dict) -> None:
    """Name the settings that differ, and have the run's config say those that hold."""
    try:
        earlier = parse_config(checkpoint["meta"]["cfg"])
        changes = changed_settings(parse_config(runner.cfg.pretty_text), earlier)
    except (KeyError, TypeError, ValueError):  # another tool's checkpoint, a config with code in it
        return
    restored = [change for change in changes if change.startswith(RESTORED)]
    others = [change for change in changes if change not in restored]
    for words, found in (
        ("resumed by the checkpoint's schedule, and with other settings than its", others),
        ("resuming goes on with the checkpoint's, not with these settings", restored),
    ):
        if found:
            more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
            runner.logger.warning(f"{words}: {', '.join(found[:NAMED])}{more}")
    if restored:  # the next checkpoint holds this config
        now, before = runner.cfg.optim_wrapper, earlier.get("optim_wrapper") or {}
        runner.cfg.optim_wrapper = {
            **{key: each for key, each in now.items() if key not in OF_WRAPPER},
            **{key: each for key, each in before.items() if key in OF_WRAPPER},
        }
        runner.cfg.param_scheduler = earlier.get("param_scheduler")


def changed_settings(config: dict, earlier: dict) -> list[str]:
    """What a recipe says otherwise than an earlier one, such as `train_cfg.max_epochs=6 (was 3)`.

    Args:
        config: The config of a run.
        earlier: That of the run before.
    """
    now, before = (
        dict(_settings({key: each[key] for key in RECIPE if key in each}))
        for each in (config, earlier)
    )
    return [
        f"{key}={now.get(key)!r} (was {before.get(key)!r})"
        for key in {**now, **before}
        if repr(now.get(key)) != repr(before.get(key))  # so that nan is nan
    ]


def _settings(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Keys, joined by dots as in `--cfg-options`, and the values that hold no others."""
    if isinstance(value, dict):
        inner = value.items()
    elif isinstance(value, list | tuple) and any(isinstance(each, dict) for each in value):
        inner = enumerate(value)
    else:
        yield path, value
        return
    for key, each in inner:
        yield from _settings(each, f"{path}.{key}" if path else str(key))
