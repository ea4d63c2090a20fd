"""The report of a comparison as Markdown, for a terminal and a README."""

from __future__ import annotations

from mixdet.comparison.comparison_folder import Comparison
from mixdet.comparison.row_summary import (
    SIZE_METRICS,
    RowSummary,
    describe_difference,
    report_notes,
    summarize_rows,
)
from mixdet.visual.tables import text_table

TABLE_HEADER = (
    *("config", "mAP", *SIZE_METRICS, "difference", "over images", "params (M)", "MAdds (B)"),
    *("inference (ms)", "training (s/iteration)"),
)


def table_cells(row: RowSummary) -> list[str]:
    """Return the cells of a row, in the order of `TABLE_HEADER`."""
    cost = row.cost
    return [
        row.name,
        str(row.score),
        *(str(spread) for spread in row.by_size.values()),
        describe_difference(row.difference),
        "" if row.over_images is None else describe_difference(row.over_images),
        f"{cost.params / 1e6:.3f}" if cost else "-",
        f"{cost.madds / 1e9:.3f}" if cost else "-",
        f"{cost.latency_ms[1]:.1f}" if cost else "-",
        f"{row.seconds_per_iteration:.3f}",
    ]


def report_as_markdown(comparison: Comparison) -> str:
    """Return the report: the table, then the notes as a list."""
    rows = summarize_rows(comparison)
    table = text_table(TABLE_HEADER, [table_cells(row) for row in rows], markdown=True)
    notes = [*report_notes(comparison, rows), f"Command: `{comparison.plan.command}`"]
    return table + "\n\n" + "\n".join(f"- {note}" for note in notes) + "\n"
