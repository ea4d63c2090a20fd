"""Read images, and check image files before they are decoded."""

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

__all__ = ["ImageFileError", "ImageLimits", "as_rgb"]

# The formats that Pillow and OpenCV both decode. Other formats are refused, since Pillow starts
# external programs for some of them.
IMAGE_FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
# EXIF's tag for the orientation, and the values of the tag that swap width and height.
EXIF_ORIENTATION, EXIF_TRANSPOSED = 0x0112, (5, 6, 7, 8)


class ImageFileError(MixDetError):
    """An image file is missing, damaged, not an image, or over a limit."""


@dataclass(frozen=True)
class ImageLimits:
    """Limits for an image file, which are checked before the image is decoded.

    Attributes:
        max_bytes: Largest size of the file.
        max_pixels: Largest number of pixels. Pillow itself refuses more than 178,956,970.
    """

    max_bytes: int = 100 * 2**20
    max_pixels: int = 100_000_000


def resolve_inside(root: str | os.PathLike, name: str) -> Path:
    """Resolve the links in the path of an image, and refuse a path outside the root.

    Args:
        root: Folder of the images.
        name: `file_name` from the annotations.

    Raises:
        MixDetError: The name is absolute, contains `..`, or leads out of the root through a link.
    """
    refuse_foreign_name(name, root)
    real_root, real_path = os.path.realpath(root), os.path.realpath(Path(root, name))
    if os.path.commonpath([real_root, real_path]) != real_root:
        raise MixDetError(
            f"{Path(root, name)} is a link to {real_path}, which is outside {root}: put the image "
            f"into {root}"
        )
    return Path(real_path)


def refuse_foreign_name(name: str, root: str | os.PathLike) -> None:
    """Refuse a `file_name` that is not a path below the root. No file is opened.

    Args:
        name: `file_name` from the annotations.
        root: Folder of the images.

    Raises:
        MixDetError: The name is absolute, is a URL, contains `..`, or cannot be a file's name.
    """
    if not _is_valid_name(name):
        raise MixDetError(
            f"file_name {name!r} names no image under {root}: give a path relative to this folder"
        )
    path = PurePath(name)
    if path.anchor or ".." in path.parts or "://" in name:
        raise MixDetError(
            f"file_name {name} leads out of {root}: give a path relative to this folder"
        )


def _is_valid_name(name: object) -> bool:
    """Tell whether a file can have this name."""
    if not isinstance(name, str) or not name or "\0" in name:
        return False
    try:
        return bool(os.fsencode(name))
    except UnicodeEncodeError:
        return False


def read_image_file(path: str | os.PathLike, limits: ImageLimits) -> tuple[bytes, tuple[int, int]]:
    """Read the bytes of an image file, and check its header without decoding the image.

    Args:
        path: The file.
        limits: The limits that are checked.

    Returns:
        The bytes, and the (width, height) in pixels of the image after its EXIF tag is applied.

    Raises:
        ImageFileError: The file is missing, empty, truncated, not an image, or over a limit.
    """
    try:
        status = Path(path).stat()
        if stat.S_ISFIFO(status.st_mode):  # reading would wait for a writer forever
            raise ImageFileError(f"{path} is a pipe, not a file")
        if status.st_size > limits.max_bytes:
            raise ImageFileError(
                f"{path} has {status.st_size:,} bytes, more than max_bytes={limits.max_bytes:,}"
            )
        content = Path(path).read_bytes()
    except FileNotFoundError as error:
        raise ImageFileError(f"{path}: no such file, though the annotations name it") from error
    except OSError as error:
        raise ImageFileError(f"{path} cannot be read ({error.strerror})") from error
    if not content:
        raise ImageFileError(f"{path}: the image is damaged: the file is empty")
    from PIL import Image  # imported here, since an exported folder runs without Pillow

    with _image_file_errors(path):
        image = Image.open(io.BytesIO(content), formats=IMAGE_FORMATS)
    width, height = image.size
    if width * height > limits.max_pixels:
        raise ImageFileError(
            f"{path} has {width} x {height} pixels, more than max_pixels={limits.max_pixels:,}"
        )
    if _is_truncated(content):
        raise ImageFileError(f"{path}: the image is damaged: the file is cut short")
    with _image_file_errors(path):
        return content, (height, width) if _is_transposed(image, content) else (width, height)


