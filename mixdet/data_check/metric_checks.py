"""Compare the metrics of a config with the data that they evaluate."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePath

import numpy as np
from mmdet.evaluation import CocoMetric, LVISMetric, MultiDatasetsEvaluator, VOCMetric
from mmdet.registry import EVALUATOR, METRICS
from mmengine.config import Config

from mixdet.annotations.reading import read_table
from mixdet.annotations.table import AnnotationTable
from mixdet.data_check.data_problems import ERROR, WARNING, Example, Problem, problem_list
from mixdet.data_check.data_splits import is_remote, registered
from mixdet.data_check.used_data import UsedData, UsedPart
from mixdet.errors import MixDetError
from mixdet.evaluation import CocoDetectionMetric

TOLERANCE = 1.0  # pixels by which the same box may differ in two annotation files
MIN_SAME_BOXES = 0.5  # if fewer boxes agree, the two annotation files are about different images
COCO_METRICS = (CocoDetectionMetric, CocoMetric)
EVALUATORS = {"val_dataloader": "val_evaluator", "test_dataloader": "test_evaluator"}


def check_metrics(cfg: Config, used: UsedData) -> list[Problem]:
    """Compare the metrics of a data loader with the data of the loader.

    `CocoDetectionMetric`, mmdet's `CocoMetric` and mmdet's `VOCMetric` are checked.

    Args:
        cfg: The config.
        used: The data of a validation or test loader.
    """
    # Validation and test often share a metric, so each text is reported only once.
    problems: dict[str, Problem] = {}
    for key in (EVALUATORS[loader] for loader in used.loaders if loader in EVALUATORS):
        for metric, parts, samples in _metrics_and_parts(cfg.get(key), used):
            metric_class = registered(METRICS, metric.get("type"))
            metric_problems = []
            if issubclass(metric_class, VOCMetric):
                metric_problems = _check_annotations_are_loaded(used, key)
            elif issubclass(metric_class, COCO_METRICS) and metric_class is not LVISMetric:
                metric_problems = _check_ids(used.name, parts, samples)
                metric_problems += _check_truth(used, parts, metric, key)
            for problem in metric_problems:
                problems.setdefault(problem.text.replace(key, ""), problem)
    return list(problems.values())


def _metrics_and_parts(evaluator, used: UsedData) -> Iterator[tuple[dict, list[UsedPart], int]]:
    """Yield each metric's config, the data that it evaluates, and the number of samples."""
    if isinstance(evaluator, dict) and "metrics" in evaluator:
        metrics = evaluator["metrics"]
        metrics = metrics if isinstance(metrics, (list, tuple)) else [metrics]
        evaluator_class = registered(EVALUATOR, evaluator.get("type", "Evaluator"))
        if issubclass(evaluator_class, MultiDatasetsEvaluator):
            for metric, part in zip(metrics, used.parts, strict=False):
                yield metric, [part], len(part.image_ids)
            return
    else:
        metrics = evaluator if isinstance(evaluator, (list, tuple)) else [evaluator]
    for metric in metrics:
        if isinstance(metric, dict) and "type" in metric:
            yield metric, used.parts, used.samples


def _check_ids(name: str, parts: list[UsedPart], samples: int) -> list[Problem]:
    """Report images that share an id or are evaluated more than once."""
    counts = Counter(image_id for part in parts for image_id in part.image_ids)
    shared = [image_id for image_id, count in counts.items() if count > 1]
    files = ", ".join(dict.fromkeys(part.ann_file for part in parts))
    problems = problem_list(
        "ids_in_several_files",
        ERROR,
        name,
        f"image ids that occur in more than one of the joined data sets ({files}); the metric "
        "cannot tell their images apart: join the files into one file with different ids, or "
        "validate on one data set only",
        len(shared),
        (Example(f"image id {image_id}") for image_id in shared),
    )
    repeated = samples - sum(counts.values())
    text = (
        f"{samples:,} samples of {sum(counts.values()):,} images: a wrapper such as RepeatDataset "
        "repeats images, and the metric counts repeated detections as wrong: remove the wrapper"
    )
    return problems + problem_list("repeated_images", ERROR, name, text, max(0, min(repeated, 1)))


def _check_truth(used: UsedData, parts: list[UsedPart], metric: dict, key: str) -> list[Problem]:
    """Compare the annotation file of a COCO metric with the annotation file of the data set."""
    ann_file = metric.get("ann_file")
    scores_all = issubclass(registered(METRICS, metric["type"]), CocoMetric)
    if not ann_file:
        return _check_instances_are_packed(used, key) if scores_all else []
    if is_remote(metric) or not parts:
        return []
    own_files = list(dict.fromkeys(part.ann_file for part in parts))
    key = f"{key}.ann_file"
    remedy = f"set {key} to {own_files[0]}"
    if len(own_files) > 1:
        remedy = f"set {key} to one file that holds {' and '.join(own_files)} with different ids"
    if not Path(ann_file).is_file():
        text = f"{key} ({ann_file}) does not exist: {remedy}"
        return problem_list("metric_file_missing", ERROR, used.name, text, 1)
    try:
        table = read_table(ann_file)
        if ann_file not in own_files:
            table.objects  # noqa: B018 - raises an error if they cannot be used
    except MixDetError as error:
        return problem_list("metric_file_broken", ERROR, used.name, f"{key}: {error}", 1)
    problems = []
    is_own = [os.path.realpath(file) for file in own_files] == [os.path.realpath(ann_file)]
    if not is_own:  # other checks already compare the data set with its own file
        problems = _check_categories(used.name, parts[0].classes, metric, table, key)
        problems += _check_images(used.name, parts, table, f"{key} ({ann_file})", remedy)
    seen = {image_id for part in parts for image_id in part.image_ids}
    images = zip(table.images.ids, table.images.names, strict=True)
    unseen = [name for image_id, name in images if image_id not in seen]
    if scores_all and not problems:
        problems += problem_list(
            "unseen_images",
            WARNING,
            used.name,
            f"images of {key} that the data set does not yield; CocoMetric counts their objects as "
            "missed: use CocoDetectionMetric, or a file without these images",
            len(unseen),
            (Example(str(name)) for name in unseen),
        )
    return problems


