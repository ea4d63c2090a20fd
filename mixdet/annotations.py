"""Read COCO annotation files. Only this module decides what missing and unusual fields mean.

Data sets and evaluators read missing and unusual fields differently. `read_annotations` therefore
normalizes them, so that training, the data check and every evaluator use the same boxes:

- A missing `iscrowd` is 0.
- An `area` that is missing or not above 0 is the width times the height of the box.
- `ignore`, which converters write for PASCAL VOC's `difficult`, makes the box a crowd. In training,
  a crowd is not an object, and `MixConvSSDHead` does not take it for background. With other heads,
  a crowd is background unless their assigner has an `ignore_iof_thr` above 0. In evaluation,
  detections of a crowd do not count.
- A box whose width or height is not above 0 is left out.
- A box of an image or a category that is not in the file is left out.
- If any annotation id is repeated or is not a whole number above 0, all annotations get new ids.
- Anything else that is not in COCO's format is refused.
"""

from __future__ import annotations

import json
import logging
import os
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.logging import print_log

from mixdet.errors import MixDetError

MAX_COORDINATE = 2**31  # pixels; larger numbers do not fit the integers of image libraries
_said: set[str] = set()


@dataclass
class Findings:
    """What `inspect_annotations` finds. The integers are indices of annotations.

    Attributes:
        faults: For the index of each unusable annotation, what is wrong with it.
        no_area: Annotations whose `area` is missing or not above 0.
        ignored: Annotations that are marked `ignore`.
        flat: Annotations whose box has a width or a height that is not above 0.
    """

    faults: dict[int, str] = field(default_factory=dict)
    no_area: list[int] = field(default_factory=list)
    ignored: list[int] = field(default_factory=list)
    flat: list[int] = field(default_factory=list)


