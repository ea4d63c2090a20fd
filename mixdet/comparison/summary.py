"""The numbers of a report, worked out once for the terminal and the page."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass

from mixdet.comparison.folder import Comparison, RowRecord
from mixdet.comparison.statistics import FEW, Interval, paired_interval

SIZES = {
    "small": "coco/bbox_mAP_s",
    "medium": "coco/bbox_mAP_m",
    "large": "coco/bbox_mAP_l",
}


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation over seeds, in percent; the latter is NaN for one seed."""

    mean: float
    deviation: float

    @classmethod
    def of(cls, scores: dict[int, float]) -> Spread:
        """Of scores by seed; NaN where there are none."""
        values = list(scores.values())
        return cls(
            statistics.mean(values) if values else math.nan,
            statistics.stdev(values) if len(values) > 1 else math.nan,
        )

    def __str__(self) -> str:
        if math.isnan(self.mean):
            return "-"
        deviation = "" if math.isnan(self.deviation) else f" ± {self.deviation:.1f}"
        return f"{self.mean:.1f}{deviation}"


@dataclass(frozen=True)
class RowSummary:
    """A row of the table.

    Attributes:
        name: Of the config.
        seeds: Finished runs.
        score: mAP.
        by_size: mAP of small, medium and large objects.
        difference: mAP's paired difference to the baseline, over seeds; None for the baseline.
        over_images: The same, over validation images; None where it was not measured.
        cost: Parameters and the like; None where they were not measured.
        seconds_per_iteration: Of training, the median over seeds.
    """

    name: str
    seeds: int
    score: Spread
    by_size: dict[str, Spread]
    difference: Interval | None
    over_images: Interval | None
    cost: RowRecord | None
    seconds_per_iteration: float


def summarize(comparison: Comparison) -> list[RowSummary]:
    """Every row that has a finished run, the baseline first."""
    base, *_ = comparison.plan.rows
    reference = comparison.scores(base)
    return [
        _row(comparison, row, None if row == base else reference)
        for row in comparison.plan.rows
        if comparison.runs_of(row)
    ]


def _row(comparison: Comparison, row: str, reference: dict[int, float] | None) -> RowSummary:
    runs, scores = comparison.runs_of(row), comparison.scores(row)
    cost = comparison.rows.get(row)
    interval = cost and cost.images_interval
    return RowSummary(
        name=row,
        seeds=len(runs),
        score=Spread.of(scores),
        by_size={size: Spread.of(comparison.scores(row, key)) for size, key in SIZES.items()},
        difference=paired_interval(scores, reference)
        if reference and reference.keys() & scores.keys()
        else None,
        over_images=Interval(*(100 * value for value in interval)) if interval else None,
        cost=cost,
        seconds_per_iteration=statistics.median(run.seconds_per_iteration for run in runs.values()),
    )


def verdict(interval: Interval | None) -> str:
    """A difference in words: a gain or a loss only where its interval leaves zero out."""
    if interval is None:
        return "baseline"
    if math.isinf(interval.low):
        return f"{interval.mean:+.1f}, one seed: not separable"
    range_ = f"[{interval.low:+.1f}, {interval.high:+.1f}]"
    return f"{interval.mean:+.1f} {range_}" if interval.separable else f"not separable {range_}"


def remarks(comparison: Comparison, rows: list[RowSummary]) -> list[str]:
    """What a reader must know before he believes the table."""
    plan = comparison.plan
    seeds = [row.seeds for row in rows]
    counted = f"{min(seeds)}" if min(seeds) == max(seeds) else f"{min(seeds)} to {max(seeds)}"
    words = [
        f"Seeds: {counted} a row; the same seed gives every row the same order of images. "
        f"mAP in percent: mean ± standard deviation over seeds, after the last epoch.",
        "Difference: to the first row, seed by seed, with a 95 % interval over seeds "
        + ("(Student's t)" if min(seeds) < FEW else "(BCa bootstrap)")
        + ". Where the interval holds zero the row is printed as not separable, which is not the "
        "same as equal.",
    ]
    if any(row.over_images for row in rows):
        words.append(
            "Over images: the same difference with a 95 % interval of a bootstrap over the "
            "validation images, the trained networks as they are: it does not hold the spread "
            "of training."
        )
    widths = [
        row.difference.high - row.difference.mean
        for row in rows
        if row.difference and math.isfinite(row.difference.high)
    ]
    if min(seeds) < 2:
        words.append("With one seed nothing can be separated.")
    elif min(seeds) < FEW and widths:
        words.append(
            f"Power is low with {min(seeds)} seeds: a difference had to exceed its interval's "
            f"half-width to be told apart, here {min(widths):.1f} to {max(widths):.1f} points."
        )
    if len(rows) > 2:
        words.append(
            f"{len(rows) - 1} differences are each at 95 %, not together: about one in twenty is "
            "separated by chance."
        )
    missing = len(plan.rows) * len(plan.seeds) - sum(seeds)
    if missing > 0:
        words.append(f"{missing} of the runs are missing.")
    return words


def environments(comparison: Comparison) -> list[str]:
    """Hardware and versions of the runs; more than one line where they were not all the same."""
    found = {}
    for run in comparison.runs:
        environment = dict(run.environment)
        device, cores = environment.pop("device"), environment.pop("cores")
        threads = environment.pop("threads")
        versions = ", ".join(f"{name} {version}" for name, version in environment.items())
        line = f"{device}, {cores} cores, {threads} threads a run; {versions}"
        found[line] = found.get(line, 0) + 1
    if len(found) == 1:
        return list(found)
    return [f"{line} ({count} runs)" for line, count in found.items()]
