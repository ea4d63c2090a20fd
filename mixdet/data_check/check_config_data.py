"""The quick and the full check of the data of a config."""

from __future__ import annotations

import os
from dataclasses import replace

from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.dist import get_world_size, is_distributed

from mixdet.config.data_paths import LOADERS
from mixdet.data_check.anchor_fit import check_anchors, fit_anchors
from mixdet.data_check.annotation_checks import (
    check_classes,
    check_file_names,
    check_ids,
    check_not_empty,
)
from mixdet.data_check.box_checks import check_boxes
from mixdet.data_check.class_name_checks import check_class_names
from mixdet.data_check.data_problems import (
    ERROR,
    NOTE,
    SPLIT_NAMES,
    WARNING,
    Example,
    Problem,
    problem_list,
)
from mixdet.data_check.data_report import DataReport, summarize_split
from mixdet.data_check.data_splits import Split, read_splits
from mixdet.data_check.image_file_checks import (
    ImageFiles,
    check_image_files,
    check_shared_images,
    read_image_files,
)
from mixdet.data_check.metric_checks import check_metrics
from mixdet.data_check.scene_checks import check_near_duplicates, check_single_scenes
from mixdet.data_check.used_data import UsedData, read_used_data
from mixdet.data_check.used_data_checks import (
    check_batches,
    check_ignored_boxes,
    check_left_out,
    check_objects,
    check_stated_sizes,
)
from mixdet.errors import MixDetError

ANNOTATION_CHECKS = (
    *(check_classes, check_not_empty, check_ids, check_stated_sizes),
    *(check_boxes, check_file_names),
)
TRAINING_LOADERS = ("train_dataloader", "val_dataloader")

# The last report of `check_before_runner`. The key is the part of the config that was checked.
_latest: dict[str, DataReport] = {}


def quick_check(cfg: Config, loaders: tuple[str, ...] = TRAINING_LOADERS) -> list[Problem]:
    """Check the annotation files, the image folders and the metrics of training and validation.

    No image is opened.

    Args:
        cfg: The config.
        loaders: The data loaders that a run uses.

    Raises:
        MixDetError: An annotation file is missing or is not in COCO's format.
    """
    return quick_report(cfg, loaders).problems


def quick_report(cfg: Config, loaders: tuple[str, ...]) -> DataReport:
    """Make the quick check, and return what it counted and found.

    Args:
        cfg: The config.
        loaders: The data loaders that a run uses.

    Raises:
        MixDetError: An annotation file is missing or is not in COCO's format.
    """
    key = _data_settings(cfg, loaders)
    if key in _latest:
        return _latest.pop(key)
    return _check(cfg, loaders)[0]


def check_before_runner(cfg: Config, loaders: tuple[str, ...]) -> None:
    """Make the quick check before a runner builds the model and the data sets.

    `DataCheckHook` later reuses the report and logs its warnings. In a distributed run, only the
    first process makes the check.

    Args:
        cfg: The config.
        loaders: The data loaders that the run uses.

    Raises:
        MixDetError: The check finds a problem of the level "error".
    """
    distributed = cfg.get("launcher", "none") != "none"
    rank = os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0"))
    if "data_check" not in (cfg.get("default_hooks") or {}) or (distributed and rank != "0"):
        return
    report = _check(cfg, loaders)[0]
    report.refuse_errors()
    _latest.clear()
    _latest[_data_settings(cfg, loaders)] = report


def full_check(cfg: Config, workers: int | None = None) -> DataReport:
    """Check the training, validation and test data, every image, and the anchors.

    Ctrl-C ends the reading of images. The report then is about the images that were read.

    Args:
        cfg: The config.
        workers: Number of threads that read images, by default one for each processor core.

    Raises:
        MixDetError: The config has no `CocoDataset` on a local disk, or an annotation file is
            missing or is not in COCO's format.
    """
    report, splits = _check(cfg, LOADERS)
    problems = list(report.problems)
    if not splits and not problems:
        raise MixDetError(
            "the config has no CocoDataset on a local disk; other data sets cannot be checked"
        )
    all_files = [ImageFiles(split) for split in splits if split.root is not None]
    interrupted = False
    try:
        for files in all_files:
            read_image_files(files, workers)
    except KeyboardInterrupt:
        interrupted = True
    problems += _check_images(all_files, interrupted)
    fit = None
    if cfg.get("model"):
        model = MODELS.build(cfg.model)
        training = next((split for split in splits if split.is_training), None)
        fit = training and fit_anchors(training, cfg, model)
    problems += check_anchors(fit)
    unread = sum(len(files.names) - files.read for files in all_files) if interrupted else 0
    return replace(report, problems=problems, anchors=fit, unread_images=unread)


