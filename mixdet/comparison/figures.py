"""The figures of the page, as SVG."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from mixdet.comparison.folder import Comparison
from mixdet.comparison.summary import SIZES, RowSummary
from mixdet.visual.svg import color, svg


def letter(index: int) -> str:
    """What stands for a row in the figures: A, B, ..., Z, A1, ..."""
    return chr(ord("A") + index % 26) + (str(index // 26) if index >= 26 else "")


def score_over_cost(rows: Sequence[RowSummary], cost: Callable, label: str) -> str:
    """mAP over a cost, with the standard deviation over seeds: the form of the paper's figures.

    Args:
        rows: All of the table, costs measured.
        cost: A row's cost.
        label: Of the cost's axis.
    """

    def draw(axes) -> None:
        for index, row in enumerate(rows):
            x = cost(row.cost)
            error = None if math.isnan(row.score.deviation) else row.score.deviation
            axes.errorbar(x, row.score.mean, error, fmt="o", color=color(index), capsize=3)
            axes.annotate(
                letter(index),
                (x, row.score.mean),
                (6, 4),
                textcoords="offset points",
                color=color(index),
                weight="bold",
            )
        axes.margins(0.12)
        axes.set(xlabel=label, ylabel="mAP (%)")

    return svg(draw)


def differences(rows: Sequence[RowSummary]) -> str:
    """Each row's difference to the baseline with its interval over seeds and over images."""
    shown = [(index, row) for index, row in enumerate(rows) if row.difference]

    def draw(axes) -> None:
        for place, (index, row) in enumerate(shown):
            for interval, offset, width in (
                (row.difference, -0.12, 3),
                (row.over_images, 0.2, 1),
            ):
                if interval is None:
                    continue
                if math.isfinite(interval.low):
                    axes.plot(
                        (interval.low, interval.high), [place + offset] * 2, color=color(index),
                        lw=width, solid_capstyle="butt",
                    )  # fmt: skip
                axes.plot(interval.mean, place + offset, "o", color=color(index), ms=3 + width)
        axes.axvline(0, color="#444", lw=1)
        axes.set(yticks=range(len(shown)), xlabel="difference in mAP to the baseline A (points)")
        axes.set_yticklabels([letter(index) for index, _ in shown])
        axes.invert_yaxis()

    return svg(draw)


def learning_curves(comparison: Comparison, rows: Sequence[RowSummary]) -> str:
    """mAP by epoch: the mean over seeds, and a band from the lowest to the highest."""

    def draw(axes) -> None:
        for index, row in enumerate(rows):
            _band(
                axes,
                [run.curve for run in comparison.runs_of(row.name).values()],
                index,
                scale=100,
                marker=".",
            )
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set(xlabel="epoch", ylabel="mAP (%)")

    return svg(draw)


def losses(comparison: Comparison, rows: Sequence[RowSummary]) -> str:
    """Training loss by iteration, as `learning_curves`."""

    def draw(axes) -> None:
        for index, row in enumerate(rows):
            _band(axes, [run.losses for run in comparison.runs_of(row.name).values()], index)
        axes.set(xlabel="iteration", ylabel="training loss")

    return svg(draw)


def by_size(rows: Sequence[RowSummary]) -> str:
    """mAP of small, medium and large objects."""

    def draw(axes) -> None:
        width = 0.8 / len(rows)
        for index, row in enumerate(rows):
            spreads = [row.by_size[size] for size in SIZES]
            places = np.arange(len(SIZES)) + (index - (len(rows) - 1) / 2) * width
            errors = [0 if math.isnan(spread.deviation) else spread.deviation for spread in spreads]
            heights = [spread.mean for spread in spreads]
            axes.bar(
                places, heights, width * 0.9, yerr=errors, color=color(index), ecolor="#555",
                capsize=1.5,
            )  # fmt: skip
        axes.set(ylabel="mAP (%)", xticks=range(len(SIZES)))
        axes.set_xticklabels(SIZES)
        axes.grid(axis="x", visible=False)

    return svg(draw)


def _band(axes, curves: Sequence, index: int, scale: float = 1, marker: str = "") -> None:
    by_step = [dict(map(tuple, curve)) for curve in curves]
    steps = sorted(set.intersection(*map(set, by_step)))
    if not steps:
        return
    values = scale * np.array([[curve[step] for step in steps] for curve in by_step])
    axes.plot(steps, values.mean(0), color=color(index), marker=marker, lw=1.6)
    if len(curves) > 1:
        axes.fill_between(steps, values.min(0), values.max(0), color=color(index), alpha=0.12, lw=0)
