"""The schedules of a config: how to find them, and how to fit them to another training length."""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping
from typing import Any

# A warm-up is a schedule that starts with the training and ends in its first half. The name of its
# class begins with one of these words: for example, `LinearLR` and `LinearMomentum`.
WARMUPS = ("Linear", "Constant", "Quadratic")


def schedule_configs(
    config: object, where: str = "param_scheduler"
) -> Iterator[tuple[str, MutableMapping[str, Any]]]:
    """Yield the key and the config of each schedule. Schedules may be grouped by optimizer.

    Args:
        config: The value of `param_scheduler` in a config.
        where: The key of this value.
    """
    if isinstance(config, dict) and "type" in config:
        yield where, config
    elif isinstance(config, (dict, list, tuple)):
        for key, item in config.items() if isinstance(config, dict) else enumerate(config):
            yield from schedule_configs(item, f"{where}.{key}")


def stretch_schedules(
    param_scheduler: object, old: int, new: int, iterations_per_epoch: float
) -> Callable[[float], float]:
    """Fit the schedules of a training of `old` iterations to a training of `new` iterations.

    A warm-up keeps its number of iterations. Every later position (`begin`, `end`, `milestones`)
    keeps its fraction of the training after the warm-up. So does every length (`T_max`,
    `step_size`, `total_steps`, `periods`). If the warm-up would be longer than half of the new
    training, it is scaled like the rest. A schedule without `end` ends with the training in
    mmengine, so it needs no change.

    Args:
        param_scheduler: The value of `param_scheduler` in a config. It is changed in place.
        old: Iterations of the training that the schedules were written for.
        new: Iterations of the training that the schedules are changed for.
        iterations_per_epoch: Iterations of an epoch, for schedules that count epochs.

    Returns:
        A function from an old position to the new position, both in iterations.
    """
    schedules = [config for _, config in schedule_configs(param_scheduler)]
    warmup = max(
        (_warmup_end(config, old, iterations_per_epoch) for config in schedules), default=0
    )
    if warmup > new / 2:
        warmup = 0

    factor = (new - warmup) / (old - warmup)

    def moved(position: float) -> float:
        return position if position <= warmup else warmup + (position - warmup) * factor

    for config in schedules:
        unit = iterations_per_epoch if config.get("by_epoch", True) else 1
        _move(config, moved, factor, unit)
    return moved


def _warmup_end(config: MutableMapping[str, Any], old: int, iterations_per_epoch: float) -> float:
    """Return the iteration at which a schedule ends if it is a warm-up, and 0 if it is none."""
    kind = config["type"] if isinstance(config["type"], str) else config["type"].__name__
    end = config.get("end", old) * (iterations_per_epoch if config.get("by_epoch", True) else 1)
    is_warmup = kind.rpartition(".")[2].startswith(WARMUPS) and not config.get("begin", 0)
    return end if is_warmup and end < old / 2 else 0


def _move(
    config: MutableMapping[str, Any], moved: Callable[[float], float], factor: float, unit: float
) -> None:
    """Change the positions and lengths of one schedule, which are in steps of `unit` iterations."""

    def position(value: float) -> int:
        return round(moved(value * unit) / unit)

    begin = config.get("begin", 0)
    start = position(begin)

    def length(value: float, since: float = begin) -> int:
        return max(1, position(since + value) - position(since))

    changed: dict[str, Any] = {}
    for key in ("T_max", "total_steps"):
        if config.get(key) is not None:
            changed[key] = length(config[key])
    if config.get("step_size") is not None:
        changed["step_size"] = max(1, round(factor * config["step_size"]))
    if config.get("periods"):
        starts = [begin + sum(config["periods"][:index]) for index in range(len(config["periods"]))]
        changed["periods"] = [length(*pair) for pair in zip(config["periods"], starts, strict=True)]
    if config.get("milestones"):
        changed["milestones"] = [max(1, position(value)) for value in config["milestones"]]
    if "begin" in config:
        changed["begin"] = start
    if "end" in config:
        changed["end"] = max(start + 1, position(config["end"]))
    config.update(changed)
