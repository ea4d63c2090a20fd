"""Choose the length of a training that is to take a given number of minutes.

`fit_length` computes from measured costs how many epochs fit, and when to validate.
`TrainingLength.apply` writes both into a config, and stretches the schedules to the new length.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mmengine.config import Config

from mixdet.compat.checkpoint import load
from mixdet.config.plain import parse_config
from mixdet.engine.schedules import stretch_schedules
from mixdet.engine.time_budget import TrainingCosts, loop_unit, measure_costs
from mixdet.errors import MixDetError

VALIDATIONS = 5  # number of validations, if they take at most `VALIDATION_PART` of the time
VALIDATION_PART = 0.2
TOO_SHORT = "not even one epoch and its validation fit, so one is trained"
KEY = "training_length"  # the key of the chosen length in a config, which a checkpoint contains


@dataclass(frozen=True)
class TrainingLength:
    """How long a training is.

    Attributes:
        minutes: The minutes that were asked for, or None if no minutes were asked for.
        unit: 'epochs' or 'iterations', what the training loop counts.
        count: Number of epochs or iterations.
        val_interval: Number of epochs or iterations between two validations. The last epoch or
            iteration is validated too.
        iterations: Number of iterations of an epoch.
        expected_minutes: The minutes that the training should take.
        clock: 'CPU' for minutes of processor time, 'wall' for wall-clock minutes.
        measured: The measured `TrainingCosts`, as text.
    """

    minutes: float | None
    unit: str
    count: int
    val_interval: int
    iterations: int
    expected_minutes: float | None = None
    clock: str = "wall"
    measured: str = ""

    @property
    def fits(self) -> bool:
        """Whether the training should end within the minutes."""
        return self.minutes is None or self.expected_minutes <= self.minutes

    def __str__(self) -> str:
        unit = self.unit if self.count > 1 else self.unit.removesuffix("s")
        text = f"{self.count} {unit}, validated every {self.val_interval} and at the end"
        if self.expected_minutes is None:
            return text
        kind = "CPU minutes" if self.clock == "CPU" else "minutes"
        return f"{text}: about {self.expected_minutes:.1f} {kind}"

    def as_dict(self) -> dict[str, Any]:
        """Return the attributes, for JSON."""
        return asdict(self)

    def apply(self, cfg: Config) -> None:
        """Set the length in a config, and stretch its schedules to it.

        The epochs and iterations at which hooks do something keep their places in the training, as
        `milestones` do: `switch_epoch` (when mmdet changes the pipeline), `stop_epoch`,
        `begin_epoch` and `begin_iter` (of `EMAHook`), `save_begin` (of checkpoints) and
        `num_last_epochs` (when mmdet's YOLOX turns mosaic off).

        Args:
            cfg: The config. It is changed in place.
        """
        key = f"max_{'iters' if self.unit == 'iterations' else 'epochs'}"
        per_unit = 1 if self.unit == "iterations" else self.iterations
        old = cfg.train_cfg.get(key)
        cfg.train_cfg[key], cfg.train_cfg["val_interval"] = self.count, self.val_interval
        for other in ("dynamic_intervals", "val_begin"):
            cfg.train_cfg.pop(other, None)
        cfg[KEY] = self.as_dict()
        if not old or old == self.count:
            return
        lengths = old * per_unit, self.count * per_unit
        moved = stretch_schedules(cfg.get("param_scheduler"), *lengths, self.iterations)
        custom = cfg.get("custom_hooks") or ()
        for hook in (*custom, *(cfg.get("default_hooks") or {}).values()):
            if isinstance(hook, dict):
                _move_hook(hook, moved, *lengths, self.iterations)


def _move_hook(
    hook: dict[str, Any], moved: Callable[[float], float], old: int, new: int, per_epoch: int
) -> None:
    """Move the epochs and iterations at which a hook does something, in place.

    Args:
        hook: The config of the hook.
        moved: Function from an old position to the new position, both in iterations.
        old: Iterations of the old training.
        new: Iterations of the new training.
        per_epoch: Iterations of an epoch.
    """

    def position(value: float, unit: int) -> int:
        return round(moved(value * unit) / unit)

    for key in ("switch_epoch", "stop_epoch"):
        if hook.get(key):
            hook[key] = max(1, position(hook[key], per_epoch))
    save_unit = per_epoch if hook.get("by_epoch", True) else 1
    for key, unit in (("begin_epoch", per_epoch), ("begin_iter", 1), ("save_begin", save_unit)):
        if hook.get(key):  # it begins before the last epoch (or iteration) ends
            hook[key] = max(0, min(position(hook[key], unit), new // unit - 1))
    last = hook.get("num_last_epochs")
    if last is None and str(hook.get("type")).endswith("YOLOXModeSwitchHook"):
        last = 15  # the default of mmdet
    if last:
        start = position(max(0, old // per_epoch - last), per_epoch)
        epochs = new // per_epoch
        hook["num_last_epochs"] = max(0, min(max(1, epochs - start), epochs - 1))


def check_minutes(minutes: float, cfg_options: Sequence[str] = (), launcher: str = "none") -> None:
    """Check the option `--minutes` and the options that it replaces.

    Raises:
        MixDetError: The minutes are not a number above 0, or another option contradicts them.
    """
    if not 0 < minutes < math.inf:
        raise MixDetError(f"--minutes {minutes:g}: give a number above 0")
    keys = {option.partition("=")[0] for option in cfg_options}
    for key in ("max_epochs", "max_iters", "val_interval"):
        if f"train_cfg.{key}" in keys:
            raise MixDetError(
                f"--minutes chooses train_cfg.{key} itself: leave --minutes or --cfg-options "
                f"train_cfg.{key} out"
            )
    if launcher != "none":
        raise MixDetError(
            f"--minutes measures one process, and --launcher {launcher} starts several: set "
            "train_cfg.max_epochs instead"
        )


def announced_length(
    cfg: Config, minutes: float, resumed: str | None = None, trust: bool = False
) -> TrainingLength:
    """Return the length of the resumed run, or choose one by `length_for`, and print it.

    Args:
        cfg: As for `length_for`.
        minutes: As for `length_for`.
        resumed: The checkpoint that the training resumes from, or None.
        trust: As for `mixdet.compat.checkpoint.load`.

    Raises:
        MixDetError: See `length_for` and `stored_length`.
    """
    if resumed is not None:
        length = stored_length(resumed, trust)
        print(f"--minutes {minutes:g}: the resumed run keeps its {length}")
        return length
    print(f"--minutes {minutes:g}: measuring a few iterations first, in extra time", flush=True)
    length = length_for(cfg, minutes)
    print(f"measured: {length.measured}\n--minutes {minutes:g}: {length}", flush=True)
    if not length.fits:
        print(f"warning: --minutes {minutes:g}: {TOO_SHORT}: {length}", file=sys.stderr)
    return length


def length_for(
    cfg: Config, minutes: float, clock: Callable[[], float] | None = None, started: float = 0.0
) -> TrainingLength:
    """Measure what a training costs, and choose its length.

    Args:
        cfg: The config, with its work folder. It is not changed.
        minutes: The minutes that the training may take.
        clock: As for `measure_costs`.
        started: Seconds that the process of the training has taken before it reads its config.

    Raises:
        MixDetError: The training loop counts neither epochs nor iterations.
    """
    return fit_length(measure_costs(cfg, clock, started), minutes, loop_unit(cfg))


def fit_length(costs: TrainingCosts, minutes: float, unit: str = "epochs") -> TrainingLength:
    """Choose how long a training is, so that it takes at most the given minutes.

    There are five validations, or fewer if five would take more than a fifth of the time. At least
    one epoch (or iteration) is trained, even if it does not fit.

    Args:
        costs: What the training costs.
        minutes: The minutes that the training may take.
        unit: 'epochs' or 'iterations', what the training loop counts.
    """
    seconds = 60 * minutes - costs.start
    validation = costs.validation + costs.val_images * costs.val_image
    validations = VALIDATIONS if costs.val_images else 0
    while validations > 1 and validations * validation > VALIDATION_PART * seconds:
        validations -= 1
    epoch = costs.epoch + costs.iterations * costs.iteration
    unit_cost = epoch if unit == "epochs" else epoch / costs.iterations
    count = max(1, math.floor((seconds - validations * validation) / max(unit_cost, 1e-9)))
    interval = math.ceil(count / max(1, validations))
    actual_validations = math.ceil(count / interval) if validations else 0
    expected = costs.start + count * unit_cost + actual_validations * validation
    return TrainingLength(
        minutes=minutes,
        unit=unit,
        count=count,
        val_interval=interval,
        iterations=costs.iterations,
        expected_minutes=expected / 60,
        clock=costs.clock,
        measured=str(costs),
    )


def stored_length(checkpoint: str, trust: bool = False) -> TrainingLength:
    """Return the length of the run that wrote a checkpoint.

    Args:
        checkpoint: Path of the checkpoint.
        trust: As for `mixdet.compat.checkpoint.load`.

    Raises:
        MixDetError: The checkpoint does not state the length.
    """
    content = load(checkpoint, "cpu", trust)
    try:
        cfg = Config(parse_config(content["meta"]["cfg"]))
        if KEY in cfg:
            return TrainingLength(**cfg[KEY])
        unit = loop_unit(cfg)
        count = cfg.train_cfg["max_epochs" if unit == "epochs" else "max_iters"]
        hub = content["message_hub"]["runtime_info"]
        iterations = hub["max_iters"] // count if unit == "epochs" else 1
        return TrainingLength(None, unit, count, cfg.train_cfg.get("val_interval", 1), iterations)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise MixDetError(
            f"--minutes --resume {checkpoint}: the checkpoint does not state the length of its "
            "run: leave --minutes out, and give the length with --cfg-options train_cfg.max_epochs"
        ) from error
