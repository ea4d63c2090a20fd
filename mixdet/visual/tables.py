"""Text tables for a terminal and for Markdown."""

from __future__ import annotations

from collections.abc import Sequence


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]], markdown: bool = False) -> str:
    """Lay out a table with aligned columns.

    The first column is aligned to the left. The others mostly hold numbers and are aligned to the
    right.

    Args:
        header: The titles of the columns.
        rows: The cells of each row, one for each column.
        markdown: Write the table in Markdown.
    """
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    rules = ["-" * width for width in widths]
    if markdown:
        rules[1:] = [rule[:-1] + ":" for rule in rules[1:]]

    def line(cells: Sequence[str]) -> str:
        texts = [cell.rjust(width) for cell, width in zip(cells, widths, strict=True)]
        texts[0] = cells[0].ljust(widths[0])
        return f"| {' | '.join(texts)} |" if markdown else "  ".join(texts).rstrip()

    return "\n".join(line(cells) for cells in [header, rules, *rows])
