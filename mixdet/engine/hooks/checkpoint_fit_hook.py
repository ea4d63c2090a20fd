"""Check that a checkpoint fits the model and the config before a run uses it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner import BaseLoop, Runner
from torch.nn.modules.utils import consume_prefix_in_state_dict_if_present

from mixdet.config.input_size import input_wh
from mixdet.config.plain import parse_config
from mixdet.config.read import checkpoint_config
from mixdet.errors import MixDetError
from mixdet.image_size import width_x_height
from mixdet.models.start_weights import are_start_weights_of
from mixdet.models.weights import weight_mismatch

# The config keys that decide what a run learns. The seed is not listed, since mmengine itself warns
# if the seed differs.
RECIPE_KEYS = ("model", "train_dataloader", "optim_wrapper", "param_scheduler", "train_cfg")
# mmengine restores the optimizer and the schedulers from a checkpoint. New values for the following
# keys therefore have no effect.
RESTORED_OPTIM_WRAPPER_KEYS = ("optimizer", "paramwise_cfg")
RESTORED_PREFIXES = (
    *(f"optim_wrapper.{key}" for key in RESTORED_OPTIM_WRAPPER_KEYS),
    "param_scheduler",
)
MAX_NAMED_CHANGES = 5  # largest number of changed settings that a line of the log names


@HOOKS.register_module()
class CheckpointFitHook(Hook):
    """Refuse to resume or to test with weights that do not match the model.

    mmengine loads the weights that match, and only logs the others. If a training run starts from
    weights (`load_from`) that do not match, for example because the number of classes differs, the
    hook logs a warning that names the difference. When a run is resumed, the hook warns about
    settings that differ from the checkpoint's config. It also warns about a test with another image
    size than the training had.
    """

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Compare the names and shapes of the checkpoint's weights with those of the model.

        Raises:
            MixDetError: The names or shapes differ, and the run resumes or tests.
        """
        model = runner.model
        while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
            model = model.module
        weights = checkpoint.get("state_dict", checkpoint)
        consume_prefix_in_state_dict_if_present(weights, "module.")  # added by a parallel wrapper
        mismatch = weight_mismatch(model, weights)
        # mmengine builds the training loop from its config only if the run trains.
        trains = isinstance(runner._train_loop, BaseLoop)
        if not mismatch:
            if runner._resume:
                _log_changes(runner, checkpoint)
            elif not trains:
                _log_size(runner, checkpoint)
            return
        if runner._resume or not trains:
            raise MixDetError(f"the checkpoint does not fit the config: {mismatch}")
        if are_start_weights_of(model, weights):
            runner.logger.info(f"start weights: {runner._load_from}")
        else:
            runner.logger.warning(
                f"load_from fits in part; the rest starts from scratch: {mismatch}"
            )


def _log_size(runner: Runner, checkpoint: dict) -> None:
    """Log that a test takes images of another size than the training."""
    trained = checkpoint_config(checkpoint.get("meta") or {})
    if trained is None:
        return
    trained_wh, wh = input_wh(trained), input_wh(runner.cfg)
    if trained_wh is not None and wh is not None and trained_wh != wh:
        runner.logger.warning(
            f"the test takes images of {width_x_height(wh)} (width x height), but the checkpoint "
            f"was trained with {width_x_height(trained_wh)}: to test with the size of the "
            f"training, pass --size {width_x_height(trained_wh)}"
        )


def _log_changes(runner: Runner, checkpoint: dict) -> None:
    """Log the changed settings. Settings without effect get the checkpoint's values again."""
    try:
        earlier = parse_config(checkpoint["meta"]["cfg"])
        changes = changed_settings(parse_config(runner.cfg.pretty_text), earlier)
    except (KeyError, TypeError, ValueError):
        # The checkpoint is from another tool, or a config contains code.
        return
    without_effect = [change for change in changes if change.startswith(RESTORED_PREFIXES)]
    in_effect = [change for change in changes if change not in without_effect]
    for message, settings in (
        ("the resumed run differs from its checkpoint in these settings", in_effect),
        (
            "these settings have no effect, since a resumed run keeps its checkpoint's values",
            without_effect,
        ),
    ):
        if settings:
            more = len(settings) - MAX_NAMED_CHANGES
            more = f" and {more} more" if more > 0 else ""
            runner.logger.warning(f"{message}: {', '.join(settings[:MAX_NAMED_CHANGES])}{more}")
    if without_effect:  # reset these settings, since the next checkpoint contains this config
        current, restored = runner.cfg.optim_wrapper, earlier.get("optim_wrapper") or {}
        runner.cfg.optim_wrapper = {
            **{k: value for k, value in current.items() if k not in RESTORED_OPTIM_WRAPPER_KEYS},
            **{k: value for k, value in restored.items() if k in RESTORED_OPTIM_WRAPPER_KEYS},
        }
        runner.cfg.param_scheduler = earlier.get("param_scheduler")


def changed_settings(config: dict, earlier: dict) -> list[str]:
    """List the settings in `RECIPE_KEYS` that changed, such as `train_cfg.max_epochs=6 (was 3)`.

    Args:
        config: The config of a run.
        earlier: The config of an earlier run.
    """
    now, before = (
        dict(_settings({key: recipe[key] for key in RECIPE_KEYS if key in recipe}))
        for recipe in (config, earlier)
    )
    return [
        f"{key}={now.get(key)!r} (was {before.get(key)!r})"
        for key in {**now, **before}
        if repr(now.get(key)) != repr(before.get(key))  # as text, since NaN != NaN
    ]


def _settings(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each nested setting as a key, joined by dots as in `--cfg-options`, and a value."""
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list | tuple) and any(isinstance(item, dict) for item in value):
        items = enumerate(value)
    else:
        yield path, value
        return
    for key, item in items:
        yield from _settings(item, f"{path}.{key}" if path else str(key))
