"""Image files that are not taken on trust: where they lie, how large they are, whether whole."""

from __future__ import annotations

import io
import os
import re
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import cv2
import numpy as np

from mixdet.errors import MixDetError

# What OpenCV decodes too; Pillow knows others, of which some start programs
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
ORIENTATION, TURNED = 0x0112, (5, 6, 7, 8)  # EXIF's tag, and its values for lying on a side


class ImageFileError(MixDetError):
    """An image file that cannot be used: missing, damaged, no image, or over a limit."""


@dataclass(frozen=True)
class ImageLimits:
    """What an image may take. The header is read before anything is decoded.

    Attributes:
        max_bytes: Of the file.
        max_pixels: Width times height; above 178,956,970 Pillow refuses by itself.
    """

    max_bytes: int = 100 * 2**20
    max_pixels: int = 100_000_000


def resolve_inside(root: str | os.PathLike, name: str) -> Path:
    """The path of an image under its root, links followed.

    Args:
        root: Folder of the images.
        name: `file_name` of the annotations.

    Raises:
        MixDetError: The name is absolute, has `..` in it, or leads out of the root over a link.
    """
    refuse_foreign_name(name, root)
    path, real = os.path.realpath(root), os.path.realpath(Path(root, name))
    if os.path.commonpath([path, real]) != path:
        raise MixDetError(
            f"{Path(root, name)}: a link to {real}, out of {root}: images lie under their root"
        )
    return Path(real)


def refuse_foreign_name(name: str, root: str | os.PathLike) -> None:
    """Refuse a `file_name` that says itself that it is not under the root; nothing is opened.

    Raises:
        MixDetError: It is absolute, an address, has `..` in it, or is no name at all.
    """
    if not _is_name(name):
        raise MixDetError(f"file_name {name!r} names no image under {root}")
    path = PurePath(name)
    if path.anchor or ".." in path.parts or "://" in name:
        raise MixDetError(f"file_name {name}: leads out of {root}: give names relative to it")


def _is_name(name: object) -> bool:
    """Whether a file can have the name."""
    if not isinstance(name, str) or not name or "\0" in name:
        return False
    try:
        return bool(os.fsencode(name))
    except UnicodeEncodeError:
        return False


def read_image_file(path: str | os.PathLike, limits: ImageLimits) -> tuple[bytes, tuple[int, int]]:
    """An image file's bytes, not decoded, once its header has been found to be in order.

    Args:
        path: The file.
        limits: What it may take.

    Returns:
        The bytes, and (width, height) in pixels as it is decoded: upright, as its EXIF tag says.

    Raises:
        ImageFileError: It is missing, empty, cut short, no image, or over a limit.
    """
    try:
        status = Path(path).stat()
        if stat.S_ISFIFO(status.st_mode):  # which waits for a writer for ever
            raise ImageFileError(f"{path}: no file but a pipe")
        if status.st_size > limits.max_bytes:
            size = f"{status.st_size:,} bytes"
            raise ImageFileError(f"{path}: {size}, over max_bytes={limits.max_bytes:,}")
        content = Path(path).read_bytes()
    except FileNotFoundError as error:
        raise ImageFileError(f"{path}: no such file, though the annotations name it") from error
    except OSError as error:
        raise ImageFileError(f"{path}: cannot be read ({error.strerror})") from error
    if not content:
        raise ImageFileError(f"{path}: the image is damaged: the file is empty")
    from PIL import Image  # an exported folder is run without Pillow

    with _refusing(path):
        image = Image.open(io.BytesIO(content), formats=FORMATS)
    width, height = image.size
    if width * height > limits.max_pixels:
        raise ImageFileError(
            f"{path}: {width} x {height} pixels, over max_pixels={limits.max_pixels:,}"
        )
    if _cut_short(content):
        raise ImageFileError(f"{path}: the image is damaged: it is cut short")
    with _refusing(path):
        return content, (height, width) if _turned(image, content) else (width, height)


