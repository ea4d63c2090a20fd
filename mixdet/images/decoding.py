"""Decode images upright, from files, bytes and PIL images."""

from __future__ import annotations

import io
import os
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mixdet.errors import MixDetError, one_line

# The formats that Pillow and OpenCV both decode. Other formats are refused, since Pillow starts
# external programs for some of them.
IMAGE_FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
# The suffixes of files in these formats
# fmt: off
IMAGE_SUFFIXES = {
    ".apng", ".avif", ".avifs", ".bmp", ".dib", ".gif", ".j2c", ".j2k", ".jfif", ".jp2", ".jpc",
    ".jpe", ".jpeg", ".jpf", ".jpg", ".jpx", ".pbm", ".pfm", ".pgm", ".png", ".pnm", ".ppm",
    ".tif", ".tiff", ".webp",
}
# fmt: on
TIFF_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# Tags of EXIF and TIFF
BITS_PER_SAMPLE, PHOTOMETRIC, ORIENTATION = 258, 262, 274
TRANSPOSED = (5, 6, 7, 8)  # the values of the orientation that swap width and height
# A file that states an orientation contains one of these marks, or XMP with an orientation. OpenCV
# reads only EXIF in JPEG, PNG and WebP. It ignores the rotation and mirror properties of AVIF, EXIF
# as text in PNG, and XMP.
EXIF_MARKS = (b"Exif\0", b"eXIf", b"EXIF")
OTHER_MARKS = (b"irot", b"imir", b"Raw profile type exif", b"XML:com.adobe.xmp\0\1")
XMP_ORIENTATION = re.compile(rb'tiff:Orientation(?:="|>)[2-8]')
# Width, height and the largest value in the header of a PGM or PPM
PNM_HEADER = re.compile(rb"P[2356]" + rb"(?:\s|#[^\n]*\n)+(\d{1,9})" * 3)
# The formats that some builds of OpenCV do not decode: how a file starts, the suffix, and the first
# version of opencv-python that decodes the format
OPTIONAL_FORMATS = {
    "GIF": (rb"GIF8", ".gif", "4.12"),
    "AVIF": (rb".{4}ftyp(.{4}){0,8}avi[fs]", ".avif", "4.12"),
    "JPEG 2000": (rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51", ".jp2", "4.8"),
    "WebP": (rb"RIFF.{4}WEBP", ".webp", "4.8"),
    "HEIC": (rb".{4}ftyp(hei|hev|mif|msf)", ".heic", None),
    "JPEG XL": (rb"\xff\x0a|\0\0\0\x0cJXL ", ".jxl", None),
}


class ImageFileError(MixDetError):
    """An image file is missing, damaged, not an image, or over a limit."""


def decode(
    content: bytes, name: str | os.PathLike = "the image", flag: int = cv2.IMREAD_COLOR
) -> np.ndarray | None:
    """Decode an image file. The image is upright, as Pillow's `exif_transpose` turns it.

    Pixels of more than 8 bits keep their upper 8 bits. Transparency is dropped.

    Args:
        content: The bytes of the file.
        name: Name of the image for the error message.
        flag: OpenCV's flag: `cv2.IMREAD_COLOR`, `cv2.IMREAD_GRAYSCALE` or a reduced variant.

    Returns:
        (H, W, 3) uint8, BGR, or (H, W) for a grayscale flag. None if OpenCV cannot decode the file.

    Raises:
        ImageFileError: The pixels have an unsupported type. Or reading the orientation needs
            Pillow, which is not installed.
    """
    if not content:
        return None
    try:
        if content.startswith(TIFF_SIGNATURES):
            _refuse_tiff_pixel_type(content, name)
        orientation = orientation_of(content)
        flag |= cv2.IMREAD_IGNORE_ORIENTATION
    except ImportError:  # exported folders run without Pillow: OpenCV applies EXIF orientations
        metadata = _metadata(content)
        only_by_xmp = _is_turned_by_xmp(metadata) and not _has_mark(metadata, EXIF_MARKS)
        if _has_mark(metadata, OTHER_MARKS) or only_by_xmp:
            raise ImageFileError(
                f"{name}: reading the orientation of this image needs Pillow: pip install pillow"
            ) from None
        orientation = 1
    header = PNM_HEADER.match(content)
    max_value = int(header[3]) if header else 255
    pixels = np.frombuffer(content, np.uint8)
    if max_value in (255, 65535):
        image = cv2.imdecode(pixels, flag)
    else:
        image = _decode_pnm(pixels, flag, max_value)
    return None if image is None else _turn(image, orientation)


def missing_decoder(content: bytes) -> str | None:
    """Say which decoder this OpenCV lacks for an image file, and the remedy. Otherwise return None.

    Args:
        content: The bytes of the file, or only the first ones.
    """
    for name, (start, suffix, version) in OPTIONAL_FORMATS.items():
        # OpenCV can test for a decoder on files only. A build has encoder and decoder, or neither
        if re.match(start, content, re.DOTALL) and not cv2.haveImageWriter(f"image{suffix}"):
            newer = f"install opencv-python>={version}, or " if version else ""
            return f"OpenCV {cv2.__version__} does not decode {name}: {newer}convert it to PNG"
    return None


def _decode_pnm(pixels: np.ndarray, flag: int, max_value: int) -> np.ndarray | None:
    """Decode a PGM or PPM whose largest value is neither 255 nor 65535.

    OpenCV does not scale such values, so the image would be dark.
    """
    image = cv2.imdecode(pixels, flag | cv2.IMREAD_ANYDEPTH)
    if image is None or max_value == 0:
        return None
    full = 255 if image.dtype == np.uint8 else 65535
    image = np.rint(image * (full / max_value)).clip(0, full).astype(image.dtype)
    return image if full == 255 else (image >> 8).astype(np.uint8)


_warning_filters = threading.Lock()


def _after_fork_in_child() -> None:
    global _warning_filters  # a thread that does not exist in the child may hold the lock
    _warning_filters = threading.Lock()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_after_fork_in_child)


