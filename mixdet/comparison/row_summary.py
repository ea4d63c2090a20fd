"""The numbers and notes that the Markdown report and the HTML page share.

A row of the report is a config.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass

from mixdet.comparison.comparison_folder import Comparison, RowRecord
from mixdet.comparison.image_matches import MatchFile
from mixdet.comparison.score_intervals import MIN_BOOTSTRAP_SEEDS, Interval, paired_interval
from mixdet.engine.training_length import TOO_SHORT, TrainingLength
from mixdet.image_size import width_x_height

SIZE_METRICS = {
    "small": "coco/bbox_mAP_s",
    "medium": "coco/bbox_mAP_m",
    "large": "coco/bbox_mAP_l",
}


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation of a score over seeds, in percent.

    Attributes:
        mean: NaN if there is no score.
        deviation: NaN if there are fewer than two scores.
    """

    mean: float
    deviation: float

    @classmethod
    def from_scores(cls, scores: dict[int, float]) -> Spread:
        """Compute the spread over seeds. The keys of `scores` are the seeds."""
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
    """The numbers of a row of the report.

    Attributes:
        name: Name of the config.
        seeds: Number of finished runs.
        score: mAP.
        score_50: mAP50.
        by_size: mAP of small, medium and large objects.
        difference: Difference in mAP to the baseline, paired by seed, with its interval over seeds.
            None for the baseline, or if the rows have no seed in common.
        over_images: The same difference with its interval over validation images. None for the
            baseline, or if this interval was not measured.
        cost: Parameters, multiply-adds and latency, or None if they were not measured.
        seconds_per_iteration: Time of a training iteration, the median over seeds.
        length: Length of the runs, or None if `--minutes` did not choose it.
        minutes: Mean duration of the runs, by the clock that `length` names. None if a run has no
            record of its duration, or `length` is None.
    """

    name: str
    seeds: int
    score: Spread
    score_50: Spread
    by_size: dict[str, Spread]
    difference: Interval | None
    over_images: Interval | None
    cost: RowRecord | None
    seconds_per_iteration: float
    length: TrainingLength | None = None
    minutes: float | None = None


def summarize_rows(comparison: Comparison) -> list[RowSummary]:
    """Summarize every row that has a finished run; the baseline is first."""
    baseline, *_ = comparison.plan.rows
    baseline_scores = comparison.scores(baseline)
    return [
        _summarize_row(comparison, row, None if row == baseline else baseline_scores)
        for row in comparison.plan.rows
        if comparison.runs_of(row)
    ]


def _summarize_row(
    comparison: Comparison, row: str, baseline_scores: dict[int, float] | None
) -> RowSummary:
    runs, scores = comparison.runs_of(row), comparison.scores(row)
    difference = None
    if baseline_scores and baseline_scores.keys() & scores.keys():
        difference = paired_interval(scores, baseline_scores)
    cost = comparison.rows.get(row)
    over_images = cost and cost.images_interval
    length, minutes = comparison.lengths.get(row), None
    if length and all(run.minutes for run in runs.values()):
        clock = length.clock.lower()
        minutes = statistics.mean(run.minutes[clock] for run in runs.values())
    return RowSummary(
        name=row,
        seeds=len(runs),
        score=Spread.from_scores(scores),
        score_50=Spread.from_scores(comparison.scores(row, "coco/bbox_mAP_50")),
        by_size={
            size: Spread.from_scores(comparison.scores(row, metric))
            for size, metric in SIZE_METRICS.items()
        },
        difference=difference,
        over_images=Interval(*(100 * value for value in over_images)) if over_images else None,
        cost=cost,
        seconds_per_iteration=statistics.median(run.seconds_per_iteration for run in runs.values()),
        length=length,
        minutes=minutes,
    )


def describe_difference(interval: Interval | None) -> str:
    """Describe a difference and its interval. An interval that contains zero is "not separable".

    The spread is unknown if there is one value, or fewer than 8 equal ones (see `paired_interval`).
    """
    if interval is None:
        return "baseline"
    if math.isinf(interval.low):
        return f"{interval.mean:+.1f}, spread unknown: not separable"
    ends = f"[{interval.low:+.1f}, {interval.high:+.1f}]"
    return f"{interval.mean:+.1f} {ends}" if interval.separable else f"not separable {ends}"


def report_notes(comparison: Comparison, rows: list[RowSummary]) -> list[str]:
    """Return the notes below the table: what the columns mean, and the hardware of the runs."""
    return [*_statistics_notes(comparison, rows), *setting_notes(comparison, rows)]


def setting_notes(comparison: Comparison, rows: list[RowSummary]) -> list[str]:
    """Return the notes on length, costs and hardware of the runs, and on what is left out."""
    return [
        *_length_notes(comparison, rows),
        *_cost_notes(rows),
        *_left_out(comparison, rows),
        *(f"Hardware: {line}." for line in _environments(comparison)),
    ]


