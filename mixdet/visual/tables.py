"""Tables of text, for a terminal and for Markdown."""

from __future__ import annotations

from collections.abc import Sequence


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]], markdown: bool = False) -> str:
    """Lay out a table: the first column to the left, the others, numbers mostly, to the right.

    Args:
        header: A title a column.
        rows: The cells of each row, one a column.
        markdown: With the pipes of Markdown; both forms are aligned.
    """
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    marks = ["-" * width for width in widths]
    if markdown:
        marks[1:] = [mark[:-1] + ":" for mark in marks[1:]]

    def line(cells: Sequence[str]) -> str:
        texts = [cell.rjust(width) for cell, width in zip(cells, widths, strict=True)]
        texts[0] = cells[0].ljust(widths[0])
        return f"| {' | '.join(texts)} |" if markdown else "  ".join(texts).rstrip()

    return "\n".join(line(cells) for cells in [header, marks, *rows])
