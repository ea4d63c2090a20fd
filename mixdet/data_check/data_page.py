"""Write a data report as one HTML page, which contains its images and loads no other file."""

from __future__ import annotations

from html import escape
from pathlib import Path

import numpy as np
from PIL import ImageDraw

from mixdet.data_check.data_problems import Example, Problem
from mixdet.data_check.data_report import DataReport, anchor_lines, summary_table
from mixdet.errors import MixDetError
from mixdet.images import ImageLimits, as_rgb, read_image_file
from mixdet.visual.boxes import data_url, draw_box, resize_longer_side
from mixdet.visual.html_page import fill_template

IMAGE_SIDE = 320
BOX_COLOR = (235, 40, 40)


def write_data_page(report: DataReport, path: Path, title: str) -> None:
    """Write a report as an HTML page.

    Args:
        report: The result of the check.
        path: File to write.
        title: Title and heading of the page.
    """
    anchors = report.anchors and "\n".join(anchor_lines(report.anchors))
    page = fill_template(
        Path(__file__).with_name("data_page.html"),
        title,
        verdict="Nothing is wrong." if report.ok else "Something is wrong with the data.",
        summary=escape(summary_table(report.summaries)),
        problems="\n".join(_section(problem) for problem in report.sorted_problems()),
        anchors=f"<h2>Anchors</h2>\n<pre tabindex='0'>{escape(anchors)}</pre>" if anchors else "",
    )
    path.write_text(page, encoding="utf-8")


def _section(problem: Problem) -> str:
    level = f'<span class="{problem.level}">{problem.level}</span>'
    heading = f"{level} {escape(problem.headline())}"
    figures = "".join(_figure(example) for example in problem.examples)
    rest = problem.count - len(problem.examples)
    more = f"<p>and {rest:,} more</p>" if figures and rest > 0 else ""
    return f'<section><h2>{heading}</h2><div class="grid">{figures}</div>{more}</section>'


def _figure(example: Example) -> str:
    url = _draw_example(example)
    image = f'<img src="{url}" alt="">' if url else ""
    return f"<figure>{image}<figcaption>{escape(example.text)}</figcaption></figure>"


def _draw_example(example: Example) -> str | None:
    """Draw an example's box on its image and return the result as a data URL.

    Return None if the example has no image, or if its image cannot be read.
    """
    if example.image is None:
        return None
    try:
        read_image_file(example.image, ImageLimits())
        canvas, scale = resize_longer_side(as_rgb(example.image), IMAGE_SIDE)
    except MixDetError:
        return None
    if example.box is not None:
        x, y, width, height = (side * scale for side in example.box)
        corners = np.array([x, y, x + width, y + height])
        corners = corners.clip(-IMAGE_SIDE, 2 * IMAGE_SIDE)  # a wrong box may be far outside
        draw_box(ImageDraw.Draw(canvas), corners, BOX_COLOR, 3)
    return data_url(canvas)
