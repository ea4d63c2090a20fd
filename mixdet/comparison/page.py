"""A comparison as one HTML page that asks nothing of any other file."""

from __future__ import annotations

import json
from html import escape
from pathlib import Path
from string import Template

from mixdet.comparison import figures
from mixdet.comparison.folder import Comparison
from mixdet.comparison.markdown import HEADS, cells, measured
from mixdet.comparison.summary import RowSummary, environments, remarks, summarize
from mixdet.visual.boxes import data_url
from mixdet.visual.contact_sheet import draw_judged, images_from_results

SCORE_THR = 0.3
TILE = 320


def to_html(comparison: Comparison, title: str, images: dict[str, list[str]]) -> str:
    """The page.

    Args:
        comparison: What to show.
        title: Heading.
        images: By row, JPEG images as data URLs; the same images in the same order for every
            row. Empty leaves the section out.
    """
    rows = summarize(comparison)
    sections = [_figure(caption, svg) for caption, svg in _figures(comparison, rows)]
    notes = [*remarks(comparison, rows), *measured(rows)]
    notes += [f"Hardware: {line}." for line in environments(comparison)]
    template = Template(Path(__file__).with_name("page.html").read_text(encoding="utf-8"))
    return template.substitute(
        title=escape(title),
        heads="".join(f"<th>{escape(head)}</th>" for head in HEADS),
        rows="".join(_row(index, row) for index, row in enumerate(rows)),
        legend=", ".join(f"{_chip(index)} {escape(row.name)}" for index, row in enumerate(rows)),
        notes="".join(f"<li>{escape(note)}</li>" for note in notes),
        command=escape(comparison.plan.command),
        figures="".join(sections),
        # "</" would end the script element
        images=json.dumps(images).replace("</", "<\\/"),
        score_thr=SCORE_THR,
    )


def draw_images(
    comparison: Comparison, ann_file: str, image_root: str, count: int
) -> dict[str, list[str]]:
    """Validation images with the boxes of each row's first common seed, as data URLs.

    Args:
        comparison: Whose runs still have their work folders; rows without are left out.
        ann_file: COCO annotation file.
        image_root: Folder of the images.
        count: How many; 0 gives nothing.
    """
    drawn = {}
    for row in comparison.plan.rows if count else ():
        seeds = comparison.runs_of(row)
        found = comparison.run_folder(row, min(seeds, default=0)) / "val_detections.json"
        if found.is_file():
            items, names = images_from_results(ann_file, image_root, found, count)
            drawn[row] = [
                data_url(draw_judged(item.above(SCORE_THR), names, TILE)) for item in items
            ]
    return drawn


def _figures(comparison: Comparison, rows: list[RowSummary]) -> list[tuple[str, str]]:
    found = []
    if all(row.cost for row in rows):
        found = [
            (
                "mAP over multiply-adds",
                figures.score_over_cost(rows, lambda cost: cost.madds / 1e9, "MAdds (billions)"),
            ),
            (
                "mAP over latency",
                figures.score_over_cost(
                    rows, lambda cost: cost.latency_ms[1], "milliseconds an image (median)"
                ),
            ),
        ]
    if any(row.difference for row in rows):
        found.append(
            (
                "Differences to A, 95 %: thick over seeds, thin over images",
                figures.differences(rows),
            )
        )
    return [
        *found,
        ("mAP by size of the object", figures.by_size(rows)),
        ("Learning: mean, lowest and highest seed", figures.learning_curves(comparison, rows)),
        ("Training loss", figures.losses(comparison, rows)),
    ]


def _figure(caption: str, svg: str) -> str:
    return f"<figure><figcaption>{escape(caption)}</figcaption>{svg}</figure>"


def _row(index: int, row: RowSummary) -> str:
    name, *values = cells(row)
    return f"<tr><th>{_chip(index)} {escape(name)}</th>" + "".join(
        f"<td>{escape(value)}</td>" for value in values
    ) + "</tr>"  # fmt: skip


def _chip(index: int) -> str:
    """A row's letter in its color."""
    return f'<b style="color:{figures.color(index)}">{figures.letter(index)}</b>'
