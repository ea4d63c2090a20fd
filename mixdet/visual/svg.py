"""Matplotlib figures as SVG or PNG, all with the same colors and style."""

from __future__ import annotations

import io
from collections.abc import Callable

import matplotlib
from matplotlib.figure import Figure

# The palette of Okabe and Ito for color-blind readers, without its yellow. The last six colors are
# additions: a brown, a gray and four darker shades.
COLORS = (
    *("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C564B"),
    *("#7F7F7F", "#004C76", "#8F3F00", "#006B4E", "#8A4F71"),
)
STYLE = {
    "svg.fonttype": "none",  # writes text, not outlines: searchable, and in the font of the page
    "svg.hashsalt": "mixdet",  # gives the same bytes for the same data
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e8",
    "axes.axisbelow": True,
    "legend.frameon": False,
}


def series_color(index: int) -> str:
    """Return the color of a data series by its index; the colors repeat after the last one."""
    return COLORS[index % len(COLORS)]


def figure_to_svg(draw: Callable, size: tuple[float, float] = (5, 3.8), **grid) -> str:
    """Draw a figure and return it as an SVG element. The same data give the same bytes.

    Args:
        draw: Function that takes the axes, or the array of axes, and draws into them.
        size: (width, height) in inches.
        **grid: Arguments of `matplotlib.figure.Figure.subplots`, such as `nrows` and `ncols`.
    """
    text = _draw(draw, size, grid, format="svg", metadata={"Date": None}).decode()
    return text[text.index("<svg") :]


def figure_to_png(draw: Callable, size: tuple[float, float] = (5, 3.8), **grid) -> bytes:
    """Draw a figure and return it as a PNG file.

    Args:
        draw: See `figure_to_svg`.
        size: See `figure_to_svg`.
        **grid: See `figure_to_svg`.
    """
    return _draw(draw, size, grid, format="png", dpi=110)


def _draw(draw: Callable, size: tuple[float, float], grid: dict, **file) -> bytes:
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=size, layout="compressed")
        draw(figure.subplots(**grid))
        buffer = io.BytesIO()
        figure.savefig(buffer, **file)
    return buffer.getvalue()
