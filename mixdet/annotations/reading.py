"""Read an annotation file into arrays."""

from __future__ import annotations

import math
import os
import time
from array import array
from collections import OrderedDict
from collections.abc import Hashable
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np

from mixdet.annotations.content import parse_content, read_content
from mixdet.annotations.entries import (
    FREE_EVERY,
    Content,
    FileEntries,
    StoredEntries,
    TextEntries,
    file_state,
    mapped,
    release,
)
from mixdet.annotations.rules import MAX_COORDINATE, MAX_NUMBER, fault_of
from mixdet.annotations.table import AnnotationTable, ImageColumns, column
from mixdet.errors import MixDetError

MAX_TABLES = 4  # a process keeps the tables of the files that it read last
# The times of files are a few milliseconds coarse. A file that is written twice within this time
# may have the same time and size twice.
SETTLED = 0.1  # seconds
_tables: OrderedDict[str, tuple[tuple, AnnotationTable]] = OrderedDict()


def read_table(
    path: str | os.PathLike, name: str | None = None, temporary: bool = False
) -> AnnotationTable:
    """Read an annotation file, or return its table if this process has read the file before.

    Args:
        path: The file.
        name: Name of the file in messages. By default it is `path`.
        temporary: Whether the file is deleted later. Its content is then kept in memory.

    Raises:
        MixDetError: The file cannot be read, is not JSON, or has no lists of images and categories.
    """
    name = name or os.fspath(path)
    try:
        if temporary:
            return _read(Path(path).read_bytes(), name)
        key, state = os.path.realpath(path), file_state(path)
        if key in _tables and _tables[key][0] == state:
            _tables.move_to_end(key)
            return _tables[key][1]
        _tables.pop(key, None)
        entries = FileEntries(path)
        with mapped(path) as content:
            table = _read(content, name, entries)
        if entries.state == state and abs(time.time() - Path(path).stat().st_mtime) > SETTLED:
            _tables[key] = state, table
            if len(_tables) > MAX_TABLES:
                _tables.popitem(last=False)
        return table
    except OSError as error:
        raise MixDetError(f"{name}: cannot read the annotations ({error.strerror})") from error


def read_annotations(path: str | os.PathLike) -> dict[str, Any]:
    """Read an annotation file into dicts with all their fields, with normalized annotations.

    This takes much more time and memory than `read_table`.

    Args:
        path: The file.

    Returns:
        The content of the file. Every annotation has `id`, `image_id`, `category_id`, `bbox`
        (x, y, width, height) in pixels, `area` and `iscrowd`, and none has `ignore`.

    Raises:
        MixDetError: The file cannot be read, or is not in COCO's format.
    """
    content = read_content(path)
    objects = _read_any(content, os.fspath(path)).objects
    kept = [content["annotations"][index] for index in objects.index]
    for annotation, number, area, crowd in zip(
        kept, objects.ids, objects.areas.tolist(), objects.crowd.tolist(), strict=True
    ):
        annotation |= {"id": number, "area": area, "iscrowd": int(crowd)}
        annotation.pop("ignore", None)
    return content | {"annotations": kept}


def _read(content: Content, name: str, entries: FileEntries | None = None) -> AnnotationTable:
    try:
        return _read_usual(content, name, entries or TextEntries(content))
    except (msgspec.MsgspecError, OverflowError, UnicodeDecodeError, RecursionError):
        _refuse_cut_short(content, name)
        return _read_any(parse_content(content[:], name), name)