def _cut_short(content: bytes) -> bool:
    """Whether a JPEG or a PNG ends too early.

    OpenCV 4 decodes half a JPEG without a word; OpenCV 5 makes room for whatever length a part of a
    PNG states, a gigabyte in a file of some bytes.
    """
    if content.startswith(b"\x89PNG"):
        at, kind = 8, b""
        while at < len(content) and kind != b"IEND":  # a part: its length, kind, data, check sum
            length, kind = int.from_bytes(content[at : at + 4], "big"), content[at + 4 : at + 8]
            at += 12 + length
        return kind != b"IEND" or at > len(content)
    # The end marker cannot stand within the data of a scan, and a thumbnail's stands before the
    # image's last scan
    jpeg = content.startswith(b"\xff\xd8")
    return jpeg and content.rfind(b"\xff\xd9") < content.rfind(b"\xff\xda")


def decode_fully(path: str | os.PathLike, content: bytes) -> None:
    """Decode an image once, to see that it can be.

    Raises:
        ImageFileError: It cannot.
    """
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of metadata
            Image.open(io.BytesIO(content), formats=FORMATS).load()
    except Exception as error:  # decoders raise what they like on damaged data
        raise ImageFileError(f"{path}: the image is damaged ({error})") from error


@contextmanager
def _refusing(path: str | os.PathLike) -> Iterator[None]:
    """Turn what Pillow raises into a `ImageFileError`."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's own limit of pixels, and of metadata
            yield
    except Image.DecompressionBombError as error:
        raise ImageFileError(f"{path}: too many pixels ({error})") from error
    except Exception as error:  # decoders raise what they like on damaged data
        raise ImageFileError(f"{path}: the image is damaged, or no image") from error


def _turned(image: Any, content: bytes) -> bool:
    """Whether it lies on its side. Pillow decodes a PNG to the end to say that it has no EXIF."""
    if image.format == "PNG" and not re.search(rb"e[xX][iI]f", content):
        return False
    return image.getexif().get(ORIENTATION) in TURNED


def as_rgb(image: Any) -> np.ndarray:
    """An image as an array (H, W, 3) uint8, RGB; transparency is dropped, as in training.

    Args:
        image: The path of a file, which is turned upright as its EXIF tag says; or an array,
            (H, W), (H, W, 1), (H, W, 3) RGB or (H, W, 4) RGBA, uint8; or a PIL image. The last
            two are taken as they are, so that boxes are in their pixels.

    Raises:
        MixDetError: The file is not an image, or the array is not one of those.
    """
    if isinstance(image, str | os.PathLike):
        return _read(Path(image))
    if hasattr(image, "convert"):  # PIL, which need not be imported for this
        return np.asarray(image.convert("RGB"))
    array = np.asarray(image)
    if array.ndim == 2:
        array = array[..., None]
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] not in (1, 3, 4):
        raise MixDetError(
            f"not an image: an array of shape {array.shape} and type {array.dtype}; "
            "give (H, W), (H, W, 3) RGB or (H, W, 4) RGBA in uint8"
        )
    if not array.size:
        raise MixDetError(f"an image without pixels: an array of shape {array.shape}")
    return np.repeat(array, 3, axis=2) if array.shape[2] == 1 else array[..., :3]


def _read(path: Path) -> np.ndarray:
    """Read a file as mmdet's pipelines do, so that prediction sees what evaluation saw."""
    try:
        content = np.fromfile(path, np.uint8)
        bgr = cv2.imdecode(content, cv2.IMREAD_COLOR) if content.size else None
    except OSError as error:
        raise MixDetError(f"cannot read {path}: {error.strerror}") from error
    except cv2.error as error:
        raise MixDetError(f"cannot read {path} as an image: {error.err}") from error
    if bgr is None:
        raise MixDetError(f"cannot read {path} as an image: damaged, or another kind of file")
    return np.ascontiguousarray(bgr[..., ::-1])
