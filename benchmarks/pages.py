"""Insert the tables and plots of records into Markdown pages."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from benchmarks.records import read_record, record_page_table, record_plot, write_plot
from mixdet.errors import MixDetError

BEGIN, END = "<!-- {name}: made by python -m benchmarks report -->", "<!-- /{name} -->"


def update_page(page: Path, files: Sequence[Path]) -> list[str]:
    """Put the tables of records into a page, and write their plots beside the records.

    Args:
        page: A Markdown file with the lines `BEGIN` and `END` for each record. The name in both
            lines is the name of the record's file without its suffix.
        files: Files of records.

    Returns:
        Names of the records for which the page has no lines `BEGIN` and `END`.

    Raises:
        MixDetError: A file holds no record, or the page cannot be read.
    """
    try:
        text = page.read_text(encoding="utf-8")
    except OSError as error:
        raise MixDetError(f"{page} cannot be read: {error.strerror}") from error
    without_place = []
    for file in files:
        record = read_record(file)
        write_plot(record, file)
        text, has_place = insert(text, file.stem, page_content(record, file, page))
        if not has_place:
            without_place.append(file.stem)
    page.write_text(text, encoding="utf-8")
    return without_place


def page_content(record: dict, file: Path, page: Path) -> str:
    """Return a record's Markdown for a page: the table, and a link to the plot, if there is one.

    The plot lies beside the record's file.
    """
    text = record_page_table(record)
    if not record_plot(record):
        return text
    image = os.path.relpath(file.with_suffix(".svg"), page.parent).replace(os.sep, "/")
    return f"{text}\n\n![{file.stem}]({image})"


def insert(text: str, name: str, content: str) -> tuple[str, bool]:
    """Replace the text between the lines `BEGIN` and `END` of a name.

    Returns:
        The new text, and whether the lines were found.
    """
    begin, end = BEGIN.format(name=name), END.format(name=name)
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    text, count = pattern.subn(lambda _: f"{begin}\n{content}\n{end}", text)
    return text, count > 0
