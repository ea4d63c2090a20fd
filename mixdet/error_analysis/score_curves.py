"""Precision, recall and F1 over the score threshold."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from mixdet.error_analysis.matching import Matches

RECALLS = np.linspace(0, 1, 101)  # at which COCO averages the precision


@dataclass(frozen=True)
class Rates:
    """What a score threshold gives.

    Attributes:
        score_thr: Detections with at least this score are used.
        correct: Number of correct detections.
        wrong: Number of wrong detections.
        objects: Number of objects.
    """

    score_thr: float
    correct: int
    wrong: int
    objects: int

    @property
    def precision(self) -> float:
        """Share of the detections that is correct, NaN without detections."""
        return _ratio(self.correct, self.correct + self.wrong)

    @property
    def recall(self) -> float:
        """Share of the objects that is detected, NaN without objects."""
        return _ratio(self.correct, self.objects)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall, NaN without objects."""
        if not self.objects:
            return math.nan
        return _ratio(2 * self.correct, self.correct + self.wrong + self.objects)


@dataclass(frozen=True)
class ScoreCurve:
    """Numbers of correct and of wrong detections over the score threshold.

    Attributes:
        scores: (k,) the different scores, falling. Each is a threshold.
        correct: (k,) number of correct detections with at least this score.
        wrong: (k,) number of wrong detections with at least this score.
        objects: Number of objects.
        ap50: Average precision at IoU 0.5, as pycocotools computes it. NaN without objects.
    """

    scores: np.ndarray
    correct: np.ndarray
    wrong: np.ndarray
    objects: int
    ap50: float

    @classmethod
    def from_detections(cls, score: np.ndarray, correct: np.ndarray, objects: int) -> ScoreCurve:
        """Count the detections at each threshold.

        Args:
            score: (n,) scores of the detections that are not on a crowd. Detections with equal
                scores are in the order in which pycocotools visits them.
            correct: (n,) whether each detection is correct.
            objects: Number of objects.
        """
        order = np.argsort(-score, kind="stable")
        score, correct = score[order], correct[order]
        ap50 = _average_precision(correct, objects)
        last = np.flatnonzero(np.diff(score, append=-np.inf))  # of each run of equal scores
        correct_sum = np.cumsum(correct)[last]
        return cls(score[last], correct_sum, last + 1 - correct_sum, objects, ap50)

    def at(self, score_thr: float) -> Rates:
        """Return what a threshold gives."""
        count = np.searchsorted(-self.scores, -score_thr, side="right")
        if not count:
            return Rates(score_thr, 0, 0, self.objects)
        correct, wrong = int(self.correct[count - 1]), int(self.wrong[count - 1])
        return Rates(score_thr, correct, wrong, self.objects)

    def best(self) -> Rates | None:
        """Return what the threshold with the highest F1 gives, or None if nothing is detected.

        Of equal thresholds, the highest is taken. It is rounded down to few digits, without
        letting in another detection.
        """
        if not self.objects or not self.correct.any():
            return None
        best = int(np.argmax(2 * self.correct / (self.correct + self.wrong + self.objects)))
        below = self.scores[best + 1] if best + 1 < len(self.scores) else -math.inf
        return self.at(_round_down(self.scores[best], below))


def class_curves(matches: Matches) -> list[ScoreCurve]:
    """Return the curve of each class."""
    counted = ~matches.on_crowd
    curves = []
    for label, objects in enumerate(matches.object_counts):
        chosen = counted & (matches.detections.label == label)
        scores, correct = matches.score[chosen], matches.correct[chosen]
        curves.append(ScoreCurve.from_detections(scores, correct, int(objects)))
    return curves


def overall_curve(matches: Matches) -> ScoreCurve:
    """Return the curve of all classes together, which have the same threshold (micro-average)."""
    counted = ~matches.on_crowd
    return ScoreCurve.from_detections(
        matches.score[counted], matches.correct[counted], int(matches.object_counts.sum())
    )


def _average_precision(correct: np.ndarray, objects: int) -> float:
    if not objects:
        return math.nan
    correct_sum = np.cumsum(correct)
    precision = correct_sum / np.arange(1, len(correct) + 1)
    # the highest precision at this recall or at a higher one
    highest = np.maximum.accumulate(precision[::-1])[::-1]
    reached = np.searchsorted(correct_sum / objects, RECALLS)
    return float(np.append(highest, 0)[reached].mean())


def _round_down(score: float, below: float) -> float:
    """Return the number with the fewest digits, two or more, in (`below`, `score`]."""
    for digits in range(2, 16):
        rounded = math.floor(score * 10**digits) / 10**digits
        if below < rounded <= score:
            return rounded
    return float(score)


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else math.nan
