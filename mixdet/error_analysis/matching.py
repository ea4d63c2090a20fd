"""Match detections with true boxes, once for all score thresholds.

Pycocotools visits the detections of a class in an image from the highest score to the lowest, so a
match does not depend on detections with lower scores. One matching therefore holds at every score
threshold. The matches are those of pycocotools at IoU 0.5, so that all counts agree with the mAP.

Pycocotools computes the IoU here. Its `COCOeval` would give the same matches, but it runs Python
code for each class of each image, which takes too long for large data sets. The confusion matrices
of other libraries do not agree with the mAP: those of `supervision`, `faster_coco_eval` and mmdet
count crowds as objects. `supervision` also takes pairs by IoU instead of by score, and mmdet may
count an object several times. The F1 of `supervision` has no score threshold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from mixdet.evaluation.detection_arrays import check_detections
from mixdet.evaluation.evaluators import sorted_ids
from mixdet.evaluation.scored_data import ScoredData

MATCH_IOU = 0.5
LOW_IOU = 0.1  # a detection that overlaps an object less is on the background
MAX_DETECTIONS = 100  # of a class in an image, as in COCO's mAP


@dataclass(frozen=True)
class Boxes:
    """Boxes of all scored images: detections, or true boxes.

    Attributes:
        image: (n,) index of the image, in the order of the sorted image ids.
        label: (n,) index of the class.
        box: (n, 4) boxes, (x, y, width, height) in pixels.
        area: (n,) area in pixels. For a true box it is the annotation's `area`.
    """

    image: np.ndarray
    label: np.ndarray
    box: np.ndarray
    area: np.ndarray

    def __len__(self) -> int:
        return len(self.label)


@dataclass(frozen=True)
class Pairs:
    """Detections and true boxes of the same image that overlap with an IoU of at least `LOW_IOU`.

    Attributes:
        detection: (p,) index of the detection.
        truth: (p,) index of the true box.
        iou: (p,) their IoU. For a crowd, it is the covered part of the detection.
    """

    detection: np.ndarray
    truth: np.ndarray
    iou: np.ndarray

    def select(self, chosen: np.ndarray) -> Pairs:
        """Return the pairs that a mask of shape (p,) chooses."""
        return Pairs(self.detection[chosen], self.truth[chosen], self.iou[chosen])


@dataclass(frozen=True)
class Matches:
    """Detections and true boxes of the scored images, matched class by class at IoU 0.5.

    Attributes:
        image_ids: Ids of the images, sorted.
        classes: Class names, indexed by label.
        detections: n detections, ordered by image, then by label, then by falling score.
        score: (n,) score of each detection.
        truth: m true boxes.
        crowd: (m,) whether a true box is a crowd. A crowd is no object.
        pairs: The overlapping pairs of any classes.
        match: (n,) index of the true box that each detection is matched with, or -1.
    """

    image_ids: list[int | str]
    classes: list[str]
    detections: Boxes
    score: np.ndarray
    truth: Boxes
    crowd: np.ndarray
    pairs: Pairs
    match: np.ndarray

    @property
    def correct(self) -> np.ndarray:
        """(n,) whether each detection is matched with an object."""
        return (self.match >= 0) & ~self.on_crowd

    @property
    def on_crowd(self) -> np.ndarray:
        """(n,) whether each detection is matched with a crowd. It is neither correct nor wrong."""
        crowd = np.append(self.crowd, False)  # for the index -1
        return crowd[self.match]

    @property
    def object_counts(self) -> np.ndarray:
        """(classes,) number of objects."""
        return np.bincount(self.truth.label[~self.crowd], minlength=len(self.classes))


def match_boxes(scored: ScoredData, detections: Sequence[dict[str, Any]]) -> Matches:
    """Match detections with the true boxes of the scored classes and images.

    At most 100 detections of a class in an image are used, as in COCO's mAP.

    Args:
        scored: The annotations, the classes and the images.
        detections: COCO results. Those of other classes and images are left out.

    Raises:
        MixDetError: A detection is malformed, is not finite, or is of an image or a category that
            is not in the annotation file.
    """
    check_detections(scored.annotations, detections)
    image_ids = sorted_ids(scored.image_ids)
    index_of = {image_id: index for index, image_id in enumerate(image_ids)}
    label_of = {category: label for label, category in enumerate(scored.category_ids)}
    used = [
        detection
        for detection in detections
        if detection["image_id"] in index_of and detection["category_id"] in label_of
    ]
    boxes = _as_boxes(used, index_of, label_of)
    score = np.array([detection["score"] for detection in used], float)
    order = np.lexsort((-score, boxes.label, boxes.image))
    order = order[_rank_in_group(boxes.image[order], boxes.label[order]) < MAX_DETECTIONS]
    boxes, score = _take(boxes, order), score[order]

    annotations = [box for image_id in image_ids for box in scored.boxes(image_id)]
    truth = _as_boxes(annotations, index_of, label_of)
    truth = Boxes(
        truth.image, truth.label, truth.box, np.array([box["area"] for box in annotations], float)
    )
    crowd = np.array([box["iscrowd"] for box in annotations], bool)
    pairs = _overlapping_pairs(boxes, truth, crowd, len(image_ids))
    same_class = boxes.label[pairs.detection] == truth.label[pairs.truth]
    match = match_greedily(
        pairs.select(same_class & (pairs.iou >= MATCH_IOU)), np.arange(len(boxes)), boxes, crowd
    )
    return Matches(image_ids, scored.classes, boxes, score, truth, crowd, pairs, match)


def match_greedily(
    pairs: Pairs, position: np.ndarray, detections: Boxes, crowd: np.ndarray
) -> np.ndarray:
    """Match each detection with the free true box of the highest IoU, one detection after another.

    An object is matched once, a crowd any number of times and only if no object is free. Of true
    boxes with equal IoU, the last one is matched, as in pycocotools.

    Args:
        pairs: The pairs that may be matched.
        position: (n,) position of each detection in the order of visits.
        detections: n detections. Only the order of visits within an image matters, so the k-th
            detections of all images are visited at once.
        crowd: (m,) whether a true box is a crowd.

    Returns:
        (n,) index of the true box, or -1.
    """
    match = np.full(len(detections), -1)
    free = np.ones(len(crowd), bool)
    visited = np.unique(pairs.detection)
    visited = visited[np.lexsort((position[visited], detections.image[visited]))]
    rank = np.zeros(len(detections), int)
    rank[visited] = _rank_in_group(detections.image[visited])
    rank_of_pair = rank[pairs.detection]
    order = np.lexsort(
        (-pairs.truth, -pairs.iou, crowd[pairs.truth], pairs.detection, rank_of_pair)
    )
    pairs, rank_of_pair = pairs.select(order), rank_of_pair[order]
    starts = np.flatnonzero(np.diff(rank_of_pair, prepend=-1))
    for start, end in zip(starts, np.append(starts, len(order))[1:], strict=True):
        truth, detection = pairs.truth[start:end], pairs.detection[start:end]
        possible = np.flatnonzero(free[truth])
        detection, first = np.unique(detection[possible], return_index=True)
        chosen = truth[possible[first]]
        match[detection] = chosen
        free[chosen[~crowd[chosen]]] = False
    return match


def _overlapping_pairs(
    detections: Boxes, truth: Boxes, crowd: np.ndarray, image_count: int
) -> Pairs:
    images = np.arange(image_count + 1)
    first_detection = np.searchsorted(detections.image, images)
    first_truth = np.searchsorted(truth.image, images)
    parts = [(np.zeros(0, int), np.zeros(0, int), np.zeros(0))]
    both = (np.diff(first_detection) > 0) & (np.diff(first_truth) > 0)
    for image in np.flatnonzero(both):
        rows = slice(first_detection[image], first_detection[image + 1])
        columns = slice(first_truth[image], first_truth[image + 1])
        iou = coco_mask.iou(detections.box[rows], truth.box[columns], crowd[columns].tolist())
        row, column = np.nonzero(iou >= LOW_IOU)
        parts.append((row + rows.start, column + columns.start, iou[row, column]))
    return Pairs(*map(np.concatenate, zip(*parts, strict=True)))


def _rank_in_group(*keys: np.ndarray) -> np.ndarray:
    """Return each element's position in its group. Equal elements must be adjacent.

    Args:
        *keys: (n,) arrays. Elements with the same values in all of them are a group.
    """
    count = np.arange(len(keys[0]))
    new = np.zeros(len(count), bool)
    new[:1] = True
    for key in keys:
        new[1:] |= key[1:] != key[:-1]
    return count - np.maximum.accumulate(np.where(new, count, 0))


def _as_boxes(entries: Sequence[dict[str, Any]], index_of: dict, label_of: dict) -> Boxes:
    box = np.array([entry["bbox"] for entry in entries], float).reshape(-1, 4)
    return Boxes(
        np.array([index_of[entry["image_id"]] for entry in entries], int),
        np.array([label_of[entry["category_id"]] for entry in entries], int),
        box,
        box[:, 2] * box[:, 3],
    )


def _take(boxes: Boxes, indices: np.ndarray) -> Boxes:
    return Boxes(*(column[indices] for column in vars(boxes).values()))
