"""`as_rgb` converts files, arrays and PIL images to RGB arrays."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from PIL import Image

from mixdet.errors import MixDetError
from mixdet.images import (
    ImageLimits,
    as_rgb,
    missing_decoder,
    read_image_file,
    refuse_foreign_name,
)
from mixdet.inference.predict import predict_files
from tests.spots import BrightSpot


def test_files_of_every_kind_are_read_as_rgb(tmp_path, photograph):
    image = photograph
    pil = Image.fromarray(image)
    pil.save(tmp_path / "rgb.png")
    assert np.array_equal(as_rgb(tmp_path / "rgb.png"), image)
    assert np.array_equal(as_rgb(str(tmp_path / "rgb.png")), image)
    rgba = np.dstack([image, np.full(image.shape[:2], 7, np.uint8)])
    Image.fromarray(rgba).save(tmp_path / "alpha.png")
    assert np.array_equal(as_rgb(tmp_path / "alpha.png"), image)
    gray = np.asarray(pil.convert("L"))
    Image.fromarray(gray).save(tmp_path / "gray.png")
    assert np.array_equal(as_rgb(tmp_path / "gray.png"), np.dstack([gray] * 3))
    deep = gray.astype(np.uint16) * 257
    cv2.imwrite(str(tmp_path / "deep.png"), deep)
    assert np.array_equal(as_rgb(tmp_path / "deep.png"), np.dstack([gray] * 3))
    pil.quantize(16).save(tmp_path / "palette.png")
    assert np.array_equal(
        as_rgb(tmp_path / "palette.png"), np.asarray(pil.quantize(16).convert("RGB"))
    )
    pil.crop((0, 0, 1, 1)).save(tmp_path / "pixel.png")
    assert np.array_equal(as_rgb(tmp_path / "pixel.png"), image[:1, :1])


def test_a_file_with_an_exif_orientation_is_read_upright(tmp_path, photograph):
    image = photograph
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: viewers turn the image a quarter turn clockwise
    Image.fromarray(image).save(tmp_path / "turned.png", exif=exif)
    Image.fromarray(image).save(tmp_path / "turned.jpg", exif=exif, quality=95)
    upright = np.rot90(image, -1)
    assert as_rgb(tmp_path / "turned.jpg").shape == upright.shape
    assert np.abs(as_rgb(tmp_path / "turned.jpg").astype(int) - upright).mean() < 5


def test_arrays_and_pil_images_become_rgb(photograph):
    image = photograph
    assert np.array_equal(as_rgb(image), image)
    assert np.array_equal(as_rgb(Image.fromarray(image)), image)
    gray = image[..., 0]
    for array in (gray, gray[..., None], Image.fromarray(gray)):
        assert np.array_equal(as_rgb(array), np.dstack([gray] * 3))
    rgba = np.dstack([image, gray])
    for array in (rgba, Image.fromarray(rgba)):
        assert np.array_equal(as_rgb(array), image)


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (np.zeros((4, 4, 3)), "float64"),
        (np.zeros((2, 4, 4, 3), np.uint8), r"\(2, 4, 4, 3\)"),
        (np.zeros((4, 4, 2), np.uint8), r"\(4, 4, 2\)"),
        (np.zeros((0, 4, 3), np.uint8), "without pixels"),
        ("nowhere.jpg", r"nowhere\.jpg"),
    ],
)
def test_arrays_that_are_no_image_and_missing_files_are_refused(image, words):
    with pytest.raises(MixDetError, match=words):
        as_rgb(image)


@pytest.mark.parametrize("content", [b"", b"hello", b"\xff\xd8\xff\xe0 no jpeg"])
def test_a_file_that_is_no_image_and_a_folder_are_refused_by_name(tmp_path, content):
    (tmp_path / "odd.jpg").write_bytes(content)
    with pytest.raises(MixDetError, match=r"odd\.jpg"):
        as_rgb(tmp_path / "odd.jpg")
    with pytest.raises(MixDetError, match=tmp_path.name):
        as_rgb(tmp_path)


@pytest.mark.parametrize(
    "name", ["/a.jpg", "../a.jpg", "a/../../b.jpg", "s3://a/b.jpg", "", 7, "a\0b"]
)
def test_a_name_that_leads_out_of_the_image_folder_is_refused(name):
    with pytest.raises(MixDetError, match="give a path relative to this folder"):
        refuse_foreign_name(name, "images")
    refuse_foreign_name("sub/é..jpg", "images")


@pytest.mark.parametrize("kind", ["GIF", "AVIF"])
def test_a_format_that_an_older_opencv_lacks_is_named_with_a_remedy(
    tmp_path, photograph, monkeypatch, kind
):
    """The wheels of OpenCV 4.11 and older return None for such a file."""
    path = tmp_path / f"photo.{kind.lower()}"
    Image.fromarray(photograph).save(path)
    assert as_rgb(path).shape == photograph.shape
    monkeypatch.setattr(cv2, "imdecode", lambda *_: None)
    monkeypatch.setattr(cv2, "haveImageWriter", lambda name: not name.endswith(path.suffix))
    remedy = rf"does not decode {kind}: install opencv-python>=4\.12, or convert it to PNG"
    with pytest.raises(MixDetError, match=remedy):
        as_rgb(path)
    with pytest.raises(MixDetError, match=remedy):
        read_image_file(path, ImageLimits())
    Image.fromarray(photograph).save(path.with_suffix(".png"))
    with pytest.raises(MixDetError, match="it is damaged, or another kind of file"):
        as_rgb(path.with_suffix(".png"))


@pytest.mark.parametrize(
    ("kind", "start"),
    [
        ("HEIC", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"),
        ("HEIC", b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic"),
        ("JPEG XL", b"\0\0\0\x0cJXL \r\n\x87\n"),
    ],
)
def test_a_format_that_no_opencv_decodes_is_named(tmp_path, kind, start):
    path = tmp_path / "photo.heic"
    path.write_bytes(start + bytes(100))
    remedy = f"does not decode {kind}: convert it to PNG"
    assert remedy in missing_decoder(path.read_bytes())
    with pytest.raises(MixDetError, match=remedy):
        as_rgb(path)
    with pytest.raises(MixDetError, match=remedy):
        read_image_file(path, ImageLimits())
    with pytest.raises(MixDetError, match=remedy):
        predict_files(BrightSpot(), [path], tmp_path / "out")
