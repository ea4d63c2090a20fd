"""Confidence intervals of a difference in mAP, over seeds and over validation images.

A row is a config of a comparison. It has one score per seed.
"""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from pycocotools.coco import COCO
from scipy import stats

from mixdet.evaluation.coco_scores import make_evaluator, sorted_ids

CONFIDENCE = 0.95
MIN_BOOTSTRAP_SEEDS = 8  # with fewer seeds, the bootstrap's interval would be too narrow


class Interval(NamedTuple):
    """A difference to the baseline with its 95 % confidence interval, in the unit of the scores.

    Attributes:
        mean: The difference.
        low: Lower end of the interval.
        high: Upper end of the interval.
    """

    mean: float
    low: float
    high: float

    @property
    def separable(self) -> bool:
        """Whether the interval does not contain zero."""
        return self.low > 0 or self.high < 0


def paired_interval(ours: Mapping[int, float], baseline: Mapping[int, float]) -> Interval:
    """Compute the mean difference of a row to the baseline, with its confidence interval.

    The scores are paired by seed, and only seeds that both rows have are used. With fewer than 8
    seeds, the interval is Student's t interval of the differences. With 8 or more, the interval is
    a BCa bootstrap interval of the mean. With one seed, the interval is unbounded, because a
    single difference says nothing about the spread.

    Args:
        ours: Scores of a row by seed.
        baseline: Scores of the baseline by seed.

    Raises:
        ValueError: The rows have no seed in common.
    """
    seeds = sorted(ours.keys() & baseline.keys())
    if not seeds:
        raise ValueError("the rows have no seed in common")
    differences = np.array([ours[seed] - baseline[seed] for seed in seeds])
    mean = float(differences.mean())
    if len(seeds) == 1:
        return Interval(mean, -math.inf, math.inf)
    if np.ptp(differences) == 0:
        return Interval(mean, mean, mean)
    if len(seeds) < MIN_BOOTSTRAP_SEEDS:
        error = stats.sem(differences)
        low, high = stats.t.interval(CONFIDENCE, len(seeds) - 1, loc=mean, scale=error)
    else:
        bootstrap = stats.bootstrap(
            (differences,), np.mean, confidence_level=CONFIDENCE, method="BCa", random_state=0
        )
        low, high = bootstrap.confidence_interval
    return Interval(mean, float(low), float(high))


class ImageAP:
    """Computes the mAP on images that a bootstrap has drawn.

    A bootstrap draws images with replacement. The weight of an image is how often it was drawn.
    The constructor lets pycocotools match detections with objects. Each call then only computes
    cumulative sums. If all weights are 1, the result is the mAP of `score_boxes`.

    Args:
        truth: The annotations, from `load_coco`.
        detections: COCO results.
        images: Ids of the images, in the order of the weights.
        category_ids: Categories to evaluate, by default all categories of the file.
    """

    def __init__(
        self,
        truth: COCO,
        detections: Sequence[dict[str, Any]],
        images: Sequence[int | str],
        category_ids: Sequence[int | str] | None = None,
    ) -> None:
        evaluation = make_evaluator(truth, detections, category_ids, images)
        evaluation.params.areaRng = evaluation.params.areaRng[:1]
        evaluation.params.areaRngLbl = evaluation.params.areaRngLbl[:1]
        with contextlib.redirect_stdout(io.StringIO()):
            evaluation.evaluate()
        self._recalls = evaluation.params.recThrs
        max_detections = evaluation.params.maxDets[-1]
        # The evaluator sorts the ids, but the weights are in the caller's order.
        index_of = {image: index for index, image in enumerate(images)}
        order = [index_of[image] for image in sorted_ids(images)]
        count = len(images)
        self._classes = [
            _ClassMatches.from_evaluation(
                evaluation.evalImgs[start : start + count], order, max_detections
            )
            for start in range(0, len(evaluation.evalImgs), count)
        ]

    def __call__(self, weights: np.ndarray) -> float:
        """Compute the mAP over IoU 0.50 to 0.95.

        Args:
            weights: (images,) how often each image was drawn.

        Returns:
            The mAP, or -1 if no image with a weight above 0 holds an object.
        """
        precisions = [matches.precision(weights, self._recalls) for matches in self._classes]
        precisions = [precision for precision in precisions if precision is not None]
        return float(np.mean(precisions)) if precisions else -1.0


