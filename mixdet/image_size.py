"""The size of a network's input images: what `--size` and `model.input_size` take.

Everywhere in this module, a size in pixels is (width, height), as in mmdet's `scale`. Shapes of
arrays and tensors are (height, width).
"""

from __future__ import annotations

import re
from argparse import ArgumentParser
from typing import Any

from mixdet.errors import MixDetError

MIN_SIDE = 32  # the largest stride of the backbones, so the coarsest map has at least one cell
MAX_SIDE = 4096  # one image of MixNet-S takes about 3 GB at this size


def as_wh(size: Any, name: str = "size") -> tuple[int, int]:
    """Return a size as (width, height) in pixels.

    Args:
        size: (width, height), or the side of a square.
        name: Name of the setting, for the error.

    Raises:
        MixDetError: The size is neither an int nor two ints, or a side is too small or too large.
    """
    sides = size if isinstance(size, list | tuple) else (size, size)
    if len(sides) != 2 or any(type(side) is not int for side in sides) or min(sides) < MIN_SIDE:
        raise MixDetError(
            f"{name}={size!r}: give a whole number of pixels, {MIN_SIDE} or more, or two of them: "
            "(width, height)"
        )
    if max(sides) > MAX_SIDE:
        raise MixDetError(
            f"{name}={size!r}: a side has at most {MAX_SIDE} pixels: cut larger images into tiles"
        )
    return tuple(sides)


def as_size(wh: tuple[int, int]) -> int | tuple[int, int]:
    """Return the side if the size is a square, or else (width, height), as in a config."""
    return wh[0] if wh[0] == wh[1] else wh


def width_x_height(wh: tuple[int, int]) -> str:
    """Return a size (width, height) as text, such as `320x192`."""
    return f"{wh[0]}x{wh[1]}"


def parse_size(text: str) -> tuple[int, int]:
    """Return (width, height) for the text `416` or `WIDTHxHEIGHT`.

    Raises:
        MixDetError: The text is neither, or `as_wh` refuses the size.
    """
    match = re.fullmatch(r"([0-9]{1,9})(?:x([0-9]{1,9}))?", text.strip().lower())
    if not match:
        raise MixDetError(
            f"--size {text}: give the side of a square in pixels, such as 416, or WIDTHxHEIGHT, "
            "such as 416x256"
        )
    width, height = match[1], match[2] or match[1]
    return as_wh((int(width), int(height)), "--size")


def add_size_option(parser: ArgumentParser) -> None:
    """Add the option `--size` to a tool. Its value is (width, height), or None."""
    parser.add_argument(
        "--size",
        type=parse_size,
        metavar="WIDTHxHEIGHT",
        help="size of the network's input in pixels, such as 416x256, or 416 for a square: changes "
        "model, anchors and pipelines together (default: as in the config)",
    )
