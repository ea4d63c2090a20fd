"""A report as one HTML page with the images of the examples in it."""

from __future__ import annotations

from html import escape
from pathlib import Path
from string import Template

import numpy as np
from PIL import ImageDraw

from mixdet.data_check.problems import Example, Problem
from mixdet.data_check.report import DataReport, anchor_lines, summary_table
from mixdet.errors import MixDetError
from mixdet.images import ImageLimits, as_rgb, read_image_file
from mixdet.visual.boxes import data_url, draw_box, enlarged

SIDE = 320
RED = (235, 40, 40)


def to_html(report: DataReport, title: str) -> str:
    """The page.

    Args:
        report: What the check found.
        title: Heading.
    """
    template = Template(Path(__file__).with_name("page.html").read_text(encoding="utf-8"))
    anchors = report.anchors and "\n".join(anchor_lines(report.anchors))
    return template.substitute(
        title=escape(title),
        verdict="Nothing is wrong." if report.ok else "Something is wrong with the data.",
        summary=escape(summary_table(report.summaries)),
        problems="\n".join(_section(found) for found in report.sorted_problems()),
        anchors=f"<h2>Anchors</h2>\n<pre tabindex='0'>{escape(anchors)}</pre>" if anchors else "",
    )


def _section(found: Problem) -> str:
    head = f'<span class="{found.level}">{found.level}</span> {escape(found.data)} data: '
    figures = "".join(_figure(example) for example in found.examples)
    rest = found.count - len(found.examples)
    more = f"<p>and {rest:,} more</p>" if figures and rest > 0 else ""
    title = f"<h2>{head}{escape(found.text)}: {found.count:,}</h2>"
    return f'<section>{title}<div class="grid">{figures}</div>{more}</section>'


def _figure(example: Example) -> str:
    image = _drawn(example)
    shown = f'<img src="{image}" alt="">' if image else ""
    return f"<figure>{shown}<figcaption>{escape(example.text)}</figcaption></figure>"


def _drawn(example: Example) -> str | None:
    """The example's image with its box, as a data URL; None where there is none to show."""
    if example.image is None:
        return None
    try:
        read_image_file(example.image, ImageLimits())
        canvas, scale = enlarged(as_rgb(example.image), SIDE)
    except MixDetError:
        return None
    if example.box is not None:
        x, y, width, height = (side * scale for side in example.box)
        corners = np.array([x, y, x + width, y + height]).clip(-SIDE, 2 * SIDE)  # may be far out
        draw_box(ImageDraw.Draw(canvas), corners, RED, 3)
    return data_url(canvas)
