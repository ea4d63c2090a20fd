"""Draw the images of an evaluation into a folder, with true and predicted boxes."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING

from mixdet.images import as_rgb
from mixdet.visual.contact_sheet import draw_sheet_image, read_sheet_images

if TYPE_CHECKING:
    from mixdet.evaluation import ScoredData

MIN_SIDE = 480  # a smaller image is enlarged to this longer side, so that names are readable
SUFFIXES = (".jpg", ".jpeg", ".png")


def draw_images(
    truth: ScoredData,
    image_root: str | os.PathLike,
    results_json: str | os.PathLike,
    folder: str | os.PathLike,
    score_thr: float = 0.3,
) -> int:
    """Draw every image, in the colors of `mixdet.visual.contact_sheet.write_contact_sheet`.

    Args:
        truth: See `mixdet.visual.contact_sheet.read_sheet_images`.
        image_root: See there.
        results_json: See there.
        folder: Folder to write to. A drawing has the path of its image in `image_root`, and `.jpg`
            at its end if the image is neither a JPEG nor a PNG.
        score_thr: Predictions with a lower score are left out.

    Returns:
        The number of images.

    Raises:
        MixDetError: A file cannot be read, or the results do not belong to the annotations.
    """
    items, classes = read_sheet_images(truth, image_root, results_json, len(truth.images))
    for item in items:
        side = max(MIN_SIDE, *as_rgb(item.image).shape[:2])
        file = Path(folder, _inside(item.title))
        file.parent.mkdir(parents=True, exist_ok=True)
        draw_sheet_image(item.above(score_thr), classes, side).save(file, quality=92)
    return len(items)


def _inside(file_name: str) -> PurePosixPath:
    """Return a path that cannot leave the folder: without root, drive, `.` and `..`."""
    parts = PureWindowsPath(file_name).parts  # splits at both kinds of slashes
    names = [part for part in parts if part not in (".", "..") and not part.endswith((":", "\\"))]
    path = PurePosixPath(*names)
    return path if path.suffix.lower() in SUFFIXES else path.with_name(f"{path.name}.jpg")
