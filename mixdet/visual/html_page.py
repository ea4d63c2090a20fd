"""HTML pages that load no other file: the head and the style that all pages share, and tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from string import Template


def fill_template(template: Path, title: str, **parts: object) -> str:
    """Fill in the template of a page.

    Args:
        template: An HTML file with the placeholders `$head`, `$title` and `$<part>`.
        title: Title and heading of the page, as plain text.
        **parts: HTML for the other placeholders.
    """
    title = escape(title)
    head = Path(__file__).with_name("page_head.html")
    return _read(template).substitute(
        head=_read(head).substitute(title=title), title=title, **parts
    )


def html_table(
    header: Iterable[str],
    rows: Iterable[Sequence[str]],
    letters: Sequence[str] | None = None,
    kind: str = "",
) -> str:
    """Return a table in a box that scrolls.

    Args:
        header: The titles of the columns, as plain text.
        rows: The cells of each row, as plain text.
        letters: HTML that is put before the first cell of each row, or None.
        kind: A class for the style of the page.
    """
    head = "".join(f"<th>{escape(title)}</th>" for title in header)
    body = ""
    for index, (name, *values) in enumerate(rows):
        letter = f"{letters[index]} " if letters else ""
        cells = "".join(f"<td>{escape(value)}</td>" for value in values)
        body += f"<tr><th>{letter}{escape(name)}</th>{cells}</tr>"
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="{f"scroll {kind}".strip()}" tabindex="0">{table}</div>'


def html_figures(figures: Iterable[tuple[str, str]]) -> str:
    """Return figures with captions.

    Args:
        figures: The caption, as plain text, and the SVG element of each figure.
    """
    return "".join(
        f"<figure><figcaption>{escape(caption)}</figcaption>{svg}</figure>"
        for caption, svg in figures
    )


def _read(path: Path) -> Template:
    return Template(path.read_text(encoding="utf-8"))