def _is_truncated(content: bytes) -> bool:
    """Tell whether a JPEG or a PNG ends too early.

    OpenCV 4 decodes half a JPEG without an error. OpenCV 5 allocates the length that a PNG chunk
    states. This can be a gigabyte, even in a file of a few bytes.
    """
    if content.startswith(b"\x89PNG"):
        position, kind = 8, b""
        # A chunk consists of length (4 bytes), kind (4), data and checksum (4).
        while position < len(content) and kind != b"IEND":
            length = int.from_bytes(content[position : position + 4], "big")
            kind = content[position + 4 : position + 8]
            position += 12 + length
        return kind != b"IEND" or position > len(content)
    # A complete JPEG has an end marker after its last scan. The data of a scan never contain an end
    # marker, and the one of an embedded thumbnail comes before the last scan of the image.
    is_jpeg = content.startswith(b"\xff\xd8")
    return is_jpeg and content.rfind(b"\xff\xd9") < content.rfind(b"\xff\xda")


def decode_fully(path: str | os.PathLike, content: bytes) -> None:
    """Decode an image with Pillow, to find out whether it is damaged.

    Args:
        path: The file, for the error message.
        content: The bytes of the file.

    Raises:
        ImageFileError: The image cannot be decoded.
    """
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns about metadata
            Image.open(io.BytesIO(content), formats=IMAGE_FORMATS).load()
    except Exception as error:  # damaged data raise various errors
        raise ImageFileError(f"{path}: the image is damaged ({error})") from error


@contextmanager
def _image_file_errors(path: str | os.PathLike) -> Iterator[None]:
    """Turn every error of Pillow into an `ImageFileError`."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns about many pixels and about metadata
            yield
    except Image.DecompressionBombError as error:
        raise ImageFileError(f"{path}: too many pixels ({error})") from error
    except Exception as error:  # damaged data raise various errors
        raise ImageFileError(f"{path}: the image is damaged, or not an image") from error


def _is_transposed(image: Any, content: bytes) -> bool:
    """Tell whether EXIF turns the image by 90 or 270 degrees.

    The bytes of a PNG are searched for EXIF data first, since Pillow would decode the whole image
    to find them.
    """
    if image.format == "PNG" and not re.search(rb"e[xX][iI]f", content):
        return False
    return image.getexif().get(EXIF_ORIENTATION) in EXIF_TRANSPOSED


def as_rgb(image: Any) -> np.ndarray:
    """Convert an image to an array (H, W, 3) uint8, RGB. Transparency is dropped, as in training.

    Args:
        image: The path of a file, a PIL image, or a uint8 array of shape (H, W), (H, W, 1),
            (H, W, 3) RGB or (H, W, 4) RGBA. A file is turned upright as its EXIF tag says. An array
            or PIL image is not turned, so predicted boxes are in pixels of the given image.

    Raises:
        MixDetError: The file is not an image, or the array has an unsupported shape or type.
    """
    if isinstance(image, str | os.PathLike):
        return _read(Path(image))
    if hasattr(image, "convert"):  # a PIL image; the check needs no import of PIL
        return np.asarray(image.convert("RGB"))
    array = np.asarray(image)
    if array.ndim == 2:
        array = array[..., None]
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] not in (1, 3, 4):
        raise MixDetError(
            f"an array of shape {array.shape} and type {array.dtype} is not an image: give "
            "(H, W), (H, W, 3) RGB or (H, W, 4) RGBA in uint8"
        )
    if not array.size:
        raise MixDetError(f"an array of shape {array.shape} is an image without pixels")
    return np.repeat(array, 3, axis=2) if array.shape[2] == 1 else array[..., :3]


def _read(path: Path) -> np.ndarray:
    """Read a file as mmdet's pipelines do, so that prediction and evaluation get equal pixels."""
    try:
        content = np.fromfile(path, np.uint8)
        bgr = cv2.imdecode(content, cv2.IMREAD_COLOR) if content.size else None
    except OSError as error:
        raise MixDetError(f"cannot read {path}: {error.strerror}") from error
    except cv2.error as error:
        raise MixDetError(f"cannot read {path} as an image: {error.err}") from error
    if bgr is None:
        raise MixDetError(f"cannot read {path} as an image: it is damaged, or another kind of file")
    return np.ascontiguousarray(bgr[..., ::-1])
