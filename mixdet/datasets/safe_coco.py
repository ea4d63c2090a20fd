"""A COCO data set that checks file names and images before it uses them."""

from __future__ import annotations

import contextlib
import io
import logging
from pathlib import PurePath
from typing import Any

import torch
from mmdet.datasets import CocoDataset
from mmdet.datasets.api_wrappers import COCO
from mmdet.registry import DATASETS
from mmengine.logging import print_log

from mixdet.annotations import read_annotations
from mixdet.datasets.samplers import SampleIndex
from mixdet.datasets.transforms.seed import seed_generators
from mixdet.errors import MixDetError, one_line
from mixdet.images import (
    ImageFileError,
    ImageLimits,
    as_rgb,
    read_image_file,
    refuse_foreign_name,
    resolve_inside,
)


class NormalizedCOCO(COCO):
    """mmdet's `COCO` for an annotation file, after `read_annotations` has normalized the file.

    Args:
        annotation_file: The annotation file.
    """

    def __init__(self, annotation_file: str) -> None:
        super().__init__()
        self.dataset = read_annotations(annotation_file)
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints
            self.createIndex()
        self.img_ann_map, self.cat_img_map = self.imgToAnns, self.catToImgs


@DATASETS.register_module()
class SafeCocoDataset(CocoDataset):
    """A `CocoDataset` that opens no image outside its folder and can tolerate broken images.

    - Missing and unusual fields of annotations are normalized: see `mixdet.annotations`.
    - A `file_name` is refused if it is absolute, is a URL, contains `..`, or leads out of the image
      folder through a link.
    - The size and the header of an image are checked against limits before it is decoded.
    - In training, a broken image is logged and replaced by another image, which is drawn with the
      seed of the run. Each process of a distributed run counts the broken images of its own
      workers.
    - In evaluation, a broken image ends the run.

    If `backend_args` is given or the image folder is a URL, only the file names are checked.

    Args:
        max_broken: Largest allowed fraction of broken images in training. The default, 0, stops
            the run at the first broken image.
        max_bytes: Largest size of an image file in bytes.
        max_pixels: Largest number of pixels of an image, width times height.
        **kwargs: Arguments of `CocoDataset`.

    Raises:
        MixDetError: The annotations cannot be used, or name images outside the folder.
    """

    COCOAPI = NormalizedCOCO

    def __init__(
        self,
        *args,
        max_broken: float = 0.0,
        max_bytes: int = ImageLimits.max_bytes,
        max_pixels: int = ImageLimits.max_pixels,
        **kwargs,
    ) -> None:
        self.max_broken = max_broken
        self.limits = ImageLimits(max_bytes, max_pixels)
        super().__init__(*args, **kwargs)

    def full_init(self) -> None:
        """Read the annotation file."""
        try:
            super().full_init()
        except (MixDetError, OSError):
            raise
        except Exception as error:  # invalid values raise all kinds of errors
            raise MixDetError(
                f"{self.ann_file} cannot be used as a COCO annotation file ({one_line(error)}): "
                "tools/check_data.py shows what is wrong"
            ) from error
        if not hasattr(self, "_broken"):
            # One byte per image, in memory that the workers share. The workers only set bytes to 1,
            # so they need no lock, and an image counts once even if several workers find it broken.
            self._broken = torch.zeros(len(self), dtype=torch.uint8).share_memory_()

    def parse_data_info(self, raw_data_info: dict) -> dict:
        """Return the annotations of an image.

        Raises:
            MixDetError: The file name leads out of the image folder.
        """
        name = raw_data_info["raw_img_info"]["file_name"]
        refuse_foreign_name(name, self.data_prefix["img"])
        info = super().parse_data_info(raw_data_info)
        for instance in info["instances"]:
            instance["bbox"] = [float(value) for value in instance["bbox"]]
        return info

    def prepare_data(self, idx: int) -> Any:
        """Run the pipeline on an image. In training another image replaces a broken image.

        Raises:
            MixDetError: In evaluation, the image is broken. In training, too many are broken.
        """
        while True:
            try:
                return self._prepare(idx)
            except ImageFileError as error:
                if self.test_mode:
                    raise
                self._count_broken(int(idx), error)
            key = getattr(idx, "key", None)
            if key is None:  # the sampler is not a SeededSampler
                idx = self._rand_another()
            else:
                seed_generators("replacement", *key)
                idx = SampleIndex(self._rand_another(), (*key, int(idx)))

    def _prepare(self, idx: int) -> Any:
        info = self.get_data_info(idx)
        root = self.data_prefix["img"]
        if self.backend_args is not None or "://" in root:
            return self.pipeline(info)
        path = PurePath(info["img_path"])
        info["img_path"] = str(path)  # without the slash of a name like `1.png/`
        read_image_file(resolve_inside(root, str(path.relative_to(root))), self.limits)
        try:
            return self.pipeline(info)
        except Exception as error:
            try:  # find out whether the image caused the error
                as_rgb(path)
            except MixDetError as cause:
                raise ImageFileError(f"{path}: the image is damaged ({one_line(error)})") from cause
            raise

    def _count_broken(self, index: int, error: ImageFileError) -> None:
        """Count a broken image, and log it the first time.

        Raises:
            MixDetError: More images are broken than `max_broken` allows.
        """
        is_known = bool(self._broken[index])
        self._broken[index] = 1
        count = int(self._broken.sum())
        summary = f"{count} of {len(self)} training images are broken"
        if count > self.max_broken * len(self) or count == len(self):
            raise MixDetError(
                f"{error}; {summary}, and the limit is max_broken={self.max_broken:g}: repair or "
                "remove the images that tools/check_data.py lists"
            ) from error
        if not is_known:
            message = f"{error}; another image replaces it: {summary}"
            # Not a warning, since only rank 0 logs warnings.
            print_log(message, logger="current", level=logging.ERROR)
