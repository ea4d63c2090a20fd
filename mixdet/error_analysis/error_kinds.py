"""Say what is wrong with each wrong detection, and why an object is missed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mixdet.error_analysis.matching import LOW_IOU, MATCH_IOU, Matches, Pairs, match_greedily

SIZES = ("small", "medium", "large")
SIZE_LIMITS = (32**2, 96**2)  # pixels of area: COCO's

# A wrong detection is of the first kind that holds. The overlaps are with any object.
WRONG_KINDS = {
    "duplicate": f"IoU of at least {MATCH_IOU} with an object of its class that is matched already",
    "wrong class": f"IoU of at least {MATCH_IOU} with an object of another class",
    "poorly located": f"IoU of {LOW_IOU} to {MATCH_IOU} with an object of its class",
    "wrong class, poorly located": f"IoU of {LOW_IOU} to {MATCH_IOU} with an object of another "
    "class",
    "background": f"IoU below {LOW_IOU} with every object",
}
# Rows of the confusion matrix after those of the classes: what a detection that is matched with no
# object overlaps by an IoU of at least `MATCH_IOU`.
UNMATCHED_ROWS = ("already detected", "background")
# An object is missed for the first reason that holds.
MISSED_KINDS = {
    "wrong class": f"a wrong detection of another class has an IoU of at least {MATCH_IOU} with it",
    "poorly located": f"a wrong detection of its class has an IoU of {LOW_IOU} to {MATCH_IOU} "
    "with it",
    "score too low": "a right detection has a score below the threshold",
    "not detected": "nothing of the above",
}


@dataclass(frozen=True)
class Errors:
    """The wrong detections and the missed objects at a score threshold.

    Attributes:
        correct: (n,) whether each detection is correct and scores enough.
        wrong: (n,) whether each detection is wrong and scores enough.
        wrong_kind: (n,) index into `WRONG_KINDS`. It means nothing for other detections.
        missed: (m,) whether each true box is a missed object.
        missed_kind: (m,) index into `MISSED_KINDS`. It means nothing for other true boxes.
        confusion: (classes + 2, classes + 1) number of boxes. The rows are the true classes and
            `UNMATCHED_ROWS`, the columns the predicted classes and the missed objects.
    """

    correct: np.ndarray
    wrong: np.ndarray
    wrong_kind: np.ndarray
    missed: np.ndarray
    missed_kind: np.ndarray
    confusion: np.ndarray


def find_errors(matches: Matches, score_thr: float) -> Errors:
    """Find the errors at a score threshold.

    In the confusion matrix, the correct detections are those of the mAP. The remaining detections
    are then matched with the remaining objects of other classes at IoU 0.5, from the highest score
    to the lowest. So a row adds up to the objects of a class, a column to its detections, and
    perfect detections give a diagonal matrix even if objects of two classes have the same box.
    A detection that no object is left for is in the row `already detected` if it overlaps an
    object, otherwise in the row `background`.
    """
    above = matches.score >= score_thr
    correct, wrong = above & matches.correct, above & (matches.match < 0)
    detected = np.zeros(len(matches.truth), bool)
    detected[matches.match[correct]] = True
    missed = ~detected & ~matches.crowd
    pairs = matches.pairs.select(~matches.crowd[matches.pairs.truth])
    same_class = matches.detections.label[pairs.detection] == matches.truth.label[pairs.truth]
    wrong_kind = _wrong_kinds(len(matches.score), pairs, same_class)
    return Errors(
        correct,
        wrong,
        wrong_kind,
        missed,
        _missed_kinds(matches, wrong, pairs, same_class),
        _confusion(matches, correct, wrong, wrong_kind, missed, pairs),
    )


def size_of(area: np.ndarray) -> np.ndarray:
    """Return the index into `SIZES` of each area in pixels."""
    return np.searchsorted(SIZE_LIMITS, area, side="right")


def _wrong_kinds(count: int, pairs: Pairs, same_class: np.ndarray) -> np.ndarray:
    own, other = (_highest(count, pairs.select(mask)) for mask in (same_class, ~same_class))
    conditions = [own >= MATCH_IOU, other >= MATCH_IOU, own >= LOW_IOU, other >= LOW_IOU]
    return np.select(conditions, range(4), 4)


def _highest(count: int, pairs: Pairs) -> np.ndarray:
    """Return the highest IoU of each detection."""
    highest = np.zeros(count)
    np.maximum.at(highest, pairs.detection, pairs.iou)
    return highest


def _missed_kinds(
    matches: Matches, wrong: np.ndarray, pairs: Pairs, same_class: np.ndarray
) -> np.ndarray:
    overlaps = pairs.iou >= MATCH_IOU
    by_wrong = wrong[pairs.detection]
    reasons = np.zeros((3, len(matches.truth)), bool)
    reasons[0, pairs.truth[by_wrong & overlaps & ~same_class]] = True
    reasons[1, pairs.truth[by_wrong & ~overlaps & same_class]] = True
    reasons[2, matches.match[matches.correct]] = True
    return np.select(list(reasons), range(3), 3)


def _confusion(
    matches: Matches,
    correct: np.ndarray,
    wrong: np.ndarray,
    wrong_kind: np.ndarray,
    missed: np.ndarray,
    pairs: Pairs,
) -> np.ndarray:
    possible = wrong[pairs.detection] & missed[pairs.truth] & (pairs.iou >= MATCH_IOU)
    position = np.empty(len(wrong), int)
    position[np.argsort(-matches.score, kind="stable")] = np.arange(len(wrong))
    confused = match_greedily(pairs.select(possible), position, matches.detections, matches.crowd)
    match = np.where(correct, matches.match, confused)
    classes = len(matches.classes)
    overlaps_object = wrong_kind < 2  # a duplicate, or a wrong class
    row = np.where(overlaps_object, classes, classes + 1)
    row[match >= 0] = matches.truth.label[match[match >= 0]]
    used = correct | wrong
    matrix = np.zeros((classes + len(UNMATCHED_ROWS), classes + 1), int)
    np.add.at(matrix, (row[used], matches.detections.label[used]), 1)
    taken = np.zeros(len(matches.truth), bool)
    taken[match[used & (match >= 0)]] = True
    np.add.at(matrix, (matches.truth.label[missed & ~taken], classes), 1)
    return matrix