class _ClassMatches(NamedTuple):
    """The objects and the n detections of one class. The highest score is first.

    Attributes:
        image: (n,) index of each detection's image.
        correct: (IoU thresholds, n) bool, whether a detection is matched with an object.
        wrong: (IoU thresholds, n) bool, whether a detection is matched with no object. A detection
            that is neither correct nor wrong is ignored.
        objects: (images,) number of objects in each image.
    """

    image: np.ndarray
    correct: np.ndarray
    wrong: np.ndarray
    objects: np.ndarray

    @classmethod
    def from_evaluation(
        cls, evaluated: Sequence[dict | None], order: Sequence[int], max_detections: int
    ) -> _ClassMatches:
        """Collect the matches from `COCOeval.evalImgs` of one class.

        Args:
            evaluated: The entries, one per image.
            order: For each entry, the index of its image.
            max_detections: Largest number of detections per image. Further detections are left out.
        """
        objects, parts = np.zeros(len(order)), []
        for index, entry in zip(order, evaluated, strict=True):
            if entry is None:
                continue
            objects[index] = np.count_nonzero(np.asarray(entry["gtIgnore"]) == 0)
            matched = entry["dtMatches"][:, :max_detections].astype(bool)
            counted = ~entry["dtIgnore"][:, :max_detections].astype(bool)
            scores = np.asarray(entry["dtScores"][:max_detections])
            image = np.full(len(scores), index)
            parts.append((scores, image, matched & counted, ~matched & counted))
        if not parts:
            empty = np.zeros((1, 0), bool)
            return cls(np.zeros(0, int), empty, empty, objects)
        scores, image, correct, wrong = (
            np.concatenate(part, axis=-1) for part in zip(*parts, strict=True)
        )
        # A stable sort, as in pycocotools: equal scores keep their order.
        order_by_score = np.argsort(-scores, kind="mergesort")
        return cls(
            image[order_by_score], correct[:, order_by_score], wrong[:, order_by_score], objects
        )

    def precision(self, weights: np.ndarray, recalls: np.ndarray) -> np.ndarray | None:
        """Return the precision (IoU thresholds, recalls), or None if no object is drawn."""
        objects = weights @ self.objects
        if not objects:
            return None
        weight = weights[self.image]
        correct = np.cumsum(self.correct * weight, axis=1)
        wrong = np.cumsum(self.wrong * weight, axis=1)
        precision = correct / np.maximum(correct + wrong, np.spacing(1))
        precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        padded = np.pad(precision, ((0, 0), (0, 1)))  # 0 for a recall that is never reached
        return np.stack(
            [
                row[np.searchsorted(recall, recalls, side="left")]
                for row, recall in zip(padded, correct / objects, strict=True)
            ]
        )


def bootstrap_images(
    scorers: Mapping[str, Sequence[ImageAP]], images: int, draws: int = 300
) -> dict[str, Interval]:
    """Compute intervals of each row's difference in mAP to the first row by drawing images.

    All rows and seeds are scored on the same draws. The score of a row is the mean over its seeds.
    The interval shows how much the difference depends on the choice of the images. The
    interval does not contain the spread of training, since the trained networks stay the same.

    Args:
        scorers: For each row, one `ImageAP` per seed.
        images: Number of validation images.
        draws: Number of draws.

    Returns:
        The intervals by row, without the first row.
    """
    generator = np.random.default_rng(0)
    scores: dict[str, list[float]] = {row: [] for row in scorers}
    for _ in range(draws):
        weights = np.bincount(generator.integers(images, size=images), minlength=images)
        for row, row_scorers in scorers.items():
            scores[row].append(np.mean([scorer(weights) for scorer in row_scorers]))
    ones = np.ones(images)
    full_scores = {
        row: np.mean([scorer(ones) for scorer in row_scorers])
        for row, row_scorers in scorers.items()
    }
    baseline, *rows = scorers
    tail = 100 * (1 - CONFIDENCE) / 2
    intervals = {}
    for row in rows:
        differences = np.subtract(scores[row], scores[baseline])
        low, high = np.percentile(differences, (tail, 100 - tail))
        mean = float(full_scores[row] - full_scores[baseline])
        intervals[row] = Interval(mean, float(low), float(high))
    return intervals