@contextmanager
def _pillow_warnings_ignored() -> Iterator[None]:
    """Ignore Pillow's warnings about many pixels and about metadata.

    The filters of warnings belong to the process. If two threads change and restore them at the
    same time, the wrong ones may remain.
    """
    with _warning_filters, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _refuse_tiff_pixel_type(content: bytes, name: str | os.PathLike) -> None:
    from PIL import Image, UnidentifiedImageError

    try:
        with _pillow_warnings_ignored():
            image = Image.open(io.BytesIO(content), formats=("TIFF",))
    except (UnidentifiedImageError, Image.DecompressionBombError):
        return  # OpenCV decides whether the file can be decoded
    refuse_pixel_type(image, name)


def refuse_pixel_type(image: Any, name: str | os.PathLike) -> None:
    """Refuse a PIL image whose range of values is unknown: signed, of 32 bits, or float."""
    # In a PNG or PPM, mode I means 16 bits.
    is_deep_integer = image.mode == "I" and image.format not in ("PNG", "PPM")
    bits = getattr(image, "tag_v2", {}).get(BITS_PER_SAMPLE)
    is_packed = image.mode.startswith("I;16") and bits not in (None, (16,))
    if image.mode == "F" or is_deep_integer or is_packed:
        raise ImageFileError(
            f"{name}: pixels of Pillow's mode {image.mode}"
            f"{f' with {bits[0]} bits' if is_packed else ''} have no known range of values: "
            "convert them to 8 bits, or to unsigned 16 bits"
        )


def orientation_of(content: bytes) -> int:
    """Return the orientation of an image file, from 1 to 8 as in EXIF.

    The orientation is the one that Pillow's `exif_transpose` applies. It is 1 for a TIFF, since
    Pillow and OpenCV both turn a TIFF when they decode it. Damaged EXIF data count as 1.

    Raises:
        ImportError: Pillow is needed and not installed.
    """
    if content.startswith(TIFF_SIGNATURES):
        return 1
    metadata = _metadata(content)
    if not _has_mark(metadata, EXIF_MARKS + OTHER_MARKS) and not _is_turned_by_xmp(metadata):
        return 1
    from PIL import Image

    try:
        with _pillow_warnings_ignored():
            image = Image.open(io.BytesIO(content), formats=IMAGE_FORMATS)
            value = image.getexif().get(ORIENTATION)  # this may decode the image of a PNG
    except Exception:  # damaged data raise various errors
        return 1
    return int(value) if value in range(1, 9) else 1


def _has_mark(content: bytes, marks: tuple[bytes, ...]) -> bool:
    return any(mark in content for mark in marks)


def _is_turned_by_xmp(content: bytes) -> bool:
    # `in` comes first, since it takes less time than the regular expression
    return b"tiff:Orientation" in content and bool(XMP_ORIENTATION.search(content))


def _metadata(content: bytes) -> bytes:
    """Return the part of a file that can hold metadata: for a JPEG, the part before the pixels."""
    if not content.startswith(b"\xff\xd8"):
        return content
    position = 2
    # A segment consists of a marker (2 bytes), its length without the marker (2) and data
    while content[position : position + 1] == b"\xff" and content[position + 1] != 0xDA:
        position += 2 + int.from_bytes(content[position + 2 : position + 4], "big")
    return content[:position] if content[position : position + 2] == b"\xff\xda" else content


def _turn(image: np.ndarray, orientation: int) -> np.ndarray:
    """Turn an image (H, W) or (H, W, C) upright."""
    if orientation in (2, 3, 4):
        return cv2.flip(image, {2: 1, 3: -1, 4: 0}[orientation])
    if orientation in TRANSPOSED:  # the image is transposed, then flipped
        image = cv2.transpose(image)
        return image if orientation == 5 else cv2.flip(image, {6: 1, 7: -1, 8: 0}[orientation])
    return image


def as_rgb(image: Any) -> np.ndarray:
    """Convert an image to an array (H, W, 3) uint8, RGB. Transparency is dropped, as in training.

    Args:
        image: The path of a file, the bytes of a file, a PIL image, or a uint8 array of shape
            (H, W), (H, W, 1), (H, W, 3) RGB or (H, W, 4) RGBA. A file is turned upright, as
            `decode` turns it. An array or PIL image is not turned, so predicted boxes are in pixels
            of the given image. (A TIFF that Pillow opened is already upright.) A PIL image of 16
            bits gives the same array as its file.

    Raises:
        MixDetError: The file is not an image, or the array or PIL image has an unsupported shape or
            type.
    """
    if isinstance(image, str | os.PathLike):
        return _read(Path(image))
    if isinstance(image, bytes | bytearray):
        return _decode_rgb(bytes(image), "these bytes")
    # Only a PIL image has `convert`; the check needs no import of PIL
    array = _pil_to_array(image) if hasattr(image, "convert") else np.asarray(image)
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


def _pil_to_array(image: Any) -> np.ndarray:
    """Return the pixels of a PIL image as uint8, (H, W) or (H, W, 3)."""
    refuse_pixel_type(image, "the PIL image")
    try:
        _load_unmapped(image)
        if image.mode.startswith("I"):  # 16 bits. Pillow's own conversion turns them white
            values = np.asarray(image)
            if getattr(image, "tag_v2", {}).get(PHOTOMETRIC) == 0:  # a TIFF in which 0 is white
                values = 65535 - values
            return (values >> 8).astype(np.uint8)
        if image.mode in ("RGBa", "La"):  # Pillow cannot convert these directly to RGB
            image = image.convert(image.mode.upper())
        return np.asarray(image.convert("RGB"))
    except Exception as error:  # Pillow decodes here, and damaged data raise various errors
        raise MixDetError(
            f"the PIL image of mode {image.mode} cannot be read ({one_line(error)})"
        ) from error


def _load_unmapped(image: Any) -> None:
    """Load a turned TIFF without memory mapping.

    Pillow maps an uncompressed gray TIFF that was opened by its path. If the orientation swaps
    width and height, Pillow takes the turned width for the length of a row, which mixes up the
    pixels. Pillow does not map an image without a file name, so the name is removed meanwhile.
    """
    if image.format == "TIFF" and image.tag_v2.get(ORIENTATION) in TRANSPOSED:
        filename, image.filename = image.filename, ""
        try:
            image.load()
        finally:
            image.filename = filename


def _read(path: Path) -> np.ndarray:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise MixDetError(f"cannot read {path}: {error.strerror}") from error
    return _decode_rgb(content, path)


def _decode_rgb(content: bytes, name: str | os.PathLike) -> np.ndarray:
    try:
        bgr = decode(content, name)
    except cv2.error as error:
        raise MixDetError(f"cannot read {name} as an image: {error.err}") from error
    if bgr is None:
        reason = missing_decoder(content) or "it is damaged, or another kind of file"
        raise MixDetError(f"cannot read {name} as an image: {reason}")
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
