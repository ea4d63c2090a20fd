"""A comparison as Markdown, for the terminal and the README."""

from __future__ import annotations

from mixdet.comparison.folder import Comparison
from mixdet.comparison.summary import (
    SIZES,
    RowSummary,
    environments,
    remarks,
    summarize,
    verdict,
)
from mixdet.visual.tables import text_table

HEADS = (
    *("config", "mAP", *SIZES, "difference", "over images", "params (M)", "MAdds (B)"),
    *("inference (ms)", "training (s/iteration)"),
)


def cells(row: RowSummary) -> list[str]:
    """The cells under `HEADS`."""
    cost = row.cost
    return [
        row.name,
        str(row.score),
        *(str(spread) for spread in row.by_size.values()),
        verdict(row.difference),
        "" if row.over_images is None else verdict(row.over_images),
        f"{cost.params / 1e6:.3f}" if cost else "-",
        f"{cost.madds / 1e9:.3f}" if cost else "-",
        f"{cost.latency_ms[1]:.1f}" if cost else "-",
        f"{row.seconds_per_iteration:.3f}",
    ]


def to_markdown(comparison: Comparison) -> str:
    """The whole report, but for the figures."""
    rows = summarize(comparison)
    table = text_table(HEADS, [cells(row) for row in rows], markdown=True)
    notes = [*remarks(comparison, rows), *measured(rows)]
    notes += [f"Hardware: {line}." for line in environments(comparison)]
    notes.append(f"Command: `{comparison.plan.command}`")
    return table + "\n\n" + "\n".join(f"- {note}" for note in notes) + "\n"


def measured(rows: list[RowSummary]) -> list[str]:
    """How the costs were measured."""
    costs = [row.cost for row in rows if row.cost]
    if not costs:
        return []
    height, width = costs[0].input_size
    return [
        f"MAdds: multiply-adds of the network at {height}x{width}, half of what is often called "
        "FLOPs.",
        f"Inference: median of one image, post-processing included, the rows taking turns "
        f"({costs[0].latency_of}). Training: median of an iteration, data loading included.",
    ]