def _statistics_notes(comparison: Comparison, rows: list[RowSummary]) -> list[str]:
    plan = comparison.plan
    fewest, most = min(row.seeds for row in rows), max(row.seeds for row in rows)
    seeds = f"{fewest}" if fewest == most else f"{fewest} to {most}"
    method = "Student's t" if fewest < MIN_BOOTSTRAP_SEEDS else "BCa bootstrap"
    notes = [
        f"Seeds: {seeds} for each row. A seed gives every row the same order of images. The mAP is "
        "in percent after the last epoch: mean ± standard deviation over the seeds.",
        "Difference: the difference in mAP to the first row, paired by seed, with a 95 % "
        f"confidence interval over the seeds ({method}). A row is printed as not separable if its "
        "interval contains zero. Not separable does not mean equal.",
    ]
    if any(row.over_images for row in rows):
        notes.append(
            "Over images: the same difference with a 95 % interval from a bootstrap over the "
            "validation images. The trained networks stay the same. The interval therefore does "
            "not contain the spread of training."
        )
    half_widths = [
        row.difference.high - row.difference.mean
        for row in rows
        if row.difference and math.isfinite(row.difference.high)
    ]
    if fewest < 2:
        notes.append("With one seed, no difference is separable.")
    elif fewest < MIN_BOOTSTRAP_SEEDS and half_widths:
        notes.append(
            f"Power is low with {fewest} seeds: a difference is separable only if it is larger "
            "than half the width of its interval, here "
            f"{min(half_widths):.1f} to {max(half_widths):.1f} points."
        )
    if len(rows) > 2:
        notes.append(
            f"Each of the {len(rows) - 1} differences has its own 95 % interval. Even if all rows "
            "were equally good, about one difference in twenty would be separable by chance."
        )
    missing = len(plan.rows) * len(plan.seeds) - sum(row.seeds for row in rows)
    if missing > 0:
        notes.append(f"{missing} of the runs are missing.")
    return notes


def _cost_notes(rows: list[RowSummary]) -> list[str]:
    costs = [row.cost for row in rows if row.cost]
    if not costs:
        return []
    sizes = {row.name: width_x_height(row.cost.input_hw[::-1]) for row in rows if row.cost}
    if len({*sizes.values()}) == 1:
        image = f"an image of {next(iter(sizes.values()))}"
    else:
        image = "an image of " + ", ".join(f"{size} ({name})" for name, size in sizes.items())
    in_turns = len({cost.measured_at for cost in costs}) == 1
    turns = "All rows were measured in turns" if in_turns else "Not all rows were measured in turns"
    hardware = {row.name: row.cost.latency_of for row in rows if row.cost}
    notes = [
        f"MAdds: multiply-adds of the network for {image}, half of what is often called FLOPs.",
        "Inference: median time for one image that is in memory: resizing, network and "
        f"post-processing. {turns}, on {_by_row(hardware)}.",
    ]
    if on_onnx := {row.name: row.cost.onnx_of for row in rows if row.cost and row.cost.onnx_ms}:
        notes.append(
            "ONNX Runtime: the same with the exported network (--kind raw), on one thread of "
            f"{_by_row(on_onnx)}."
        )
    return [*notes, "Training: median time of an iteration, data loading included."]


def _by_row(values: dict[str, str]) -> str:
    """Return the value of all rows, or each value with its rows."""
    names: dict[str, list[str]] = {}
    for name, value in values.items():
        names.setdefault(value, []).append(name)
    if len(names) == 1:
        return next(iter(names))
    return ", ".join(f"{value} ({', '.join(rows)})" for value, rows in names.items())


def _length_notes(comparison: Comparison, rows: list[RowSummary]) -> list[str]:
    lengths = [row.length for row in rows if row.length]
    if not lengths:
        return []
    kind = "CPU minutes" if lengths[0].clock == "CPU" else "minutes"
    notes = [
        f"Length: every run has {comparison.plan.minutes:g} {kind}, validation included. Before "
        "the first run, the cost of an iteration and of a validation was measured for each row, "
        f"and as many {lengths[0].unit} were chosen as fit. Minutes: what the runs took, the mean "
        "over the seeds."
    ]
    for row in rows:
        if row.length and not row.length.fits:
            notes.append(f"{row.name}: {TOO_SHORT}.")
    return notes


def _left_out(comparison: Comparison, rows: list[RowSummary]) -> list[str]:
    """Return what the report leaves out, and why."""
    left_out = []
    unmeasured = [row for row in rows if not row.cost]
    if unmeasured:
        names = _names_among(unmeasured, rows)
        left_out.append(f"costs and latencies of {names} (not measured yet)")
    lacking = [row for row in rows if row.cost and row.cost.onnx_ms is None]
    if lacking:
        reasons = sorted({row.cost.onnx_of or "it was not measured" for row in lacking})
        names = _names_among(lacking, rows)
        left_out.append(f"the latency on ONNX Runtime of {names} ({'; '.join(reasons)})")
    if len(rows) > 1 and not any(row.over_images for row in rows):
        left_out.append(f"intervals over images ({MatchFile.NAME} lacks runs)")
    if not MatchFile.read(comparison.folder).runs:
        left_out.append(f"AP of each class ({MatchFile.NAME} is missing)")
    return [f"Left out: {'; '.join(left_out)}."] if left_out else []


def _names_among(some: list[RowSummary], rows: list[RowSummary]) -> str:
    return "all rows" if len(some) == len(rows) > 1 else ", ".join(row.name for row in some)


def _environments(comparison: Comparison) -> list[str]:
    """Return one line per combination of hardware and versions that runs were trained with."""
    counts: dict[str, int] = {}
    for run in comparison.runs:
        environment = dict(run.environment)
        device, cores = environment.pop("device"), environment.pop("cores")
        threads = environment.pop("threads")
        versions = ", ".join(f"{name} {version}" for name, version in environment.items())
        used = "1 thread" if threads == 1 else f"{threads} threads"
        line = f"{device}, {cores} cores, {used} for each run; {versions}"
        counts[line] = counts.get(line, 0) + 1
    if len(counts) == 1:
        return list(counts)
    return [f"{line} ({count} runs)" for line, count in counts.items()]
