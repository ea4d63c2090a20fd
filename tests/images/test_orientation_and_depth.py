"""Every reader gives the same upright image of 8 bits, for each format, bit depth and orientation.

The expected images are turned with NumPy. Pillow's `exif_transpose` has to give the same images.
"""

from __future__ import annotations

import io
import struct
import sys
import zlib
from collections.abc import Callable

import cv2
import mmcv
import numpy as np
import pytest
from mmdet.registry import TRANSFORMS
from PIL import Image, ImageOps, PngImagePlugin

from mixdet.datasets.transforms import SSDRandomCrop
from mixdet.errors import MixDetError
from mixdet.images import ImageFileError, ImageLimits, as_rgb, decode, decode_fully, read_image_file

HEIGHT, WIDTH = 48, 64
TURNS: dict[int, Callable] = {
    1: lambda image: image,
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.swapaxes(0, 1),
    6: lambda image: np.rot90(image, -1),
    7: lambda image: np.rot90(image, 2).swapaxes(0, 1),
    8: lambda image: np.rot90(image),
}


def scene(gray: bool = False) -> np.ndarray:
    """A smooth image without any symmetry, (H, W, 3) or (H, W) uint8."""
    rng = np.random.default_rng(0)
    image = cv2.resize(rng.integers(20, 236, (3, 4, 3), dtype=np.uint8), (WIDTH, HEIGHT))
    return image[..., 0].copy() if gray else image


def exif(orientation: int) -> Image.Exif:
    data = Image.Exif()
    data[0x0112] = orientation
    return data


def xmp(orientation: int) -> bytes:
    return (
        b'<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
        b'<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description '
        b'xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="%d"/></rdf:RDF></x:xmpmeta>'
        b'<?xpacket end="w"?>' % orientation
    )


