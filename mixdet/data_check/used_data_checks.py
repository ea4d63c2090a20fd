"""Checks of what a run uses: images that are left out, objects to learn from, and full batches."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from inspect import signature
from typing import Any

import numpy as np
from mmdet.datasets.samplers import (
    AspectRatioBatchSampler,
    MultiDataSampler,
    MultiSourceSampler,
)
from mmdet.registry import DATA_SAMPLERS, MODELS, TASK_UTILS
from mmengine.dataset import InfiniteSampler

from mixdet.data_check.data_problems import ERROR, NOTE, WARNING, Example, Problem, problem_list
from mixdet.data_check.data_splits import Split, registered
from mixdet.data_check.used_data import UsedData
from mixdet.models.dense_heads import MixConvSSDHead

# If a larger fraction of the images is left out for having no boxes, this is reported as a warning.
MAX_LEFT_OUT = 0.1
# Why a box is no object, in the order in which the reasons are tried.
REASONS = (
    "in images that are not used",
    "with `ignore`",
    "with `iscrowd`",
    "whose `area` is not above 0",
    "less than a pixel wide or high",
    "outside of their images",
)
OUTSIDE = len(REASONS) - 1
ENDLESS_SAMPLERS = (InfiniteSampler, MultiDataSampler, MultiSourceSampler)


def check_stated_sizes(split: Split) -> list[Problem]:
    """Report images whose stated width or height is not a number above 0.

    mmdet fails if a size is text. If a size is 0, mmdet leaves out every box of the image. Missing
    sizes are not reported here.
    """
    wrong = np.flatnonzero(~(split.images.sizes > 0).all(1)).tolist()
    images = [split.images.entry(index) for index in wrong]
    images = [image for image in images if None not in (image["width"], image["height"])]
    return problem_list(
        "wrong_image_sizes",
        ERROR,
        split.name,
        "images whose `width` or `height` is not a number above 0; write the pixels as numbers, "
        "without quotation marks",
        len(images),
        (
            Example(f"{image['file_name']}: {image['width']!r} x {image['height']!r}")
            for image in images
        ),
    )


def check_left_out(split: Split, used: UsedData) -> list[Problem]:
    """Report the images of an annotation file that the data set leaves out, and why.

    Args:
        split: The content of the annotation file.
        used: The data of a loader that reads the file.
    """
    used_ids, filters = _of_file(split, used)
    left_out = np.flatnonzero([number not in used_ids for number in split.images.ids])
    if not len(left_out):
        return []
    min_size = filters.get("min_size", 0)
    small = split.images.sizes[left_out].min(1) < min_size
    empty = np.zeros(len(left_out), bool)
    if filters.get("filter_empty_gt"):
        empty = ~np.isin(left_out, split.table.image[split.labels >= 0])
    empty &= ~small
    others = len(left_out) - int((small | empty).sum())
    reasons = (
        (int(small.sum()), f"smaller than min_size={min_size} of the data set's filter_cfg"),
        (int(empty.sum()), "without a box of the classes (filter_empty_gt=True in filter_cfg)"),
        (others, "not chosen by the data set's `indices` or by another filter of its class"),
    )
    text = ", ".join(f"{count:,} {reason}" for count, reason in reasons if count)
    if not used.image_count:
        level, remedy = ERROR, "; no image remains: change these settings"
    elif small.any() or empty.sum() > MAX_LEFT_OUT * len(split.images):
        level, remedy = WARNING, "; change these settings if the images are to be used"
    else:
        level, remedy = NOTE, ""
    return problem_list(
        "left_out_images",
        level,
        used.name,
        f"images that are left out, of {len(split.images):,} in the file: {text}{remedy}",
        len(left_out),
        (Example(str(split.images.names[image]), split.path(image)) for image in left_out),
    )


def check_objects(split: Split, used: UsedData) -> list[Problem]:
    """Report classes that have boxes, but no object for training or for evaluation.

    Crowds and ignored boxes do not count as objects. In training, boxes without an area do not
    count either.

    Args:
        split: The content of the annotation file.
        used: The data of a loader that reads the file.
    """
    used_ids, _ = _of_file(split, used)
    with_objects = {name for name, count in used.objects.items() if count and used.is_training}
    reason = _why_no_object(split, used_ids, used.is_training)
    reasons: dict[str, Counter] = {}
    for label, name in enumerate(split.classes):
        of_class = reason[split.labels == label]
        if not len(of_class) or name in with_objects:
            continue
        if not used.is_training and (of_class == OUTSIDE).any():
            with_objects.add(name)
        counts = np.bincount(of_class, minlength=len(REASONS))
        reasons[name] = Counter(
            {text: int(count) for text, count in zip(REASONS, counts, strict=True) if count}
        )
    lost = {name: counts for name, counts in reasons.items() if name not in with_objects}
    purpose = "to learn from" if used.is_training else "to be found"
    if lost and not with_objects:
        total = sum(lost.values(), Counter())
        text = f"no object {purpose}: {_describe(total)}; correct the boxes of real objects"
        level = NOTE if used.name == "test" else ERROR
        return problem_list("no_objects", level, used.name, text, 1)
    return problem_list(
        "classes_without_objects",
        WARNING if used.is_training else NOTE,
        used.name,
        f"classes that have boxes, but no object {purpose}",
        len(lost),
        (Example(f"{name}: {_describe(counts)}") for name, counts in lost.items()),
    )


def check_ignored_boxes(used: UsedData, model: dict) -> list[Problem]:
    """Report ignored boxes and crowds that a detector learns as background.

    `MixConvSSDHead` never does so. For other heads, `ignore_iof_thr` of the assigner decides.

    Args:
        used: The data that the detector is trained on.
        model: The config of the detector.
    """
    head = (model.get("bbox_head") or {}).get("type", object)
    if issubclass(registered(MODELS, head), MixConvSSDHead):
        return []
    keys = list(_thresholds_that_are_off(model.get("train_cfg"), "model.train_cfg"))
    boxes = sum(int(part.ignored.sum()) for part in used.parts)
    text = (
        "crowds and boxes marked `ignore` that the detector learns as background; to leave them "
        f"out, set {' and '.join(keys)} to 0.5"
    )
    return problem_list("ignored_as_background", WARNING, used.name, text, boxes if keys else 0)


def _thresholds_that_are_off(settings: Any, key: str) -> Iterator[str]:
    """Yield the key of each `ignore_iof_thr` of an assigner that is not above 0."""
    if isinstance(settings, dict):
        if "type" in settings:
            arguments = signature(registered(TASK_UTILS, settings["type"]).__init__).parameters
            threshold = arguments.get("ignore_iof_thr")
            if threshold and settings.get("ignore_iof_thr", threshold.default) <= 0:
                yield f"{key}.ignore_iof_thr"
        for name, value in settings.items():
            yield from _thresholds_that_are_off(value, f"{key}.{name}")
    elif isinstance(settings, list | tuple):
        for index, value in enumerate(settings):
            yield from _thresholds_that_are_off(value, f"{key}[{index}]")


def check_batches(used: UsedData, loader: str, settings: dict, processes: int) -> list[Problem]:
    """Report a data loader that yields no batch, or drops images that are to be evaluated.

    Args:
        used: The data that the loader yields.
        loader: The name of the loader.
        settings: The config of the loader.
        processes: The number of processes of the run.
    """
    sampler = registered(
        DATA_SAMPLERS, (settings.get("sampler") or {}).get("type", "DefaultSampler")
    )
    if not used.samples or issubclass(sampler, ENDLESS_SAMPLERS):
        return []
    batch_sampler = settings.get("batch_sampler") or {}
    batch = batch_sampler.get("batch_size") or settings.get("batch_size", 1)
    samples = math.ceil(used.samples / processes)  # every process gets the same number
    limit = settings.get("num_batch_per_epoch")
    if limit and limit * batch * processes > used.samples:
        text = (
            f"{used.samples:,} images cannot fill the {limit:,} batches of {batch} images that "
            f"{loader}.num_batch_per_epoch asks for: set it to {samples // batch}"
        )
        return problem_list("too_few_images", ERROR, used.name, text, 1)
    if not (settings.get("drop_last") or batch_sampler.get("drop_last")):
        return []
    images = f"{samples:,} image{'s' if samples > 1 else ''}"
    images += f" for each of {processes} processes" if processes > 1 else ""
    if batch_sampler and issubclass(
        registered(DATA_SAMPLERS, batch_sampler["type"]), AspectRatioBatchSampler
    ):
        tall = sum(int(part.is_tall.sum()) for part in used.parts)
        samples = max(tall, used.image_count - tall) * samples // used.image_count
        images += f", at most {samples:,} of one orientation"
    if samples < batch:
        text = (
            f"{images} cannot fill a batch of {batch}, and drop_last=True drops a batch that is "
            f"not full: set {loader}.batch_size to {samples}, or {loader}.drop_last to False"
        )
        return problem_list("no_full_batch", ERROR, used.name, text, 1)
    dropped = 0 if used.is_training else samples % batch
    text = f"images that drop_last=True leaves out of the score: set {loader}.drop_last to False"
    return problem_list("dropped_images", WARNING, used.name, text, dropped)


def _of_file(split: Split, used: UsedData) -> tuple[set, dict]:
    """Return the ids of the used images of an annotation file, and the filters of the data set."""
    parts = [part for part in used.parts if part.ann_file == split.ann_file]
    filters = {key: value for part in parts for key, value in part.filters.items()}
    return {image_id for part in parts for image_id in part.image_ids}, filters


def _why_no_object(split: Split, used_ids: set, is_training: bool) -> np.ndarray:
    """Return (n,) the index in `REASONS` of why each annotation is no object.

    If no other reason is known, it is `OUTSIDE`.
    """
    table = split.table
    used = np.array([number in used_ids for number in split.images.ids] + [False], bool)
    reasons = [~used[table.image], table.ignore, table.iscrowd]
    if is_training:
        width, height = split.boxes[:, 2:].T
        reasons += [table.areas <= 0, ~((width >= 1) & (height >= 1))]
    return np.select(reasons, range(len(reasons)), OUTSIDE)


def _describe(counts: Counter) -> str:
    boxes = sum(counts.values())
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in counts.items())
    return f"{boxes:,} box{'es' if boxes > 1 else ''} ({reasons})"
