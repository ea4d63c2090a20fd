"""COCO data that are not taken on trust."""

from __future__ import annotations

import logging
from pathlib import PurePath
from typing import Any

import torch
from mmdet.datasets import CocoDataset
from mmdet.registry import DATASETS
from mmengine.logging import print_log

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


@DATASETS.register_module()
class SafeCocoDataset(CocoDataset):
    """mmdet's `CocoDataset`, which opens nothing outside its folder and survives broken images.

    - A `file_name` that is absolute, an address, has `..` in it, or leads out of the image folder
      over a link is refused.
    - Before an image is decoded its size and its header are held against limits.
    - In training a broken image is named in the log and replaced by another, which the seed
      chooses. Workers count together; each process of a distributed run counts what it reads. In
      evaluation, where nothing can take its place, it ends the run.

    Files behind a `backend_args` or a URL are left to their backend, apart from their names.

    Args:
        max_broken: Share of the images that may be broken; training stops above it, by default at
            the first.
        max_bytes: Largest image file.
        max_pixels: Most pixels of an image, width times height.
        **kwargs: Of `CocoDataset`.

    Raises:
        MixDetError: The annotations cannot be used, or name images outside the folder.
    """

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
        except Exception as error:  # whatever its values raise is the file's fault
            raise MixDetError(
                f"{self.ann_file}: not a COCO annotation file that can be used "
                f"({one_line(error)}): tools/check_data.py says what is wrong"
            ) from error
        if not hasattr(self, "_broken"):
            # a byte an image that every worker writes to: no lock, and none is counted twice
            self._broken = torch.zeros(len(self), dtype=torch.uint8).share_memory_()

    def parse_data_info(self, raw_data_info: dict) -> dict:
        """One image's annotations."""
        name = raw_data_info["raw_img_info"]["file_name"]
        refuse_foreign_name(name, self.data_prefix["img"])
        info = super().parse_data_info(raw_data_info)
        for instance in info["instances"]:
            if not all(abs(side) < 2**31 for side in instance["bbox"]):  # nor is NaN
                raise MixDetError(f"{self.ann_file}: {name} has a box that is not in pixels")
            instance["bbox"] = [float(side) for side in instance["bbox"]]
        return info

    def prepare_data(self, idx: int) -> Any:
        """Run the pipeline on an image, or, in training, on another where it is broken.

        Raises:
            MixDetError: An image of the evaluation is broken, or too many of the training's are.
        """
        while True:
            try:
                return self._prepare(idx)
            except ImageFileError as error:
                if self.test_mode:
                    raise
                self._count(int(idx), error)
            key = getattr(idx, "key", None)
            if key is None:  # no seed to follow
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
        info["img_path"] = str(path)  # opened is what was looked at: `1.png/` is another name
        read_image_file(resolve_inside(root, str(path.relative_to(root))), self.limits)
        try:
            return self.pipeline(info)
        except Exception as error:
            try:  # is it the image's fault?
                as_rgb(path)
            except MixDetError as fault:
                raise ImageFileError(f"{path}: the image is damaged ({one_line(error)})") from fault
            raise

    def _count(self, index: int, error: ImageFileError) -> None:
        known, self._broken[index] = bool(self._broken[index]), 1
        count = int(self._broken.sum())
        share = f"{count} of {len(self)} training images are broken"
        if count > self.max_broken * len(self) or count == len(self):
            raise MixDetError(
                f"{error}; {share}, over max_broken={self.max_broken:g} of the data set: repair "
                "them or take them out; tools/check_data.py lists them"
            ) from error
        if not known:  # as an error, since ranks other than 0 say nothing less
            words = f"{error}; another takes its place: {share}"
            print_log(words, logger="current", level=logging.ERROR)