def _check_images(all_files: list[ImageFiles], interrupted: bool) -> list[Problem]:
    """Report what is wrong with the image files that were read."""
    problems = [problem for files in all_files for problem in check_image_files(files)]
    trained = [files for files in all_files if files.split.is_training]
    others = [files for files in all_files if not files.split.is_training]
    for other in others:
        for training in trained:
            problems += check_shared_images(training, other)
            problems += check_near_duplicates(training, other)
    # Some of the images of a class say nothing about all of them.
    for files in () if interrupted else (trained, *([other] for other in others)):
        problems += check_single_scenes(files)
    return problems


def _check(cfg: Config, loaders: tuple[str, ...]) -> tuple[DataReport, list[Split]]:
    """Make all checks that open no image."""
    problems = check_class_names(cfg, loaders)
    malformed = {problem.data for problem in problems}
    sound = tuple(loader for loader in loaders if SPLIT_NAMES[loader] not in malformed)
    # This call comes first, since some data sets write their annotation files when they are built.
    all_used = read_used_data(cfg, sound)
    splits = read_splits(cfg, loaders)
    problems += _check_annotations(splits)
    for used in all_used:
        problems += _check_used(cfg, used, splits, problems)
    summaries = [summarize_split(split, all_used) for split in splits]
    return DataReport(summaries, problems, None), splits


def _check_annotations(splits: list[Split]) -> list[Problem]:
    problems = []
    for split in splits:
        for check in ANNOTATION_CHECKS:
            new_problems = check(split)
            if split.name == SPLIT_NAMES["test_dataloader"]:  # may have no boxes
                new_problems = [
                    replace(problem, level=NOTE) if problem.code == "no_boxes" else problem
                    for problem in new_problems
                ]
            problems += new_problems
    for split in splits:
        if split.is_training and "," in split.name:
            text = "the same images are used for training and evaluation; scores on them say little"
            problems += problem_list("one_data_set", WARNING, split.name, text, len(split.images))
    return problems + _check_same_classes([split for split in splits if split.classes])


def _check_used(
    cfg: Config, used: UsedData, splits: list[Split], earlier: list[Problem]
) -> list[Problem]:
    """Check the images, objects and batches that a loader yields, and the metric's annotations.

    Args:
        cfg: The config.
        used: The data that a loader yields.
        splits: The content of the annotation files.
        earlier: The problems that are known already.
    """
    names = set(used.name.split(", "))
    if used.error:
        known = any(
            problem.level == ERROR and names & set(problem.data.split(", ")) for problem in earlier
        )
        return [] if known else problem_list("unusable", ERROR, used.name, used.error, 1)
    problems = []
    other_classes = {problem.data for problem in earlier if problem.code == "missing_classes"}
    for split in splits:
        if names & set(split.name.split(", ")) and split.name not in other_classes:
            problems += check_left_out(split, used)
            if used.image_count:
                problems += check_objects(split, used)
    processes = get_world_size() if is_distributed() else _launched_processes(cfg)
    if used.is_training:
        problems += check_ignored_boxes(used, cfg.get("model") or {})
    for loader in used.loaders:
        problems += check_batches(used, loader, cfg[loader], processes)
    return problems + check_metrics(cfg, used)


def _launched_processes(cfg: Config) -> int:
    variable = {"pytorch": "WORLD_SIZE", "slurm": "SLURM_NTASKS"}.get(cfg.get("launcher"))
    return int(os.environ.get(variable, 1)) if variable else 1


def _data_settings(cfg: Config, loaders: tuple[str, ...]) -> str:
    keys = (*loaders, *(loader.replace("dataloader", "evaluator") for loader in loaders))
    return str([(key, cfg.get(key)) for key in keys])


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