def _check_categories(
    name: str, classes: tuple[str, ...], metric: dict, table: AnnotationTable, key: str
) -> list[Problem]:
    categories = table.categories
    if metric.get("sort_categories"):
        categories = sorted(categories, key=lambda category: category["id"])
    names = [category.get("name") for category in categories]
    names = [category for category in names if category in classes]
    if names == list(classes):
        return []
    missing = [category for category in classes if category not in names]
    difference = f"lacks {', '.join(missing)}" if missing else "has them in another order"
    text = (
        f"the categories of {key} must be the classes of the data set in the same order, but the "
        f"file {difference}: give the metric and the data set files with the same categories"
    )
    return problem_list("metric_categories", ERROR, name, text, 1)


def _check_images(
    name: str, parts: list[UsedPart], table: AnnotationTable, file: str, remedy: str
) -> list[Problem]:
    """Report a metric's file that lacks image ids of the data, or uses them for other images."""
    truth = {image_id: index for index, image_id in enumerate(table.images.ids)}
    unknown = [
        (image_id, path)
        for part in parts
        for image_id, path in zip(part.image_ids, part.paths, strict=True)
        if image_id not in truth
    ]
    if unknown:
        total = sum(len(part.image_ids) for part in parts)
        text = f"{len(unknown):,} of {total:,} images are not in {file}: {remedy}"
        examples = [Example(f"id {image_id!r}, {path}", path) for image_id, path in unknown[:5]]
        return problem_list("metric_lacks_images", ERROR, name, text, 1, examples)
    problems = []
    for part in parts:
        images = np.array([truth[image_id] for image_id in part.image_ids], int)
        same = _same_boxes(part, table, images)
        if len(same):
            share = float(same.mean())
            text = f"{100 * (1 - share):.0f} % of the boxes of {part.ann_file} are not in {file}"
        else:  # there are no boxes, so compare the file names of the images
            stems = [PurePath(str(table.images.names[image])).stem for image in images]
            equal = [
                PurePath(path).stem == stem for path, stem in zip(part.paths, stems, strict=True)
            ]
            share = float(np.mean(equal)) if equal else 1.0
            text = f"{100 * (1 - share):.0f} % of the image names in {file} differ"
        if share < MIN_SAME_BOXES:
            text += f", so its ids belong to other images: {remedy}"
            problems += problem_list("metric_of_other_images", ERROR, name, text, 1)
        elif share < 1:
            text += f": if this is a mistake, {remedy}"
            problems += problem_list("metric_differs", WARNING, name, text, 1)
    return problems


def _same_boxes(part: UsedPart, table: AnnotationTable, images: np.ndarray) -> np.ndarray:
    """Return for each box of a data set whether a file has the same box for the same image.

    Args:
        part: The data of the data set.
        table: The file.
        images: The index in the file of each image of the data set.
    """
    own = np.hstack([part.boxes[:, :2], part.boxes[:, 2:] - part.boxes[:, :2]])
    order = np.argsort(table.image, kind="stable")
    others = table.boxes[order]
    starts, ends = (
        np.searchsorted(table.image[order], images[part.image_of_box], side)
        for side in ("left", "right")
    )
    same = np.zeros(len(own), bool)
    for step in range((ends - starts).max(initial=0)):  # the boxes of all images at once
        open_boxes = np.flatnonzero(~same & (starts + step < ends))
        near = np.abs(others[starts[open_boxes] + step] - own[open_boxes]) <= TOLERANCE
        same[open_boxes] = near.all(1)
    return same


def _check_annotations_are_loaded(used: UsedData, key: str) -> list[Problem]:
    words = _words(used.dataset_cfg)
    loads = any("Annotations" in word or word == "SSDRandomCrop" for word in words)
    text = (
        f"the VOCMetric of {key} takes the true boxes from the transforms, but no transform loads "
        "them: add dict(type='LoadAnnotations', with_bbox=True) to the pipeline"
    )
    return problem_list("annotations_not_loaded", ERROR, used.name, text, int(not loads))


def _check_instances_are_packed(used: UsedData, key: str) -> list[Problem]:
    text = (
        f"the CocoMetric of {key} has no ann_file, and the pipeline does not pass the true boxes "
        f"to it: set {key}.ann_file, or add 'instances' to the meta_keys of the last transform"
    )
    packed = "instances" in _words(used.dataset_cfg)
    return problem_list("instances_not_packed", ERROR, used.name, text, int(not packed))


def _words(node) -> Iterator[str]:
    """Yield every string in a config, and the name of every class."""
    if isinstance(node, dict):
        node = list(node.values())
    if isinstance(node, (list, tuple)):
        for child in node:
            yield from _words(child)
    elif isinstance(node, type):
        yield node.__name__
    elif isinstance(node, str):
        yield node
