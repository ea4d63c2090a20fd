"""Read an annotation file as Python's own `json` does, into dicts."""

from __future__ import annotations

import json
import os
from collections.abc import Hashable
from pathlib import Path
from typing import Any

from mixdet.annotations.rules import shown, unusable
from mixdet.errors import MixDetError

IDS = ("id", "image_id", "category_id")


def read_content(path: str | os.PathLike, name: str | None = None) -> dict[str, Any]:
    """Read an annotation file without changing its entries.

    Args:
        path: The file.
        name: Name of the file in messages. By default it is `path`.

    Returns:
        The content of the file, with lists of dicts for `images`, `annotations` and `categories`.
        If the file has no `annotations`, the list is empty. Files of test images have none.

    Raises:
        MixDetError: The file cannot be read, a list is missing, or an entry is not a dict with ids.
    """
    name = name or os.fspath(path)
    try:
        text = Path(path).read_bytes()
    except OSError as error:
        raise MixDetError(f"{name}: cannot read the annotations ({error.strerror})") from error
    return parse_content(text, name)


def parse_content(text: bytes, name: str) -> dict[str, Any]:
    """Parse the bytes of an annotation file. See `read_content`."""
    refused = f"{name}: not a COCO annotation file"
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise MixDetError(f"{refused}: {where}: {error.msg}") from error
    except (ValueError, RecursionError) as error:
        raise MixDetError(f"{refused} ({error})") from error
    if not isinstance(content, dict):
        raise MixDetError(f"{refused}: it is a {type(content).__name__}, not an object")
    if content.get("annotations") is None:
        content["annotations"] = []
    for kind in ("images", "annotations", "categories"):
        entries = content.get(kind)
        if not isinstance(entries, list):
            raise MixDetError(f"{refused}: {kind}: a list expected, got {shown(entries)}")
        for index, entry in enumerate(entries):
            if not isinstance(entry, dict):
                raise unusable(f"{kind}[{index}]: an object expected, got {shown(entry)}", name)
            for key in IDS:
                if not isinstance(entry.get(key), Hashable):
                    raise unusable(
                        f"{kind}[{index}].{key}: a number or text expected, got "
                        f"{shown(entry[key])}",
                        name,
                    )
    return content
