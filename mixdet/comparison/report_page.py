"""The report of a comparison as one HTML page that loads no other file.

Each row of the report is one config.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from pathlib import Path

from mixdet.comparison.class_scores import class_notes, class_table
from mixdet.comparison.comparison_folder import Comparison
from mixdet.comparison.report_figures import (
    draw_differences,
    draw_learning_curves,
    draw_losses,
    draw_score_by_size,
    draw_score_over_cost,
    row_letter,
)
from mixdet.comparison.report_markdown import table_of_rows
from mixdet.comparison.row_summary import RowSummary, report_notes, summarize_rows
from mixdet.evaluation import ScoredData
from mixdet.visual.boxes import data_url
from mixdet.visual.contact_sheet import draw_sheet_image, read_sheet_images
from mixdet.visual.html_page import fill_template, html_figures, html_table
from mixdet.visual.svg import series_color

SCORE_THR = 0.3
IMAGE_SIDE = 320


def report_as_html(
    comparison: Comparison, title: str, images: dict[str, list[str]], left_out: str = ""
) -> str:
    """Return the HTML of the page.

    Args:
        comparison: The comparison.
        title: Title and heading of the page.
        images: For each row, JPEG images as data URLs. All rows have the same images in the same
            order. If the dict is empty, the page shows no images.
        left_out: A sentence that says which images the page leaves out, and why.
    """
    rows = summarize_rows(comparison)
    header, cells = table_of_rows(rows)
    letters = [_colored_letter(index) for index in range(len(rows))]
    tables = html_table(header, cells, letters) + html_list(report_notes(comparison, rows))
    if classes := class_table(comparison, rows):
        notes = class_notes(comparison, rows)
        tables += "<h2>Classes</h2>" + html_table(*classes) + html_list(notes)
    legend = (f"{letter} {escape(row.name)}" for letter, row in zip(letters, rows, strict=True))
    return fill_page(
        title,
        tables,
        comparison.plan.command,
        f"{', '.join(legend)}. Error bars: standard deviation over seeds.",
        _figures(comparison, rows),
        images,
        left_out,
    )


def fill_page(
    title: str,
    tables: str,
    command: str,
    legend: str,
    figures: Sequence[tuple[str, str]],
    images: dict[str, list[str]] | None = None,
    left_out: str = "",
) -> str:
    """Return the HTML of a page.

    Args:
        title: Title and heading.
        tables: HTML of the tables and their notes.
        command: The command line that made the results.
        legend: HTML that explains the figures.
        figures: Caption and SVG element of each figure.
        images: See `report_as_html`. None means no images.
        left_out: See `report_as_html`.
    """
    return fill_template(
        Path(__file__).with_name("report_page.html"),
        title,
        tables=tables,
        command=escape(command),
        legend=legend,
        figures=html_figures(figures),
        left_out=escape(left_out),
        # A "</script>" in a string would end the page's script element.
        images=json.dumps(images or {}).replace("</", "<\\/"),
        score_thr=SCORE_THR,
    )


def html_list(notes: Sequence[str]) -> str:
    """Return notes as a list."""
    return f"<ul>{''.join(f'<li>{escape(note)}</li>' for note in notes)}</ul>"


def draw_report_images(
    comparison: Comparison, scored: ScoredData, image_root: str, count: int
) -> dict[str, list[str]]:
    """Draw validation images with the boxes that each row's run with the first seed predicted.

    Args:
        comparison: The comparison. A row is left out if the run has no `val_detections.json`.
        scored: The annotations, classes and images of the validation set.
        image_root: Folder of the images.
        count: Number of images.

    Returns:
        Data URLs of the images by row. The dict is empty if `count` is 0.
    """
    images = {}
    for row in comparison.plan.rows if count else ():
        seeds = comparison.runs_of(row)
        detections = comparison.run_folder(row, min(seeds, default=0)) / "val_detections.json"
        if detections.is_file():
            items, names = read_sheet_images(scored, image_root, detections, count)
            images[row] = [
                data_url(draw_sheet_image(item.above(SCORE_THR), names, IMAGE_SIDE))
                for item in items
            ]
    return images


def _figures(comparison: Comparison, rows: list[RowSummary]) -> list[tuple[str, str]]:
    """Return the caption and the SVG element of each figure."""
    figures = []
    if all(row.cost for row in rows):
        by_madds = draw_score_over_cost(rows, lambda cost: cost.madds / 1e9, "MAdds (billions)")
        by_latency = draw_score_over_cost(
            rows, lambda cost: cost.latency_ms[1], "milliseconds for an image (median)"
        )
        figures += [("mAP over multiply-adds", by_madds), ("mAP over latency", by_latency)]
    if any(row.difference for row in rows):
        caption = "Difference to A, 95 % intervals: thick line over seeds, thin line over images"
        figures.append((caption, draw_differences(rows)))
    return [
        *figures,
        ("mAP by object size", draw_score_by_size(rows)),
        ("mAP by epoch: mean and range over seeds", draw_learning_curves(comparison, rows)),
        ("Training loss: mean and range over seeds", draw_losses(comparison, rows)),
    ]


def _colored_letter(index: int) -> str:
    return f'<b style="color:{series_color(index)}">{row_letter(index)}</b>'
