"""The quick and the full check of the data of a config."""

from __future__ import annotations

from mmdet.registry import MODELS
from mmengine.config import Config

from mixdet.data_check.anchor_fit import AnchorFit, fit_anchors
from mixdet.data_check.annotation_checks import (
    check_classes,
    check_file_names,
    check_ids,
    check_not_empty,
)
from mixdet.data_check.box_checks import check_boxes
from mixdet.data_check.data_problems import ERROR, NOTE, WARNING, Example, Problem, problem_list
from mixdet.data_check.data_report import DataReport, summarize_split
from mixdet.data_check.data_splits import Split, read_splits
from mixdet.data_check.image_file_checks import (
    check_image_files,
    check_shared_images,
    read_image_files,
)
from mixdet.errors import MixDetError

ANNOTATION_CHECKS = (check_not_empty, check_classes, check_ids, check_boxes, check_file_names)


def quick_check(cfg: Config) -> list[Problem]:
    """Check the annotation files and the image folders of training and validation.

    No image is opened.

    Args:
        cfg: The config.

    Raises:
        MixDetError: An annotation file is missing or is not in COCO's format.
    """
    return _check_annotations(read_splits(cfg, ("train_dataloader", "val_dataloader")))


def full_check(cfg: Config) -> DataReport:
    """Check the training, validation and test data, every image, and the anchors.

    Args:
        cfg: The config.

    Raises:
        MixDetError: The config has no `CocoDataset` on a local disk. Or an annotation file is
            missing or is not in COCO's format.
    """
    splits = read_splits(cfg)
    if not splits:
        raise MixDetError(
            "the config has no CocoDataset on a local disk; other data sets cannot be checked"
        )
    problems = _check_annotations(splits)
    all_files = [read_image_files(split) for split in splits if split.root is not None]
    for files in all_files:
        problems += check_image_files(files)
    for training in all_files:
        if training.split.is_training:
            for other in all_files:
                if other is not training and not other.split.is_training:
                    problems += check_shared_images(training, other)
    fit = None
    if cfg.get("model"):
        model = MODELS.build(cfg.model)
        training = next((split for split in splits if split.is_training), None)
        fit = training and fit_anchors(training, cfg, model)
    summaries = [summarize_split(split) for split in splits]
    return DataReport(summaries, problems + _check_anchors(fit), fit)


def _check_annotations(splits: list[Split]) -> list[Problem]:
    problems = []
    for split in splits:
        for check in ANNOTATION_CHECKS:
            problems += check(split)
    for split in splits:
        if split.is_training and "," in split.name:
            text = "the same images are used for training and evaluation; scores on them say little"
            problems += problem_list("one_data_set", WARNING, split.name, text, len(split.images))
    return problems + _check_same_classes([split for split in splits if split.classes])


def _check_same_classes(splits: list[Split]) -> list[Problem]:
    """Report splits (data sets) whose classes or order of classes differ from the first split."""
    others = [split for split in splits if split.classes != splits[0].classes]
    return problem_list(
        "classes_differ",
        ERROR,
        " and ".join(split.name for split in (*splits[:1], *others)),
        "the data sets of the config have different classes or list them in different orders; give "
        "every data set the same classes in the same order",
        len(others),
        (Example(f"{split.name}: {', '.join(split.classes)}") for split in others),
    )


def _check_anchors(fit: AnchorFit | None) -> list[Problem]:
    """Report anchors that match less than half of the boxes, if k-means shapes match over 60 %."""
    poor = fit is not None and fit.now.matched < 0.5 and fit.by_clusters.matched > 0.6
    text = "anchor shapes of the model that together match less than half of the boxes"
    return problem_list("anchors_misfit", NOTE, "training", text, fit.anchors if poor else 0)
