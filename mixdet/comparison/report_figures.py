"""The figures of the HTML report, as SVG. Each row of the report is one config."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from mixdet.comparison.comparison_folder import Comparison, RowRecord
from mixdet.comparison.row_summary import SIZE_METRICS, RowSummary
from mixdet.visual.svg import figure_to_svg, series_color


def row_letter(index: int) -> str:
    """Return the letter of a row in the figures: A, B, ..., Z, A1, B1, ..."""
    return chr(ord("A") + index % 26) + (str(index // 26) if index >= 26 else "")


def draw_score_over_cost(
    rows: Sequence[RowSummary], cost: Callable[[RowRecord], float], label: str
) -> str:
    """Draw mAP over a cost, with the standard deviation over seeds as error bars.

    Args:
        rows: All rows of the table. Their costs must have been measured.
        cost: Function that returns the cost of a row.
        label: Label of the cost axis.
    """

    def draw(axes) -> None:
        for index, row in enumerate(rows):
            x, y = cost(row.cost), row.score.mean
            bar = None if math.isnan(row.score.deviation) else row.score.deviation
            axes.errorbar(x, y, bar, fmt="o", color=series_color(index), capsize=3)
            axes.annotate(
                row_letter(index),
                (x, y),
                (6, 4),
                textcoords="offset points",
                color=series_color(index),
                weight="bold",
            )
        axes.margins(0.12)
        axes.set(xlabel=label, ylabel="mAP (%)")

    return figure_to_svg(draw)


def draw_differences(rows: Sequence[RowSummary]) -> str:
    """Draw each row's difference in mAP to the baseline, with its confidence intervals.

    The thick line is the interval over seeds. The thin line is the interval over images.
    """
    compared = [(index, row) for index, row in enumerate(rows) if row.difference]

    def draw(axes) -> None:
        for line, (index, row) in enumerate(compared):
            for interval, offset, width in (
                (row.difference, -0.12, 3),
                (row.over_images, 0.2, 1),
            ):
                if interval is None:
                    continue
                y, color = line + offset, series_color(index)
                if math.isfinite(interval.low):
                    ends = (interval.low, interval.high)
                    axes.plot(ends, [y, y], color=color, lw=width, solid_capstyle="butt")
                axes.plot(interval.mean, y, "o", color=color, ms=3 + width)
        axes.axvline(0, color="#444", lw=1)
        axes.set(yticks=range(len(compared)), xlabel="difference in mAP to the baseline A (points)")
        axes.set_yticklabels([row_letter(index) for index, _ in compared])
        axes.invert_yaxis()

    return figure_to_svg(draw)


def draw_learning_curves(comparison: Comparison, rows: Sequence[RowSummary]) -> str:
    """Draw the mAP of each epoch: its mean over the seeds, and a band from minimum to maximum."""

    def draw(axes) -> None:
        for index, row in enumerate(rows):
            curves = [run.curve for run in comparison.runs_of(row.name).values()]
            _plot_band(axes, curves, index, scale=100, marker=".")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set(xlabel="epoch", ylabel="mAP (%)")

    return figure_to_svg(draw)


def draw_losses(comparison: Comparison, rows: Sequence[RowSummary]) -> str:
    """Draw the training loss by iteration, with bands as in `draw_learning_curves`."""

    def draw(axes) -> None:
        for index, row in enumerate(rows):
            curves = [run.losses for run in comparison.runs_of(row.name).values()]
            _plot_band(axes, curves, index)
        axes.set(xlabel="iteration", ylabel="training loss")

    return figure_to_svg(draw)


def draw_score_by_size(rows: Sequence[RowSummary]) -> str:
    """Draw the mAP of small, medium and large objects as bars."""

    def draw(axes) -> None:
        width = 0.8 / len(rows)
        for index, row in enumerate(rows):
            spreads = [row.by_size[size] for size in SIZE_METRICS]
            x = np.arange(len(spreads)) + (index - (len(rows) - 1) / 2) * width
            axes.bar(
                x,
                [spread.mean for spread in spreads],
                width * 0.9,
                yerr=[0 if math.isnan(s.deviation) else s.deviation for s in spreads],
                color=series_color(index),
                ecolor="#555",
                capsize=1.5,
            )
        axes.set(ylabel="mAP (%)", xticks=range(len(SIZE_METRICS)))
        axes.set_xticklabels(SIZE_METRICS)
        axes.grid(axis="x", visible=False)

    return figure_to_svg(draw)


def _plot_band(axes, curves: Sequence, index: int, scale: float = 1, marker: str = "") -> None:
    """Plot the mean of several curves, and a band from the lowest to the highest value.

    Args:
        axes: Where to plot.
        curves: (step, value) pairs of each seed. Only the steps that all seeds have are plotted.
        index: Index of the row, which selects the color.
        scale: Factor that the values are multiplied by.
        marker: Marker of the points of the mean.
    """
    by_step = [dict(map(tuple, curve)) for curve in curves]
    steps = sorted(set.intersection(*map(set, by_step)))
    if not steps:
        return
    color = series_color(index)
    values = scale * np.array([[curve[step] for step in steps] for curve in by_step])
    axes.plot(steps, values.mean(0), color=color, marker=marker, lw=1.6)
    if len(curves) > 1:
        axes.fill_between(steps, values.min(0), values.max(0), color=color, alpha=0.12, lw=0)
