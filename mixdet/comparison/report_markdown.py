"""The report of a comparison as Markdown, for a terminal and a README."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mixdet.comparison.class_scores import class_notes, class_table
from mixdet.comparison.comparison_folder import Comparison
from mixdet.comparison.row_summary import (
    SIZE_METRICS,
    RowSummary,
    describe_difference,
    report_notes,
    summarize_rows,
)
from mixdet.visual.tables import text_table

Column = tuple[str, Callable[[RowSummary], str]]

SCORE_COLUMNS: tuple[Column, ...] = (
    ("config", lambda row: row.name),
    ("mAP", lambda row: str(row.score)),
    ("mAP50", lambda row: str(row.score_50)),
    *((size, lambda row, size=size: str(row.by_size[size])) for size in SIZE_METRICS),
    ("difference", lambda row: describe_difference(row.difference)),
    (
        "over images",
        lambda row: "" if row.over_images is None else describe_difference(row.over_images),
    ),
)
COST_COLUMNS: tuple[Column, ...] = (
    ("params (M)", lambda row: f"{row.cost.params / 1e6:.3f}" if row.cost else "-"),
    ("MAdds (B)", lambda row: f"{row.cost.madds / 1e9:.3f}" if row.cost else "-"),
    ("inference (ms)", lambda row: f"{row.cost.latency_ms[1]:.1f}" if row.cost else "-"),
    (
        "ONNX Runtime (ms)",
        lambda row: f"{row.cost.onnx_ms[1]:.1f}" if row.cost and row.cost.onnx_ms else "-",
    ),
    ("training (s/iteration)", lambda row: f"{row.seconds_per_iteration:.3f}"),
    ("length", lambda row: f"{row.length.count} {row.length.unit}" if row.length else "-"),
    ("minutes", lambda row: f"{row.minutes:.1f}" if row.minutes else "-"),
)
OPTIONAL_COLUMNS = ("ONNX Runtime (ms)", "length", "minutes")  # left out if no row has a value


def table_of_rows(rows: Sequence[RowSummary]) -> tuple[list[str], list[list[str]]]:
    """Return the titles of the columns, and the cells of each row."""
    header, columns = [], []
    for title, cell in (*SCORE_COLUMNS, *COST_COLUMNS):
        column = [cell(row) for row in rows]
        if title not in OPTIONAL_COLUMNS or {*column} != {"-"}:
            header.append(title)
            columns.append(column)
    return header, [list(cells) for cells in zip(*columns, strict=True)]


def report_as_markdown(comparison: Comparison) -> str:
    """Return the report: the table, its notes as a list, and the table of classes."""
    rows = summarize_rows(comparison)
    notes = [*report_notes(comparison, rows), f"Command: `{comparison.plan.command}`"]
    parts = [text_table(*table_of_rows(rows), markdown=True), markdown_list(notes)]
    if classes := class_table(comparison, rows):
        parts.append(text_table(*classes, markdown=True))
        parts.append(markdown_list(class_notes(comparison, rows)))
    return "\n\n".join(parts) + "\n"


def markdown_list(notes: Sequence[str]) -> str:
    """Return notes as a list in Markdown."""
    return "\n".join(f"- {note}" for note in notes)
