"""The figures of an error analysis, as SVG."""

from __future__ import annotations

import numpy as np

from mixdet.error_analysis.detector_errors import DetectorErrors
from mixdet.error_analysis.error_kinds import MISSED_KINDS, SIZES, WRONG_KINDS
from mixdet.error_analysis.score_curves import ScoreCurve
from mixdet.visual.svg import COLORS, figure_to_svg, series_color

SIZE_COLORS = ("#9ecae1", "#4292c6", "#08519c")
PLAIN_COLOR = "#c4c4cc"


def draw_rates(errors: DetectorErrors) -> str:
    """Draw precision, recall and F1 of all classes together over the score threshold."""

    def draw(axes) -> None:
        for index, key in enumerate(("precision", "recall", "f1")):
            color = "#1c1c22" if key == "f1" else series_color(index + 1)
            values = _values(errors, errors.overall, key)
            axes.plot(errors.thresholds, values, color=color, label=key.replace("f1", "F1"))
        axes.axvline(errors.score_thr, color="#444", lw=1, ls="--")
        axes.set(xlabel="score threshold", ylabel="percent", ylim=(0, 102))
        axes.legend(loc="best")

    return figure_to_svg(draw)


def draw_f1_by_class(errors: DetectorErrors) -> str:
    """Draw the F1 of each class over the score threshold."""

    def draw(axes) -> None:
        for label, curve in enumerate(errors.curves):
            if curve.objects:
                axes.plot(errors.thresholds, _values(errors, curve, "f1"), **_style(errors, label))
        overall = _values(errors, errors.overall, "f1")
        axes.plot(errors.thresholds, overall, color="#1c1c22", lw=2.5, label="all classes")
        axes.axvline(errors.score_thr, color="#444", lw=1, ls="--")
        axes.set(xlabel="score threshold", ylabel="F1 (%)", ylim=(0, 102))
        _add_legend(axes)

    return figure_to_svg(draw)


def draw_precision_over_recall(errors: DetectorErrors) -> str:
    """Draw the precision of each class over its recall, at IoU 0.5."""

    def draw(axes) -> None:
        for label, curve in enumerate(errors.curves):
            if curve.objects and len(curve.scores):
                # a curve has a point per detection; few of them are enough to draw it
                points = np.linspace(0, len(curve.scores) - 1, 200).astype(int)
                correct, wrong = curve.correct[points], curve.wrong[points]
                recall, precision = correct / curve.objects, correct / (correct + wrong)
                axes.plot(100 * recall, 100 * precision, **_style(errors, label))
        axes.set(xlabel="recall (%)", ylabel="precision (%)", xlim=(0, 102), ylim=(0, 102))
        _add_legend(axes)

    return figure_to_svg(draw)


def draw_kinds(errors: DetectorErrors) -> str:
    """Draw the number of errors of each kind as bars, divided by object size."""
    names = [f"wrong: {kind}" for kind in WRONG_KINDS]
    names += [f"missed: {kind}" for kind in MISSED_KINDS]
    table = np.vstack([errors.wrong_kinds(), errors.missed_kinds()])

    def draw(axes) -> None:
        left = np.zeros(len(names))
        for size, color, counts in zip(SIZES, SIZE_COLORS, table.T, strict=True):
            axes.barh(names, counts, 0.75, left, color=color, label=size)
            left += counts
        for row, total in enumerate(left):
            text = {"textcoords": "offset points", "va": "center", "size": 9}
            axes.annotate(f"{int(total):,}", (total, row), (4, 0), **text)
        axes.margins(x=0.12)
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        axes.set(xlabel="number of boxes")
        axes.legend(loc="best")

    return figure_to_svg(draw, size=(6.2, 3.8))


def _values(errors: DetectorErrors, curve: ScoreCurve, key: str) -> list[float]:
    return [100 * getattr(curve.at(threshold), key) for threshold in errors.thresholds]


def _style(errors: DetectorErrors, label: int) -> dict:
    """Return the color of a class, and its name for the legend if each class has its own color."""
    if len(errors.classes) < len(COLORS):
        return {"color": series_color(label + 1), "label": errors.classes[label], "lw": 1.2}
    return {"color": PLAIN_COLOR, "lw": 0.8}


def _add_legend(axes) -> None:
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=9)
