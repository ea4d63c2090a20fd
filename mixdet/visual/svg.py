"""One look for every drawn figure: colors, style, and a figure as SVG."""

from __future__ import annotations

import io
from collections.abc import Callable

import matplotlib
from matplotlib.figure import Figure

# Okabe and Ito's palette, which color-blind readers tell apart, and darker shades of it
COLOURS = (
    *("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C564B"),
    *("#7F7F7F", "#004C76", "#8F3F00", "#006B4E", "#8A4F71"),
)
STYLE = {
    "svg.fonttype": "none",  # text stays text: it can be searched and follows the page's font
    "svg.hashsalt": "mixdet",  # the same bytes for the same data
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e8",
    "axes.axisbelow": True,
    "legend.frameon": False,
}


def color(index: int) -> str:
    """Of a row, by its place in the table."""
    return COLOURS[index % len(COLOURS)]


def svg(draw: Callable, size: tuple[float, float] = (5, 3.8), **grid) -> str:
    """A figure as an SVG element, the same bytes for the same data.

    Args:
        draw: Draws into the axes, or into the array of axes.
        size: (width, height) in inches.
        **grid: Rows and columns of axes, as for `matplotlib.figure.Figure.subplots`.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=size, layout="compressed")
        draw(figure.subplots(**grid))
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
