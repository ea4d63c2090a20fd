"""Read images, and check image files before they are decoded.

Training, evaluation, the data check, `Detector` and the drawing functions all read images with
`decode`, so they get equal pixels in the same orientation.
"""

from mixdet.images.decoding import (
    IMAGE_SUFFIXES,
    ImageFileError,
    as_rgb,
    decode,
    missing_decoder,
)
from mixdet.images.image_files import (
    ImageLimits,
    decode_fully,
    read_image_file,
    refuse_foreign_name,
    resolve_inside,
)

__all__ = [
    "IMAGE_SUFFIXES",
    "ImageFileError",
    "ImageLimits",
    "as_rgb",
    "decode",
    "decode_fully",
    "missing_decoder",
    "read_image_file",
    "refuse_foreign_name",
    "resolve_inside",
]