def read_annotations(path: str | os.PathLike, name: str | None = None) -> dict[str, Any]:
    """Read an annotation file and normalize its annotations, as the docstring of the module says.

    All changes are logged as one warning. A process does not repeat the same warning.

    Args:
        path: The file.
        name: Name of the file in messages. By default it is `path`.

    Returns:
        The content of the file. Every annotation has `id`, `image_id`, `category_id`, `bbox`
        (x, y, width, height) in pixels, `area` and `iscrowd`, and none has `ignore`.

    Raises:
        MixDetError: The file cannot be read, or is not in COCO's format.
    """
    name = name or os.fspath(path)
    content = read_content(path, name)
    for kind in ("images", "categories"):
        _refuse_unusable_ids(content[kind], kind, name)
    annotations = content["annotations"]
    findings = inspect_annotations(annotations)
    if findings.faults:
        index, fault = next(iter(findings.faults.items()))
        more = f" ({len(findings.faults)} such annotations)" if len(findings.faults) > 1 else ""
        where = describe_annotation(annotations[index], content["images"])
        raise MixDetError(f"{name}: {where} has {fault}{more}")
    for index in findings.no_area:
        _, _, width, height = annotations[index]["bbox"]
        annotations[index]["area"] = width * height
    for annotation in annotations:
        annotation["iscrowd"] = int(is_crowd(annotation))
        annotation.pop("ignore", None)
    flat = set(findings.flat)
    solid = [annotation for index, annotation in enumerate(annotations) if index not in flat]
    images, categories = ({e["id"] for e in content[kind]} for kind in ("images", "categories"))
    kept = [a for a in solid if a["image_id"] in images and a["category_id"] in categories]
    content["annotations"] = kept
    renumber = bool(unusable_ids(kept))
    if renumber:
        for number, annotation in enumerate(kept, start=1):
            annotation["id"] = number
    _say_changes(name, findings, len(solid) - len(kept), renumber)
    return content


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
        content = json.loads(Path(path).read_bytes())
    except OSError as error:
        raise MixDetError(f"{name}: cannot read the annotations ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise MixDetError(f"{name}: not a COCO annotation file ({error})") from error
    if not isinstance(content, dict):
        raise MixDetError(
            f"{name}: not a COCO annotation file: it is a {type(content).__name__}, not an object"
        )
    if content.get("annotations") is None:
        content["annotations"] = []
    for kind in ("images", "annotations", "categories"):
        entries = content.get(kind)
        if not isinstance(entries, list):
            raise MixDetError(f"{name}: not a COCO annotation file: add a list of {kind}")
        for index, entry in enumerate(entries):
            if not isinstance(entry, dict) or not all(
                isinstance(entry.get(key), Hashable) for key in ("id", "image_id", "category_id")
            ):
                raise MixDetError(
                    f"{name}: not a COCO annotation file: {kind}[{index}] is not an object with ids"
                )
    return content


def inspect_annotations(annotations: Sequence[dict]) -> Findings:
    """Find the annotations that `read_annotations` refuses, changes or leaves out.

    The annotations are not changed.
    """
    findings = Findings()
    for index, annotation in enumerate(annotations):
        fault = _fault(annotation)
        if fault is not None:
            findings.faults[index] = fault
            continue
        _, _, width, height = annotation["bbox"]
        if width <= 0 or height <= 0:
            findings.flat.append(index)
            continue
        area = annotation.get("area")
        if area is None or area <= 0:
            findings.no_area.append(index)
        if annotation.get("ignore"):
            findings.ignored.append(index)
    return findings


def is_crowd(annotation: dict) -> bool:
    """Tell whether a box is marked `iscrowd` or `ignore`: neither an object nor background."""
    return bool(annotation.get("iscrowd") or annotation.get("ignore"))


def is_id(value: Any) -> bool:
    """Tell whether a value can be the id of an image or a category: a number or text."""
    return isinstance(value, str) or _is_number(value, limit=2**62)


def unusable_ids(annotations: Sequence[dict]) -> list[Any]:
    """Return the annotation ids that are repeated or are not whole numbers above 0."""
    ids = [annotation.get("id") for annotation in annotations]
    # 1, 1.0 and True are equal, so they count as the same id.
    counts = Counter(ids)
    return [
        number
        for number, count in counts.items()
        if count > 1 or type(number) is not int or number <= 0
    ]


def describe_annotation(annotation: dict, images: Iterable[dict]) -> str:
    """Return the id of an annotation and the file name of its image, as words for a message."""
    image_id = annotation.get("image_id")
    names = (image.get("file_name") for image in images if image.get("id") == image_id)
    return f"annotation {annotation.get('id')} in {next(names, f'image {image_id}')}"


def _fault(annotation: dict) -> str | None:
    """Return why an annotation cannot be used, or None."""
    for key in ("image_id", "category_id"):
        if not is_id(annotation.get(key)):
            return _stated(annotation, key, "give the id as a number or as text")
    box = annotation.get("bbox")
    if not (isinstance(box, list) and len(box) == 4 and all(map(_is_number, box))):
        if "bbox" not in annotation:
            return "no `bbox`: give x, y, width and height in pixels"
        return f"a box with the coordinates {_short(box)}: give four finite numbers in pixels"
    if annotation.get("area") is not None and not _is_number(annotation["area"], limit=2**62):
        return _stated(annotation, "area", "give a number, or leave it out")
    for key in ("iscrowd", "ignore"):
        flag = annotation.get(key)
        if flag is not None and not isinstance(flag, bool) and not _is_number(flag):
            return _stated(annotation, key, "give 0 or 1")
    return None


def _stated(annotation: dict, key: str, remedy: str) -> str:
    return f"the `{key}` {_short(annotation.get(key))}: {remedy}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:97]}..."


def _is_number(value: Any, limit: int = MAX_COORDINATE) -> bool:
    """Tell whether a value is a finite number below a limit. The string "1" is not a number."""
    return type(value) in (int, float) and abs(value) < limit  # False for NaN


def _refuse_unusable_ids(entries: Sequence[dict], kind: str, name: str) -> None:
    """Raise a `MixDetError` if ids of images or categories are missing or repeated."""
    for number, count in Counter(entry.get("id") for entry in entries).items():
        if count > 1 or not is_id(number):
            fault = f"occurs {count} times" if count > 1 else "is neither a number nor text"
            raise MixDetError(
                f"{name}: the id {_short(number)} in `{kind}` {fault}: give every entry its own id"
            )


def _say_changes(name: str, findings: Findings, unknown: int, renumber: bool) -> None:
    """Log what was changed in one line, unless this line was logged before."""
    changes = [
        f"{count:,} {what}"
        for count, what in (
            (len(findings.no_area), "without an area above 0 (width times height is taken)"),
            (
                len(findings.ignored),
                "marked `ignore` (neither object nor background in training, neither counted nor "
                "punished in evaluation)",
            ),
            (len(findings.flat), "with a width or a height that is not above 0 (left out)"),
            (unknown, "of an image or a category that is not in the file (left out)"),
        )
        if count
    ]
    if renumber:
        changes.append("ids that are repeated or not whole numbers above 0 (all numbered anew)")
    line = f"{name}: annotations {'; '.join(changes)}"
    if changes and line not in _said:
        _said.add(line)
        print_log(line, logger="current", level=logging.WARNING)
