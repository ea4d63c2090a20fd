"""Check the names, the headers and the pixels of image files."""

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

import numpy as np

from mixdet.errors import MixDetError
from mixdet.images.decoding import (
    IMAGE_FORMATS,
    ORIENTATION,
    TRANSPOSED,
    ImageFileError,
    decode,
    missing_decoder,
    orientation_of,
    refuse_pixel_type,
)

# A relative path of ASCII letters, digits and a few signs, without a part that begins with a dot
USUAL_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)*", re.ASCII)


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
    if isinstance(name, str) and USUAL_NAME.fullmatch(name):
        return  # the checks below take most of the time of a large data set
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
        The bytes, and (width, height) in pixels of the upright image that `decode` returns.

    Raises:
        ImageFileError: The file is missing, empty, truncated, not an image, or over a limit, or its
            pixels have an unsupported type.
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
    if refusal := missing_decoder(content):
        raise ImageFileError(f"cannot read {path} as an image: {refusal}")
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
    refuse_pixel_type(image, path)
    if image.format == "TIFF":  # only some versions of Pillow give the `size` of the upright image
        width, height = image.tag_v2[256], image.tag_v2[257]
        orientation = image.tag_v2.get(ORIENTATION)
    else:
        orientation = orientation_of(content)
    return content, (height, width) if orientation in TRANSPOSED else (width, height)


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
    # marker. The end marker of an embedded thumbnail comes before the last scan of the image.
    is_jpeg = content.startswith(b"\xff\xd8")
    return is_jpeg and content.rfind(b"\xff\xd9") < content.rfind(b"\xff\xda")


def decode_fully(path: str | os.PathLike, content: bytes) -> np.ndarray:
    """Decode an image with Pillow and with `decode`, to find out whether it is damaged.

    Pillow finds damage that OpenCV passes over.

    Args:
        path: The file, for the error message.
        content: The bytes of the file.

    Returns:
        (H, W, 3) uint8, BGR, as `decode` returns it.

    Raises:
        ImageFileError: The image cannot be decoded.
    """
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns about metadata
            Image.open(io.BytesIO(content), formats=IMAGE_FORMATS).load()
        image = decode(content, path)
    except ImageFileError:
        raise
    except Exception as error:  # damaged data raise various errors
        raise ImageFileError(f"{path}: the image is damaged ({error})") from error
    if image is None:
        raise ImageFileError(f"{path}: OpenCV cannot decode this image: save it as PNG or JPEG")
    return image


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
