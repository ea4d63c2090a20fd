"""Let mmcv read images upright, as viewers show them.

The fault: OpenCV turns an image as EXIF says. But it reads neither the rotation in an AVIF nor an
orientation in XMP, and it does not turn an animated WebP or PNG. OpenCV also reads a PGM image of
12 bits nearly black. mmcv's `imfrombytes` inherits these faults. `LoadImageFromFile` and mmdet's
inferencers and visualization call this function.

The fix: `imfrombytes` decodes color and grayscale images with `mixdet.images.decode`. Calls with
another backend or flag are not changed.

This module can be removed when OpenCV reads all of these images correctly.
"""

from __future__ import annotations

from functools import wraps
from typing import Any

import cv2
import numpy as np

from mixdet.images import decode

FLAGS = {"color": cv2.IMREAD_COLOR, "grayscale": cv2.IMREAD_GRAYSCALE}


def install() -> None:
    """Replace `imfrombytes` where mmcv and mmdet look it up."""
    import mmcv
    from mmcv.image import io

    original = io.imfrombytes
    if getattr(original, "reads_upright", False):
        return

    @wraps(original)
    def imfrombytes(
        content: bytes,
        flag: Any = "color",
        channel_order: str = "bgr",
        backend: str | None = None,
    ) -> np.ndarray:
        cv2_flag = FLAGS.get(flag, flag)
        if (backend or io.imread_backend) != "cv2" or cv2_flag not in FLAGS.values():
            return original(content, flag, channel_order, backend)
        image = decode(bytes(content), flag=cv2_flag)
        if image is not None and image.ndim == 3 and channel_order == "rgb":
            image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        return image

    imfrombytes.reads_upright = True
    for module in (io, mmcv.image, mmcv):
        module.imfrombytes = imfrombytes
