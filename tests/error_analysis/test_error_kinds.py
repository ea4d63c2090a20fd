"""Each error has the right kind, and the confusion matrix counts every box once."""

from __future__ import annotations

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from mixdet.error_analysis.error_kinds import (
    MISSED_KINDS,
    SIZES,
    WRONG_KINDS,
    find_errors,
    size_of,
)
from mixdet.error_analysis.matching import match_boxes
from tests.error_analysis.conftest import CATEGORY_IDS, detect, random_case

BOX, FAR = (0, 0, 40, 40), (200, 200, 40, 40)
BESIDE = (20, 0, 40, 40)  # its IoU with BOX is 1/3


def kinds(data, detections, score_thr=0.3) -> tuple[list[str], list[str]]:
    """Return the kinds of the wrong detections and of the missed objects."""
    errors = find_errors(match_boxes(data, detections), score_thr)
    wrong = np.array([*WRONG_KINDS])[errors.wrong_kind[errors.wrong]]
    missed = np.array([*MISSED_KINDS])[errors.missed_kind[errors.missed]]
    return wrong.tolist(), missed.tolist()


@pytest.mark.parametrize(
    ("found", "wrong", "missed"),
    [
        ([], [], ["not detected"]),
        ([(1, 0, BOX, 0.9)], [], []),
        ([(1, 0, BOX, 0.9), (1, 0, BOX, 0.8)], ["duplicate"], []),
        ([(1, 1, BOX, 0.9)], ["wrong class"], ["wrong class"]),
        ([(1, 1, BOX, 0.9), (1, 0, BOX, 0.8)], ["wrong class"], []),
        ([(1, 0, BESIDE, 0.9)], ["poorly located"], ["poorly located"]),
        ([(1, 1, BESIDE, 0.9)], ["wrong class, poorly located"], ["not detected"]),
        ([(1, 0, FAR, 0.9)], ["background"], ["not detected"]),
        ([(1, 0, BOX, 0.2)], [], ["score too low"]),
        ([(1, 1, BOX, 0.9), (1, 0, BOX, 0.2)], ["wrong class"], ["wrong class"]),
        ([(1, 0, BESIDE, 0.9), (1, 0, BOX, 0.2)], ["poorly located"], ["poorly located"]),
        ([(2, 0, BOX, 0.9)], ["background"], ["not detected"]),
    ],
)
def test_kinds_of_errors(scored, found, wrong, missed):
    data = scored([(1, 0, BOX)], images=(1, 2))
    assert kinds(data, detect(*found)) == (wrong, missed)


@pytest.mark.parametrize("mark", ["iscrowd", "ignore"])
def test_a_crowd_is_neither_missed_nor_confused(scored, mark):
    data = scored([(1, 0, BOX, {mark: 1}), (1, 1, FAR)])
    found = detect((1, 0, BOX, 0.9), (1, 0, BOX, 0.8), (1, 1, BOX, 0.7))
    assert kinds(data, found) == (["background"], ["not detected"])
    confusion = find_errors(match_boxes(data, found), 0.3).confusion
    assert confusion.tolist() == [[0] * 4, [0, 0, 0, 1], [0] * 4, [0] * 4, [0, 1, 0, 0]]


def test_perfect_detections_give_a_diagonal_matrix(scored):
    """Also if two objects of different classes have the same box, and if all scores are equal."""
    objects = [(1, 1, BOX), (1, 0, BOX), (1, 0, FAR), (2, 2, BOX)]
    found = detect(*((*place, 1.0) for place in reversed(objects)))
    confusion = find_errors(match_boxes(scored(objects, (1, 2)), found), 0.5).confusion
    assert confusion.tolist() == [*np.diag([2, 1, 1, 0]).tolist(), [0] * 4]


def test_detections_of_an_object_that_is_detected_have_a_row_of_their_own(scored):
    found = detect((1, 0, BOX, 0.9), (1, 0, BOX, 0.8), (1, 1, BOX, 0.95), (1, 2, BESIDE, 0.7))
    confusion = find_errors(match_boxes(scored([(1, 0, BOX)]), found), 0.5).confusion
    assert confusion.tolist() == [[1, 0, 0, 0], [0] * 4, [0] * 4, [1, 1, 0, 0], [0, 0, 1, 0]]


