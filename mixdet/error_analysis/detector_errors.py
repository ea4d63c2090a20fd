"""The errors of one detector on one data set, counted by class, size, kind and image."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mixdet.error_analysis.error_kinds import (
    MISSED_KINDS,
    SIZES,
    WRONG_KINDS,
    Errors,
    find_errors,
    size_of,
)
from mixdet.error_analysis.matching import Matches, match_boxes
from mixdet.error_analysis.score_curves import ScoreCurve, class_curves, overall_curve
from mixdet.errors import MixDetError
from mixdet.evaluation.scored_data import ScoredData

DEFAULT_SCORE_THR = 0.3  # of `tools/predict.py`
CURVE_POINTS = 101


@dataclass(frozen=True)
class DetectorErrors:
    """The errors of a detector at a score threshold, and the rates over the threshold.

    Attributes:
        scored: The annotations, the classes and the images.
        matches: The detections and the true boxes, matched at IoU 0.5.
        score_thr: The score threshold of `errors`.
        chosen: Whether the caller chose the threshold. Otherwise it has the highest F1 over all
            classes, or is 0.3 if no detection is correct.
        errors: The wrong detections, the missed objects and the confusion matrix.
        overall: The rates of all classes together.
        curves: The rates of each class.
        ap: AP over IoU 0.50 to 0.95 of each class, NaN if it is not known or not defined.
    """

    scored: ScoredData
    matches: Matches
    score_thr: float
    chosen: bool
    errors: Errors
    overall: ScoreCurve
    curves: list[ScoreCurve]
    ap: list[float]

    @property
    def classes(self) -> list[str]:
        """Class names, indexed by label."""
        return self.matches.classes

    @property
    def mean_ap(self) -> float:
        """The mean of `ap` over the classes that have one."""
        return _mean(self.ap)

    @property
    def mean_ap50(self) -> float:
        """The mean AP at IoU 0.5 over the classes that have objects."""
        return _mean([curve.ap50 for curve in self.curves])

    @property
    def thresholds(self) -> np.ndarray:
        """(101,) evenly spaced score thresholds from 0 to 1, or to a score outside this range."""
        scores = self.overall.scores
        return np.linspace(min([0, *scores[-1:]]), max([1, *scores[:1]]), CURVE_POINTS)

    def objects_by_size(self) -> np.ndarray:
        """Return the number of objects by class and size, (classes, 3)."""
        return self._by_size(self.matches.truth.label, ~self.matches.crowd, len(self.classes))

    def missed_by_size(self) -> np.ndarray:
        """Return the number of missed objects by class and size, (classes, 3)."""
        return self._by_size(self.matches.truth.label, self.errors.missed, len(self.classes))

    def missed_kinds(self) -> np.ndarray:
        """Return the number of missed objects by reason and size, (reasons, 3)."""
        return self._by_size(self.errors.missed_kind, self.errors.missed, len(MISSED_KINDS))

    def wrong_kinds(self) -> np.ndarray:
        """Return the number of wrong detections by kind and size, (kinds, 3)."""
        sizes = size_of(self.matches.detections.area)
        return _count(self.errors.wrong_kind, sizes, self.errors.wrong, len(WRONG_KINDS))

    def confusion_shares(self) -> np.ndarray:
        """Return the confusion matrix, each row divided by its sum. A row without boxes is 0."""
        counts = self.errors.confusion
        return counts / np.maximum(counts.sum(1, keepdims=True), 1)

    def confusions(self, count: int = 10) -> list[tuple[str, str, int]]:
        """Return the most frequent confusions as (true class, predicted class, number)."""
        matrix = self.errors.confusion[: len(self.classes), :-1].copy()
        np.fill_diagonal(matrix, 0)
        order = np.argsort(-matrix, axis=None, kind="stable")[:count]
        rows, columns = np.unravel_index(order, matrix.shape)
        return [
            (self.classes[row], self.classes[column], int(matrix[row, column]))
            for row, column in zip(rows, columns, strict=True)
            if matrix[row, column]
        ]

    def image_errors(self) -> list[dict[str, Any]]:
        """Return the images with errors, those with most errors first.

        Each has `id`, `file_name`, and the numbers of `objects`, `missed` objects and `wrong`
        detections.
        """
        truth, count = self.matches.truth, len(self.matches.image_ids)
        objects = np.bincount(truth.image[~self.matches.crowd], minlength=count)
        missed = np.bincount(truth.image[self.errors.missed], minlength=count)
        wrong = np.bincount(self.matches.detections.image[self.errors.wrong], minlength=count)
        images = self.scored.annotations.imgs
        return [
            {
                "id": self.matches.image_ids[index],
                "file_name": images[self.matches.image_ids[index]].get("file_name"),
                "objects": int(objects[index]),
                "missed": int(missed[index]),
                "wrong": int(wrong[index]),
            }
            for index in np.argsort(-(missed + wrong), kind="stable")
            if missed[index] + wrong[index]
        ]

    def _by_size(self, rows: np.ndarray, chosen: np.ndarray, row_count: int) -> np.ndarray:
        return _count(rows, size_of(self.matches.truth.area), chosen, row_count)


def analyze_errors(
    scored: ScoredData,
    detections: Sequence[dict[str, Any]],
    *,
    score_thr: float | None = None,
    ap: Mapping[str, float] | None = None,
) -> DetectorErrors:
    """Analyze the errors of a detector.

    Args:
        scored: The annotations, the classes and the images.
        detections: COCO results.
        score_thr: The score threshold. By default the one with the highest F1 over all classes.
        ap: AP of each class by its name, such as `BoxScores.per_class`.

    Raises:
        MixDetError: There is no object, or a detection cannot be used (see `match_boxes`).
    """
    if not scored.has_objects:
        raise MixDetError(
            "the images have no object of the scored classes, so there are no errors to analyze: "
            "give images with annotations"
        )
    if score_thr is not None and not math.isfinite(score_thr):
        raise MixDetError(f"the score threshold {score_thr} is not a number: give one from 0 to 1")
    matches = match_boxes(scored, detections)
    overall = overall_curve(matches)
    best = overall.best()
    chosen = score_thr is not None
    if not chosen:
        score_thr = best.score_thr if best else DEFAULT_SCORE_THR
    return DetectorErrors(
        scored,
        matches,
        score_thr,
        chosen,
        find_errors(matches, score_thr),
        overall,
        class_curves(matches),
        [(ap or {}).get(name, math.nan) for name in scored.classes],
    )


def _count(rows: np.ndarray, sizes: np.ndarray, chosen: np.ndarray, row_count: int) -> np.ndarray:
    """Return the number of chosen boxes by row and size, (rows, 3)."""
    cells = rows[chosen] * len(SIZES) + sizes[chosen]
    return np.bincount(cells, minlength=row_count * len(SIZES)).reshape(row_count, len(SIZES))


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan
