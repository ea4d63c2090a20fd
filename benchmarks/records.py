"""Records of measurements: the JSON that `--out` writes, its tables and its plot."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType

from mixdet.errors import MixDetError
from mixdet.machine import describe

# The module of each command. The `kind` of a record is the name of the command that measured it.
MODULES = {
    "input": "input_pipeline",
    "train": "training_step",
    "feed": "data_loading",
    "gloo": "training_processes",
    "eval": "testing",
    "metric": "metric_backends",
    "infer": "inference",
    "predict": "predicting",
    "fuse": "mixconv_fusing",
    "grow": "scaling",
    "start": "startup",
    "detectors": "mmdet_detectors",
    "scale": "scale",
}


def module_of(kind: str) -> ModuleType:
    """Import the module of a command. The docstring of `benchmarks` lists its functions."""
    return importlib.import_module(f"benchmarks.{MODULES[kind]}")


def read_record(path: Path) -> dict:
    """Read a record from a JSON file.

    Raises:
        MixDetError: The file cannot be read, or holds no record.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise MixDetError(f"{path} cannot be read: {error}") from error
    if not isinstance(record, dict) or record.get("kind") not in MODULES:
        raise MixDetError(
            f"{path} holds no record of a benchmark: give a file that `python -m benchmarks "
            "COMMAND --out FILE` wrote"
        )
    return record


def record_table(record: dict, markdown: bool = False) -> str:
    """Lay out a record as text: the machine, then all tables."""
    tables = module_of(record["kind"]).table(record, markdown)
    return f"{describe(record['machine'])}\n\n{tables}"


def record_page_table(record: dict) -> str:
    """Lay out a record as Markdown for a page: the processor, the version and the table."""
    module = module_of(record["kind"])
    page_table = getattr(module, "page_table", None)
    text = page_table(record) if page_table else module.table(record, markdown=True)
    processor, _ = describe(record["machine"] | {"load": None}).splitlines()
    return f"{processor}, mixdet {record['machine']['versions']['mixdet']}\n\n{text}"


def record_plot(record: dict) -> str | None:
    """Draw a record as SVG, or return None if its command has no plot."""
    plot = getattr(module_of(record["kind"]), "plot", None)
    return plot(record) if plot else None


def write_plot(record: dict, file: Path) -> None:
    """Write the plot of a record beside the record's file, if the command has a plot."""
    if svg := record_plot(record):
        file.with_suffix(".svg").write_text(svg, encoding="utf-8")