def test_without_detections_all_objects_are_missed(scored):
    confusion = find_errors(match_boxes(scored([(1, 0, BOX), (1, 2, FAR)]), []), 0.5).confusion
    assert confusion[:, -1].tolist() == [1, 0, 1, 0, 0]
    assert confusion.sum() == 2


def test_the_order_of_the_classes_is_that_of_the_file(scored):
    matches = match_boxes(scored([(1, 0, BOX), (1, 2, FAR)]), detect((1, 2, BOX, 0.9)))
    assert matches.classes == ["cat", "dog", "cow"]  # the category ids are 7, 3, 5
    confusion = find_errors(matches, 0.5).confusion
    assert confusion[0, 2] == 1
    assert confusion[2, 3] == 1


def confusion_by_loops(data, detections, score_thr) -> np.ndarray:
    """Count the confusions with plain loops over the boxes of each image."""
    label_of = {category: label for label, category in enumerate(CATEGORY_IDS)}
    matrix = np.zeros((5, 4), int)
    for image_id in data.image_ids:
        truth = data.boxes(image_id)
        found = [d for d in detections if d["image_id"] == image_id and d["score"] >= score_thr]
        found.sort(key=lambda detection: -detection["score"])
        crowd = [box["iscrowd"] for box in truth]
        boxes = [np.array([box["bbox"] for box in part], float) for part in (found, truth)]
        iou = coco_mask.iou(*boxes, crowd) if found and truth else np.zeros((len(found), 99))
        taken, left = set(), []
        for row, detection in enumerate(found):
            label = label_of[detection["category_id"]]
            same = [
                column
                for column, box in enumerate(truth)
                if box["category_id"] == detection["category_id"] and iou[row, column] >= 0.5
            ]
            free = [column for column in same if column not in taken and not crowd[column]]
            if free:
                taken.add(max(free, key=lambda column: (iou[row, column], column)))
                matrix[label, label] += 1
            elif not any(crowd[column] for column in same):
                left.append((row, label))
        for row, label in left:
            free = [
                column
                for column in range(len(truth))
                if iou[row, column] >= 0.5 and column not in taken and not crowd[column]
            ]
            objects = [column for column in range(len(truth)) if not crowd[column]]
            overlaps = any(iou[row, column] >= 0.5 for column in objects)
            true = 3 if overlaps else 4
            if free:
                column = max(free, key=lambda column: (iou[row, column], column))
                taken.add(column)
                true = label_of[truth[column]["category_id"]]
            matrix[true, label] += 1
        for column, box in enumerate(truth):
            if column not in taken and not crowd[column]:
                matrix[label_of[box["category_id"]], 3] += 1
    return matrix


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("score_thr", [0.0, 0.4, 0.8])
def test_random_confusions_equal_those_counted_by_loops(scored, seed, score_thr):
    data, detections = random_case(scored, seed)
    for index, detection in enumerate(detections):  # the order of ties is not defined
        detection["score"] += index * 1e-6
    matches = match_boxes(data, detections)
    errors = find_errors(matches, score_thr)
    assert errors.confusion.tolist() == confusion_by_loops(data, detections, score_thr).tolist()
    objects = ~matches.crowd
    by_class = np.bincount(matches.truth.label[objects], minlength=3)
    assert errors.confusion.sum(1)[:3].tolist() == by_class.tolist()
    assert np.trace(errors.confusion) == errors.correct.sum()
    assert errors.confusion[:, :3].sum() == errors.correct.sum() + errors.wrong.sum()
    assert errors.missed.sum() == objects.sum() - errors.correct.sum()


def test_sizes_are_those_of_coco():
    areas = np.array([1, 32**2 - 1, 32**2, 96**2 - 1, 96**2])
    assert [SIZES[index] for index in size_of(areas)] == [
        *("small", "small", "medium", "medium", "large")
    ]
