"""A figure of a training: its losses and its scores over the iterations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mixdet.visual.svg import figure_to_png, series_color

MAX_POINTS = 150  # of the curve of a loss. The losses of more iterations are averaged


def draw_training(
    losses: Mapping[str, Sequence[float]],
    iterations: int,
    scores: Mapping[str, tuple[Sequence[int], Sequence[float]]],
) -> bytes:
    """Draw the losses and the scores of a training.

    Args:
        losses: Values of each loss, one for every iteration. The last value belongs to the last
            iteration. The values of the first iterations may be missing.
        iterations: Number of iterations so far.
        scores: Iterations and values of each metric.

    Returns:
        A PNG file.
    """

    def draw(axes) -> None:
        loss_axes, score_axes = axes
        for index, (name, values) in enumerate(losses.items()):
            steps, means = _average(np.asarray(values, float), iterations)
            style = {"lw": 2, "zorder": 3} if name == "loss" else {"lw": 1.2}
            loss_axes.plot(steps, means, color=series_color(index), label=name, **style)
        for index, (name, (steps, values)) in enumerate(scores.items()):
            style = {"lw": 2, "zorder": 3} if index == 0 else {"lw": 1.2}
            label = f"{name}, latest {values[-1]:.3f}" if len(values) else name
            score_axes.plot(
                steps, values, "o-", ms=3.5, color=series_color(index), label=label, **style
            )
        for panel, title in ((loss_axes, "training loss"), (score_axes, "validation")):
            panel.set(title=title)
            if panel.lines:
                panel.legend(fontsize=9)
            panel.set_ylim(bottom=min(0, panel.dataLim.y0))
        score_axes.set(xlabel="iteration", xlim=(0, max(iterations, 1) * 1.02))

    return figure_to_png(draw, (7, 6), nrows=2, sharex=True)


def _average(values: np.ndarray, iterations: int) -> tuple[np.ndarray, np.ndarray]:
    """Average values over equal numbers of iterations, so that at most `MAX_POINTS` are left.

    Returns:
        The last iteration of each average, and the averages.
    """
    steps = np.arange(iterations - len(values), iterations) + 1
    parts = min(len(values), MAX_POINTS)
    if not parts:
        return steps, values
    return (
        np.array([part[-1] for part in np.array_split(steps, parts)]),
        np.array([part.mean() for part in np.array_split(values, parts)]),
    )