def _read_usual(content: Content, name: str, entries: Any) -> AnnotationTable:
    """Read a file whose ids are whole numbers and whose fields have the usual types.

    msgspec calls `__post_init__` for each image and annotation as soon as it is decoded. The values
    go into arrays there and are freed, so that they never are in memory all at once as objects.

    Raises:
        msgspec.MsgspecError: The file has other values, or is not valid JSON.
        OverflowError: An id or a size has more than 64 bits.
    """
    images = ImageColumns(array("q"), [], array("q"), array("q"))
    ids, image_ids, category_ids = array("q"), array("q"), array("q")
    boxes, areas, iscrowd, ignore = array("d"), array("d"), bytearray(), bytearray()

    class Image(msgspec.Struct, gc=False):
        id: int
        file_name: str
        width: int
        height: int

        def __post_init__(self) -> None:
            images.ids.append(self.id)
            images.names.append(self.file_name)
            images.widths.append(self.width)
            images.heights.append(self.height)
            self.id = self.width = self.height = 0
            self.file_name = ""

    class Annotation(msgspec.Struct, gc=False):
        id: int
        image_id: int
        category_id: int
        bbox: tuple[float, float, float, float]
        area: float | None = None
        iscrowd: bool | Literal[0, 1] | None = None
        ignore: bool | Literal[0, 1] | None = None

        def __post_init__(self) -> None:
            ids.append(self.id)
            image_ids.append(self.image_id)
            category_ids.append(self.category_id)
            boxes.extend(self.bbox)
            areas.append(math.nan if self.area is None else self.area)
            iscrowd.append(bool(self.iscrowd))
            ignore.append(bool(self.ignore))
            self.id = self.image_id = self.category_id = 0
            self.bbox = self.area = None
            if not len(ids) % FREE_EVERY:
                release(content)

    fields = [
        ("images", list[Image]),
        ("categories", list[dict[str, Any]]),
        ("annotations", list[Annotation] | None, None),
    ]
    top = msgspec.json.decode(content, type=msgspec.defstruct("Top", fields))
    if len(top.images) != len(images.ids) or len(top.annotations or ()) != len(ids):
        raise msgspec.DecodeError("a list occurs twice")
    if not all(isinstance(entry.get("id"), Hashable) for entry in top.categories):
        raise msgspec.DecodeError("a category has no usable id")
    box_array, area_array = np.asarray(boxes).reshape(-1, 4), np.asarray(areas)
    for numbers, limit in (
        *((box_array, MAX_COORDINATE), (area_array, MAX_NUMBER)),
        *((np.asarray(values), MAX_NUMBER) for values in (image_ids, category_ids)),
    ):
        if (numbers >= limit).any() or (numbers <= -limit).any():
            raise msgspec.DecodeError("a number is too large")
    return AnnotationTable(
        name=name,
        images=images,
        categories=top.categories,
        ids=ids,
        image_ids=image_ids,
        category_ids=category_ids,
        boxes=box_array,
        areas=area_array,
        iscrowd=np.frombuffer(iscrowd, bool),
        ignore=np.frombuffer(ignore, bool),
        faults={},
        entries=entries,
    )


def _read_any(content: dict[str, Any], name: str) -> AnnotationTable:
    """Make the table of a file from its dicts, whatever values they hold."""
    images, annotations = content["images"], content["annotations"]
    faults = {
        index: fault for index, fault in enumerate(map(fault_of, annotations)) if fault is not None
    }
    usable = [{} if index in faults else entry for index, entry in enumerate(annotations)]
    no_box = [math.nan] * 4
    areas = [entry.get("area") for entry in usable]
    return AnnotationTable(
        name=name,
        images=ImageColumns(
            column([image.get("id") for image in images]),
            [image.get("file_name") for image in images],
            column([image.get("width") for image in images]),
            column([image.get("height") for image in images]),
        ),
        categories=content["categories"],
        ids=column([entry.get("id") for entry in annotations]),
        image_ids=column([entry.get("image_id") for entry in annotations]),
        category_ids=column([entry.get("category_id") for entry in annotations]),
        boxes=np.array([entry.get("bbox", no_box) for entry in usable], float).reshape(-1, 4),
        areas=np.array([math.nan if area is None else area for area in areas], float),
        iscrowd=np.array([bool(entry.get("iscrowd")) for entry in usable], bool),
        ignore=np.array([bool(entry.get("ignore")) for entry in usable], bool),
        faults=faults,
        entries=StoredEntries(annotations),
    )


def _refuse_cut_short(content: Content, name: str) -> None:
    """Raise a `MixDetError` if a file begins as JSON, but does not end so.

    Python's `json` would find the place too, but needs much time and memory for a large file.
    """
    start, end = content[:100].lstrip(), content[-100:].rstrip(b" \t\r\n\0")
    if start.startswith(b'{"') and not end.endswith(b"}"):
        lines, last = 1, 0
        while (following := content.find(b"\n", last)) >= 0:
            lines, last = lines + 1, following + 1
        column_number = len(content[last:].decode(errors="replace")) + 1
        raise MixDetError(
            f"{name}: not a COCO annotation file: line {lines}, column {column_number}: the file "
            "ends without the closing brace: it is cut short, or has other text at its end"
        )
