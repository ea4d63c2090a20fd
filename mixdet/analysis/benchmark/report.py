"""The documents' tables and plots, made of the records that tools/benchmark.py has written."""

from __future__ import annotations

import importlib
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path

from mixdet.analysis.machine import describe
from mixdet.errors import MixDetError

KINDS = ("input", "train", "feed", "gloo", "eval", "infer", "fuse", "grow", "start")
BEGIN, END = "<!-- {name}: made by tools/benchmark.py report -->", "<!-- /{name} -->"


def table(record: dict, markdown: bool = False) -> str:
    """A record as text: what it was measured on, and its tables."""
    kind = record["kind"]
    module = importlib.import_module(f"mixdet.analysis.benchmark.{kind}")
    made = getattr(module, f"{kind}_table")(record, markdown)
    return f"{describe(record['machine'])}\n\n{made}"


def summary(record: dict) -> str:
    """What a page shows of a record: its short table where its kind has one, as Markdown."""
    kind = record["kind"]
    module = importlib.import_module(f"mixdet.analysis.benchmark.{kind}")
    short = getattr(module, f"{kind}_summary", None)
    made = short(record) if short else getattr(module, f"{kind}_table")(record, markdown=True)
    measured_on, _ = describe(record["machine"] | {"load": None}).splitlines()
    return f"{measured_on}, mixdet {record['machine']['versions']['mixdet']}\n\n{made}"


def plot(record: dict) -> str | None:
    """A record's plot as SVG, if its kind has one."""
    module = importlib.import_module(f"mixdet.analysis.benchmark.{record['kind']}")
    draw = getattr(module, f"{record['kind']}_plot", None)
    return draw(record) if draw else None


def write_plot(record: dict, file: Path) -> None:
    """Put a record's plot, if its kind has one, beside its file."""
    if drawn := plot(record):
        file.with_suffix(".svg").write_text(drawn, encoding="utf-8")


def read_record(path: Path) -> dict:
    """Read a record.

    Raises:
        MixDetError: The file is none.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise MixDetError(f"{path} cannot be read: {error}") from error
    if not isinstance(record, dict) or record.get("kind") not in KINDS:
        raise MixDetError(f"{path} is not what tools/benchmark.py --out writes")
    return record


def renew(page: Path, files: Sequence[Path]) -> list[str]:
    """Put each record's tables between the page's lines that name it, and its plot beside it.

    Args:
        page: A Markdown file with the two lines `BEGIN` and `END` for each record; `train` is the
            name of `train.json`.
        files: The records.

    Returns:
        Names of the records for which the page has no such lines.

    Raises:
        MixDetError: A file is no record, or the page cannot be read.
    """
    try:
        text = page.read_text(encoding="utf-8")
    except OSError as error:
        raise MixDetError(f"{page} cannot be read: {error.strerror}") from error
    absent = []
    for file in files:
        record = read_record(file)
        write_plot(record, file)
        text, found = insert(text, file.stem, content(record, file, page))
        absent += [] if found else [file.stem]
    page.write_text(text, encoding="utf-8")
    return absent


def content(record: dict, file: Path, page: Path) -> str:
    """What a page shows of a record: its summary, and its plot, which lies beside the file."""
    made = summary(record)
    if not plot(record):
        return made
    drawn = os.path.relpath(file.with_suffix(".svg"), page.parent).replace(os.sep, "/")
    return f"{made}\n\n![{file.stem}]({drawn})"


def insert(text: str, name: str, content: str) -> tuple[str, bool]:
    """Replace what stands between a name's two lines; False if they are not there."""
    begin, end = BEGIN.format(name=name), END.format(name=name)
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    made = f"{begin}\n{content}\n{end}"
    return pattern.sub(lambda _: made, text), bool(pattern.search(text))
