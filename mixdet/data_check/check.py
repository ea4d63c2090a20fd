"""The quick check and the full one."""

from __future__ import annotations

from mmdet.registry import MODELS
from mmengine.config import Config

from mixdet.data_check.anchors import AnchorFit, fit_anchors
from mixdet.data_check.boxes import check_boxes
from mixdet.data_check.entries import check_classes, check_ids, check_names, check_usable
from mixdet.data_check.files import check_files, check_shared, read_files
from mixdet.data_check.problems import ERROR, NOTE, WARNING, Example, Problem, problem
from mixdet.data_check.report import DataReport, summarize
from mixdet.data_check.splits import Split, read_splits
from mixdet.errors import MixDetError

ANNOTATION_CHECKS = (
    check_usable, check_classes, check_ids, check_boxes, check_names
)  # fmt: skip


def quick_check(cfg: Config) -> list[Problem]:
    """Check what a training run reads, by its annotations and folders; no image is opened.

    Args:
        cfg: The config.

    Raises:
        MixDetError: An annotation file is missing, or is not COCO's.
    """
    return _check_annotations(read_splits(cfg, ("train_dataloader", "val_dataloader")))


def full_check(cfg: Config) -> DataReport:
    """Check training, validation and test data, every image, and the anchors.

    Args:
        cfg: The config.

    Raises:
        MixDetError: As `quick_check`, or there is nothing to check.
    """
    splits = read_splits(cfg)
    if not splits:
        raise MixDetError("the config has no CocoDataset on this machine's disk to check")
    problems = _check_annotations(splits)
    files = [read_files(split) for split in splits if split.root is not None]
    for each in files:
        problems += check_files(each)
    for training in files:
        if training.split.trains:
            for other in files:
                if other is not training and not other.split.trains:
                    problems += check_shared(training, other)
    fit = None
    if cfg.get("model"):
        model = MODELS.build(cfg.model)
        training = next((split for split in splits if split.trains), None)
        fit = training and fit_anchors(training, cfg, model)
    return DataReport([summarize(split) for split in splits], problems + _check_anchors(fit), fit)


def _check_annotations(splits: list[Split]) -> list[Problem]:
    problems = [found for split in splits for check in ANNOTATION_CHECKS for found in check(split)]
    for split in splits:
        if split.trains and "," in split.name:
            text = "the same images train and are evaluated on, so that scores say little"
            problems += problem("one_data_set", WARNING, split.name, text, len(split.images))
    named = [split for split in splits if split.classes]
    others = [split for split in named if split.classes != named[0].classes]
    return problems + problem(
        "classes_differ",
        ERROR,
        " and ".join(split.name for split in (*named[:1], *others)),
        "other classes, or another order, in one data set of the config than in another",
        len(others),
        (Example(f"{split.name}: {', '.join(split.classes)}") for split in others),
    )


def _check_anchors(fit: AnchorFit | None) -> list[Problem]:
    """Anchors that most boxes do not meet, where as many others would."""
    poor = fit is not None and fit.now.matched < 0.5 and fit.by_clusters.matched > 0.6
    text = "anchors of the model that fit less than half of the boxes"
    return problem("anchors_misfit", NOTE, "training", text, fit.anchors if poor else 0)
