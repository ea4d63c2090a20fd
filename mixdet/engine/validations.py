"""The validations of a training, and a table that compares the latest one with the best one."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import NamedTuple

from mmengine.hooks import CheckpointHook, EarlyStoppingHook, Hook
from mmengine.logging import MessageHub

from mixdet.visual.tables import text_table

# The key of the validations in the message hub, which every checkpoint contains. It must not begin
# with `train`, `val` or `test`, since mmengine logs the values of such keys.
STATE_KEY = "progress"
MAX_ROWS = 60  # of a table in the log; a class has two
MAX_CURVES = 3


class Monitor(NamedTuple):
    """The metric that says which validation is the best.

    Attributes:
        name: Name of the metric.
        greater: Whether a greater value is better.
    """

    name: str
    greater: bool


@dataclass(frozen=True)
class Validation:
    """The scores of a validation.

    Attributes:
        iteration: Number of training iterations before the validation.
        time: When the validation was, in words, such as `epoch 3`.
        scores: The metrics that are numbers, by name.
    """

    iteration: int
    time: str
    scores: dict[str, float]


@dataclass
class Validations:
    """All validations of a training, including those of the runs that it was resumed from."""

    entries: list[Validation] = field(default_factory=list)

    @classmethod
    def from_message_hub(cls, hub: MessageHub) -> Validations:
        """Return the validations that a checkpoint contains."""
        return cls([Validation(**entry) for entry in hub.get_info(STATE_KEY) or []])

    def to_message_hub(self, hub: MessageHub) -> None:
        """Store the validations for the next checkpoint."""
        hub.update_info(STATE_KEY, [asdict(entry) for entry in self.entries])

    def add(self, iteration: int, time: str, metrics: dict) -> None:
        """Add a validation. Metrics that are not finite numbers are left out."""
        scores = {name: _number(value) for name, value in metrics.items()}
        scores = {name: value for name, value in scores.items() if math.isfinite(value)}
        # After a resume, the last validation may be repeated
        self.entries = [entry for entry in self.entries if entry.iteration < iteration]
        self.entries.append(Validation(iteration, time, scores))

    @property
    def latest(self) -> Validation:
        """The last validation, or one without scores if there was none."""
        return self.entries[-1] if self.entries else Validation(0, "", {})

    def table(self, monitor: Monitor) -> str:
        """Return a table of the latest validation and the best of the earlier validations."""
        *earlier, latest = self.entries
        best = _best(earlier, monitor)
        is_best = _best(self.entries, monitor) is latest
        columns = {"latest": latest} | ({f"best before ({best.time})": best} if best else {})
        rows = [
            [name, *(_cell(column.scores.get(name)) for column in columns.values())]
            for name in latest.scores
        ]
        title = f"Validation after {latest.time}"
        if best is not None:
            title += f"{', the best' if is_best else ', not the best'} so far by {monitor.name}"
        text = f"{title}\n{text_table(['metric', *columns], rows[:MAX_ROWS])}"
        return text + (f"\nand {len(rows) - MAX_ROWS} more" if len(rows) > MAX_ROWS else "")

    def curves(self, monitor: Monitor | None) -> dict[str, tuple[list[int], list[float]]]:
        """Return iterations and values of up to `MAX_CURVES` metrics, the monitored one first."""
        names = [monitor.name] if monitor else []
        names += [name for name in self.latest.scores if name not in names]
        curves = {}
        for name in names[:MAX_CURVES]:
            entries = [entry for entry in self.entries if name in entry.scores]
            curves[name] = (
                [entry.iteration for entry in entries],
                [entry.scores[name] for entry in entries],
            )
        return curves


def monitor_of(hooks: Iterable[Hook], scores: dict[str, float]) -> Monitor | None:
    """Return the metric that says which validation is the best, or None if there is no metric.

    Args:
        hooks: The hooks of the run.
        scores: The metrics of a validation.
    """
    for hook in hooks:
        if isinstance(hook, CheckpointHook) and hook.save_best:
            for name, rule in zip(hook.key_indicators, hook.rules, strict=False):
                if name in scores:
                    return Monitor(name, rule != "less")
        if isinstance(hook, EarlyStoppingHook) and hook.monitor in scores:
            return Monitor(hook.monitor, hook.rule != "less")
    name = next(iter(scores), None)
    return None if name is None else Monitor(name, "loss" not in name)


def _best(entries: Iterable[Validation], monitor: Monitor) -> Validation | None:
    """Return the first validation with the best value, or None if no validation has a value."""
    scored = [entry for entry in entries if monitor.name in entry.scores]
    sign = 1 if monitor.greater else -1
    return max(scored, key=lambda entry: sign * entry.scores[monitor.name], default=None)


def _number(value) -> float:
    """Return a metric as a float, or NaN if it is not one number."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan


def _cell(value: float | None) -> str:
    # COCO's metrics are -1 if there is no object for them
    return "-" if value is None or value == -1 else f"{value:.4f}"
