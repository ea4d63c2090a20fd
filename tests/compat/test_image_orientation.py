"""With MixDet's fix, mmcv's `imfrombytes` turns AVIF images upright. Other images do not change."""

from __future__ import annotations

import io

import mmcv
import numpy as np
import pytest
from mmcv.image import io as mmcv_io
from PIL import Image

from mixdet.compat import image_orientation

ORIGINAL = mmcv_io.imfrombytes.__wrapped__


def encoded(kind: str, orientation: int = 1) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 255, (12, 20, 3), dtype=np.uint8)
    exif, file = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(file, kind, exif=exif)
    return file.getvalue()


def test_mmcvs_function_without_the_fix_does_not_turn_an_avif():
    """If this test fails, OpenCV turns AVIF images itself, and the fix can be removed."""
    content = encoded("AVIF", 6)
    assert ORIGINAL(content).shape == (12, 20, 3)
    assert mmcv.imfrombytes(content).shape == (20, 12, 3)
    assert mmcv.imfrombytes(content, "grayscale").shape == (20, 12)


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"channel_order": "rgb"},
        {"flag": "grayscale"},
        {"flag": "unchanged"},
        {"flag": "color_ignore_orientation"},
        {"backend": "pillow"},
    ],
)
def test_images_that_opencv_turns_are_read_as_before(orientation, options):
    content = encoded("PNG", orientation)
    expected = ORIGINAL(content, **options)
    assert np.array_equal(mmcv.imfrombytes(content, **options), expected)
    assert np.array_equal(mmcv.imfrombytes(memoryview(content), **options), expected)


def test_installing_again_changes_nothing():
    current = mmcv.imfrombytes
    image_orientation.install()
    assert mmcv.imfrombytes is mmcv_io.imfrombytes is current
