"""What is a usable annotation: the rules for single fields."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from mixdet.errors import MixDetError

MAX_COORDINATE = 2**31  # pixels; larger numbers do not fit the integers of image libraries
MAX_NUMBER = 2**62


def fault_of(annotation: dict) -> str | None:
    """Return why an annotation cannot be used, such as `bbox: 4 numbers expected, got 3`.

    Returns:
        The field, what is expected of it, and what it holds. None if the annotation can be used.
    """
    for key in ("image_id", "category_id"):
        if not is_id(annotation.get(key)):
            return f"{key}: a number or text expected, got {shown(annotation.get(key))}"
    box = annotation.get("bbox")
    if "bbox" not in annotation:
        return "bbox: 4 numbers expected (x, y, width and height in pixels), got nothing"
    if not isinstance(box, list):
        return f"bbox: 4 numbers expected, got {shown(box)}"
    if len(box) != 4:
        return f"bbox: 4 numbers expected, got {len(box)}"
    if not all(map(is_coordinate, box)):
        return f"bbox: 4 finite numbers of pixels expected, got {shown(box)}"
    area = annotation.get("area")
    if area is not None and not is_number(area):
        return f"area: a number or no field expected, got {shown(area)}"
    for key in ("iscrowd", "ignore"):
        flag = annotation.get(key)
        if flag is not None and not isinstance(flag, bool) and not is_coordinate(flag):
            return f"{key}: 0 or 1 expected, got {shown(flag)}"
    return None


def is_crowd(annotation: dict) -> bool:
    """Tell whether a box is marked `iscrowd` or `ignore`: neither an object nor background."""
    return bool(annotation.get("iscrowd") or annotation.get("ignore"))


def is_id(value: Any) -> bool:
    """Tell whether a value can be the id of an image or a category: a number or text."""
    return isinstance(value, str) or is_number(value)


def is_number(value: Any) -> bool:
    """Tell whether a value is a finite number. True and the string "1" are not numbers."""
    return type(value) in (int, float) and abs(value) < MAX_NUMBER  # False for NaN


def is_coordinate(value: Any) -> bool:
    """Tell whether a value is a number of pixels."""
    return is_number(value) and abs(value) < MAX_COORDINATE


def unusable_ids(ids: Iterable[Any]) -> list[Any]:
    """Return the annotation ids that are repeated or are not whole numbers above 0."""
    # 1, 1.0 and True are equal, so they count as the same id.
    return [
        number
        for number, count in Counter(ids).items()
        if count > 1 or type(number) is not int or number <= 0
    ]


def shown(value: Any) -> str:
    """Return a value as a short text for a message."""
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:97]}..."


def unusable(fault: str, name: str) -> MixDetError:
    """Return the error for a fault with its place, such as `images[3].id: ...`, in a file."""
    return MixDetError(f"{fault} ({name})")