def saved(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def with_exif(kind: str, gray: bool = False, depth: int = 8, **options) -> Callable:
    """Return a function that takes an orientation and returns a file written by Pillow."""
    array = scene(gray)
    image = Image.fromarray(array if depth == 8 else array.astype(np.uint16) * 257)
    return lambda orientation: saved(image, kind, exif=exif(orientation), **options)


def with_xmp(kind: str, **options) -> Callable:
    return lambda value: saved(Image.fromarray(scene()), kind, xmp=xmp(value), **options)


def with_chunk(png: bytes, orientation: int, late: bool) -> bytes:
    """Add an eXIf chunk before or after the pixels of a PNG."""
    body = b"eXIf" + exif(orientation).tobytes().removeprefix(b"Exif\0\0")
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    position = png.index(b"IEND" if late else b"IDAT") - 4
    return png[:position] + chunk + png[position:]


def late_exif(orientation: int) -> bytes:
    return with_chunk(saved(Image.fromarray(scene()), "PNG"), orientation, late=True)


def color_16_bits(orientation: int) -> bytes:
    png = encoded(".png", scene()[..., ::-1].astype(np.uint16) * 257)
    return with_chunk(png, orientation, late=False)


def text_in_png(keyword: str, text: Callable[[int], str], zipped: bool) -> Callable:
    def write(orientation: int) -> bytes:
        info = PngImagePlugin.PngInfo()
        add = info.add_itxt if keyword.startswith("XML") else info.add_text
        add(keyword, text(orientation), zip=zipped)
        return saved(Image.fromarray(scene()), "PNG", pnginfo=info)

    return write


def raw_profile(orientation: int) -> str:
    body = exif(orientation).tobytes()
    return f"\nexif\n{len(body):8d}\n{body.hex()}\n"


def animated(kind: str, **options) -> Callable:
    frames = {"save_all": True, "append_images": [Image.fromarray(255 - scene())]}
    return with_exif(kind, **frames, **options)


LOSSY = 4.0  # largest mean difference of a lossy file
# (function from an orientation to a file, whether the file is gray, largest mean difference)
TURNED_FILES = {
    "jpeg": (with_exif("JPEG", quality=98), False, LOSSY),
    "jpeg-gray": (with_exif("JPEG", gray=True, quality=98), True, LOSSY),
    "jpeg-xmp": (with_xmp("JPEG", quality=98), False, LOSSY),
    "mpo": (animated("MPO", quality=98), False, LOSSY),
    "png": (with_exif("PNG"), False, 0),
    "png-gray-16": (with_exif("PNG", gray=True, depth=16), True, 0),
    "png-color-16": (color_16_bits, False, 0),
    "png-late": (late_exif, False, 0),
    "png-xmp": (text_in_png("XML:com.adobe.xmp", lambda o: xmp(o).decode(), False), False, 0),
    "png-xmp-zip": (text_in_png("XML:com.adobe.xmp", lambda o: xmp(o).decode(), True), False, 0),
    "png-text": (text_in_png("Raw profile type exif", raw_profile, True), False, 0),
    "png-animated": (animated("PNG"), False, 0),
    "tiff": (with_exif("TIFF"), False, 0),
    "tiff-lzw": (with_exif("TIFF", compression="tiff_lzw"), False, 0),
    "tiff-gray": (with_exif("TIFF", gray=True), True, 0),
    "tiff-gray-16": (with_exif("TIFF", gray=True, depth=16), True, 0),
    "webp": (with_exif("WEBP", lossless=True), False, 0),
    "webp-xmp": (with_xmp("WEBP", lossless=True), False, 0),
    "webp-animated": (animated("WEBP", lossless=True), False, 0),
    "avif": (with_exif("AVIF", quality=98, speed=10), False, LOSSY),
    "avif-xmp": (with_xmp("AVIF", quality=98, speed=10), False, LOSSY),
}


def assert_every_reader_gives(content: bytes, expected: np.ndarray, tolerance: float, path) -> None:
    path.write_bytes(content)
    height, width = expected.shape[:2]
    shown = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
    assert shown.size == (width, height)
    assert read_image_file(path, ImageLimits())[1] == (width, height)
    assert decode_fully(path, content).shape == (height, width, 3)
    load = TRANSFORMS.build(dict(type="LoadImageFromFile"))
    crop = SSDRandomCrop(
        (width, height), expand_ratio=None, min_ious=(), min_crop_size=1.0, flip_prob=0.0
    )
    stated = dict(height=HEIGHT, width=WIDTH, instances=[])
    arrays = {
        "path": as_rgb(path),
        "bytes": as_rgb(content),
        # exif_transpose returns a copy. Its copy of a 16-bit PGM does not have the range of values
        "PIL": as_rgb(Image.open(io.BytesIO(content)) if shown.mode == "I" else shown),
        "LoadImageFromFile": load(dict(img_path=str(path)))["img"][..., ::-1],
        "SSDRandomCrop": crop(dict(img_path=str(path)))["img"][..., ::-1],
        "SSDRandomCrop, stated size": crop(dict(img_path=str(path), **stated))["img"][..., ::-1],
        "mmcv.imread": mmcv.imread(str(path), channel_order="rgb"),
    }
    if Image.open(path).format == "TIFF":  # Pillow itself turns a TIFF upright
        arrays["PIL by path"] = as_rgb(Image.open(path))
    if shown.mode == "RGB":
        arrays["exif_transpose"] = np.asarray(shown)
    expected = np.dstack([expected] * 3) if expected.ndim == 2 else expected
    for reader, array in arrays.items():
        assert array.dtype == np.uint8, reader
        assert array.shape == expected.shape, reader
        assert np.abs(array.astype(int) - expected).mean() <= tolerance, reader


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("name", TURNED_FILES)
def test_every_reader_turns_a_file_upright(tmp_path, name, orientation):
    write, gray, tolerance = TURNED_FILES[name]
    expected = TURNS[orientation](scene(gray))
    assert_every_reader_gives(write(orientation), expected, tolerance, tmp_path / "image")


def pnm(kind: bytes, array: np.ndarray, max_value: int) -> bytes:
    data = array.astype(">u2" if max_value > 255 else np.uint8).tobytes()
    return b"%s\n# a comment 9 9\n%d %d\n%d\n" % (kind, WIDTH, HEIGHT, max_value) + data


def encoded(suffix: str, array: np.ndarray, options: tuple = ()) -> bytes:
    """Encode an array (BGR or gray) with OpenCV."""
    return cv2.imencode(suffix, array, options)[1].tobytes()


AVIF_OF_10_BITS = (cv2.IMWRITE_AVIF_DEPTH, 10, cv2.IMWRITE_AVIF_QUALITY, 100)
FLAT_FILES = {  # without orientation: (function that returns a file, whether the file is gray)
    "gif": (lambda: saved(Image.fromarray(scene(True)), "GIF"), True),
    "bmp": (lambda: saved(Image.fromarray(scene()), "BMP"), False),
    "ppm": (lambda: pnm(b"P6", scene(), 255), False),
    "ppm-7": (lambda: pnm(b"P6", scene() // 2, 127), False),
    "ppm-16": (lambda: pnm(b"P6", scene().astype(int) * 257, 65535), False),
    "pgm-12": (lambda: pnm(b"P5", np.rint(scene(True) / 255 * 4095), 4095), True),
    "pgm-16": (lambda: pnm(b"P5", scene(True).astype(int) * 257, 65535), True),
    "jpeg2000": (lambda: saved(Image.fromarray(scene()), "JPEG2000"), False),
    "jpeg2000-16": (lambda: encoded(".jp2", scene(True).astype(np.uint16) * 257), True),
    "png-1": (lambda: saved(Image.fromarray(scene(True) > 128), "PNG"), True),
    "avif-10": (
        lambda: encoded(".avif", scene()[..., ::-1].astype(np.uint16) * 4, AVIF_OF_10_BITS),
        False,
    ),
}


@pytest.mark.parametrize("name", FLAT_FILES)
def test_every_reader_gives_the_pixels_of_a_file_without_an_orientation(tmp_path, name):
    write, gray = FLAT_FILES[name]
    expected = (scene(True) > 128) * np.uint8(255) if name == "png-1" else scene(gray)
    assert_every_reader_gives(write(), expected, 2, tmp_path / "image")


@pytest.mark.parametrize("byte_order", "<>")
def test_pil_images_of_16_bits_and_of_other_modes_become_rgb_of_8_bits(byte_order):
    gray, color = scene(True), scene()
    deep = gray.astype(f"{byte_order}u2") * 257
    mode = "I;16" if byte_order == "<" else "I;16B"
    image = Image.frombytes(mode, (WIDTH, HEIGHT), deep.astype(f"{byte_order}u2").tobytes())
    assert np.array_equal(as_rgb(image), np.dstack([gray] * 3))
    for mode in ("RGB", "RGBA", "RGBX", "RGBa"):
        pil = Image.fromarray(np.dstack([color, np.full_like(gray, 255)]))
        assert np.array_equal(as_rgb(pil.convert(mode)), color)
    for mode in ("L", "LA", "P", "PA"):
        pil = Image.fromarray(gray).convert(mode)
        assert np.array_equal(as_rgb(pil), np.dstack([gray] * 3))


def tiff(values: np.ndarray, bits: int, sample_format: int, photometric: int = 1) -> bytes:
    """A gray TIFF without compression."""
    data = values.tobytes()
    tags = {256: WIDTH, 257: HEIGHT, 258: bits, 259: 1, 262: photometric, 273: 0, 277: 1}
    tags |= {278: HEIGHT, 279: len(data), 339: sample_format}
    tags[273] = 14 + 12 * len(tags)
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + struct.pack("<I", 0) + data


def test_a_tiff_of_16_bits_in_which_0_is_white_is_inverted(tmp_path):
    inverted = 65535 - scene(True).astype("<u2") * 257
    content = tiff(inverted, 16, sample_format=1, photometric=0)
    expected = np.dstack([scene(True)] * 3)
    assert np.array_equal(as_rgb(content), expected)
    assert np.array_equal(as_rgb(Image.open(io.BytesIO(content))), expected)


@pytest.mark.parametrize(
    ("values", "bits", "sample_format"),
    [
        (scene(True).astype("<i2") - 100, 16, 2),
        (scene(True).astype("<u4"), 32, 1),
        (scene(True).astype("<f4"), 32, 3),
        (scene(True).astype("<f4") / 255, 32, 3),
    ],
)
def test_a_tiff_whose_range_of_values_is_unknown_is_refused(tmp_path, values, bits, sample_format):
    path = tmp_path / "deep.tif"
    content = tiff(values, bits, sample_format)
    path.write_bytes(content)
    load = TRANSFORMS.build(dict(type="LoadImageFromFile"))
    for read in (
        lambda: as_rgb(path),
        lambda: as_rgb(content),
        lambda: as_rgb(Image.open(path)),
        lambda: read_image_file(path, ImageLimits()),
        lambda: load(dict(img_path=str(path))),
    ):
        with pytest.raises(MixDetError, match="convert them to 8 bits"):
            read()


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (Image.fromarray(scene(True).astype(np.int32)), "mode I "),
        (Image.fromarray(scene(True).astype(np.float32)), "mode F "),
        (Image.new("RGB", (0, 4)), "without pixels"),
    ],
)
def test_pil_images_without_a_range_of_values_are_refused(image, words):
    with pytest.raises(MixDetError, match=words):
        as_rgb(image)


def test_damaged_exif_data_are_ignored(tmp_path):
    path = tmp_path / "image.png"
    path.write_bytes(saved(Image.fromarray(scene()), "PNG", exif=b"Exif\0\0no data at all"))
    assert np.array_equal(as_rgb(path), scene())
    assert read_image_file(path, ImageLimits())[1] == (WIDTH, HEIGHT)


def test_without_pillow_exif_is_applied_and_other_orientations_are_refused(monkeypatch):
    files = {
        name: TURNED_FILES[name][0](6) for name in ("jpeg", "png", "avif", "jpeg-xmp", "png-text")
    }
    upright = TURNED_FILES["avif"][0](1)
    monkeypatch.setitem(sys.modules, "PIL", None)
    assert decode(files["jpeg"]).shape == decode(files["png"]).shape == (WIDTH, HEIGHT, 3)
    assert decode(upright).shape == (HEIGHT, WIDTH, 3)
    for name in ("avif", "jpeg-xmp", "png-text"):
        with pytest.raises(ImageFileError, match="pip install pillow"):
            as_rgb(files[name])
