"""A COCO data set that checks file names and images before it uses them."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from mmdet.datasets import CocoDataset
from mmdet.datasets.api_wrappers import COCO
from mmdet.registry import DATASETS
from mmengine.dataset import force_full_init
from mmengine.fileio import get_local_path
from mmengine.logging import print_log

from mixdet.annotations.reading import read_annotations, read_table
from mixdet.annotations.table import AnnotationTable
from mixdet.datasets.coco_infos import CocoInfos
from mixdet.datasets.mask_use import uses_masks
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
    """mmdet's `COCO` for an annotation file, with normalized annotations.

    Data sets that change `parse_data_info` or have proposals use this class. It keeps all fields of
    all annotations in memory.

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

    - The annotations are kept in arrays, which take a fifth of the time and a twentieth of the
      memory of mmdet's dicts, and which the workers share. `get_data_info` makes the dict of an
      image from them. Polygons stay in the file until `get_data_info` or a transform needs them.
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

    def load_data_list(self) -> list[dict] | CocoInfos:
        """Read the annotation file.

        Raises:
            MixDetError: The file cannot be used, or a file name leads out of the image folder.
        """
        own = type(self).parse_data_info, type(self).COCOAPI
        is_changed = own != (SafeCocoDataset.parse_data_info, NormalizedCOCO)
        if is_changed or self.proposal_file is not None:  # mmdet adds proposals to the dicts
            return super().load_data_list()
        with get_local_path(self.ann_file, backend_args=self.backend_args) as path:
            table = read_table(path, self.ann_file, temporary=path != self.ann_file)
        _refuse_unnamed_categories(table)
        categories = COCO()
        categories.dataset = {"categories": table.categories}
        self.cat_ids = categories.get_cat_ids(cat_names=self.metainfo["classes"])
        self.cat2label = {number: label for label, number in enumerate(self.cat_ids)}
        for index, name in enumerate(table.images.names):
            try:
                refuse_foreign_name(name, self.data_prefix["img"])
            except MixDetError as error:
                raise MixDetError(f"images[{index}].{error} ({self.ann_file})") from error
        more = {}
        if self.return_classes:
            more["text"] = self.metainfo["classes"]
            more["caption_prompt"] = self.caption_prompt
            more["custom_entities"] = True
        return CocoInfos(table, self.cat2label, self.data_prefix, self.seg_map_suffix, more)

    def parse_data_info(self, raw_data_info: dict) -> dict:
        """Return the annotations of an image. Only subclasses that change this method call it.

        Raises:
            MixDetError: The file name leads out of the image folder.
        """
        name = raw_data_info["raw_img_info"]["file_name"]
        refuse_foreign_name(name, self.data_prefix["img"])
        info = super().parse_data_info(raw_data_info)
        for instance in info["instances"]:
            instance["bbox"] = [float(value) for value in instance["bbox"]]
        return info

    def filter_data(self) -> list[dict] | CocoInfos:
        """Leave out images as mmdet does, by `filter_empty_gt` and `min_size` of `filter_cfg`."""
        infos, settings = self.data_list, self.filter_cfg
        if self.test_mode or settings is None:
            return infos
        if not isinstance(infos, CocoInfos):
            return super().filter_data()
        used = infos.sizes.min(1) >= settings.get("min_size", 0)
        if settings.get("filter_empty_gt", False):
            used &= infos.with_objects
        return infos.select(np.flatnonzero(used))

    @force_full_init
    def get_data_info(self, idx: int, masks: bool = True) -> dict:
        """Return the annotations of an image, as mmdet's `CocoDataset` does.

        Args:
            idx: The index of the image.
            masks: Whether to read the polygons, which stay in the annotation file.
        """
        if not isinstance(self.data_list, CocoInfos):
            return super().get_data_info(idx)
        info = self.data_list.info(idx, masks)
        info["sample_idx"] = idx if idx >= 0 else len(self) + idx
        return info

    @force_full_init
    def get_cat_ids(self, idx: int) -> list[int]:
        """Return the labels of the boxes of an image."""
        if isinstance(self.data_list, CocoInfos):
            return self.data_list.labels(idx)
        return super().get_cat_ids(idx)

    def _serialize_data(self) -> tuple[np.ndarray, np.ndarray]:
        if not isinstance(self.data_list, CocoInfos):
            return super()._serialize_data()
        self.serialize_data = False  # workers share the arrays as they are
        return np.zeros(0, np.uint8), np.zeros(0, np.int64)

    def _get_unserialized_subset(self, indices: int | Sequence[int]) -> list[dict] | CocoInfos:
        if isinstance(self.data_list, CocoInfos) and isinstance(indices, Sequence):
            return self.data_list.select(indices)
        return super()._get_unserialized_subset(indices)

    def _copy_without_annotation(self, memo: dict | None = None) -> SafeCocoDataset:
        # By default, mmengine uses one memo for the copies of all data sets. Once a data set is
        # freed, an attribute of another one may have its id, and is then replaced by the data set.
        return super()._copy_without_annotation({} if memo is None else memo)

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
        is_own = type(self).get_data_info is SafeCocoDataset.get_data_info
        options = {"masks": uses_masks(self.pipeline)} if is_own else {}
        info = self.get_data_info(idx, **options)
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


def _refuse_unnamed_categories(table: AnnotationTable) -> None:
    for index, category in enumerate(table.categories):
        for key in ("id", "name"):
            if key not in category:
                fault = f"categories[{index}].{key}: a value expected, got nothing"
                raise MixDetError(f"{fault} ({table.name})")
