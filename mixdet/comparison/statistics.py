"""What can be told apart: intervals over seeds, and over validation images."""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from scipy import stats

from mixdet.evaluation.coco_scores import as_coco

LEVEL = 0.95
FEW = 8  # seeds below which a t interval is used: a bootstrap of so few values is too narrow


class Interval(NamedTuple):
    """A difference to the baseline with its 95 % interval, in the unit of what was compared."""

    mean: float
    low: float
    high: float

    @property
    def separable(self) -> bool:
        """Whether the interval leaves zero out. A side that is not finite separates nothing."""
        return self.low > 0 or self.high < 0


def paired_interval(ours: Mapping[int, float], base: Mapping[int, float]) -> Interval:
    """The mean difference over the seeds that both have, each seed with itself.

    Below 8 seeds Student's t interval of the differences, from 8 on a BCa bootstrap of their mean.
    With one seed the interval is unbounded: a single difference says nothing about its spread.

    Args:
        ours: Score by seed.
        base: The baseline's.

    Raises:
        ValueError: No seed is in both.
    """
    seeds = sorted(ours.keys() & base.keys())
    if not seeds:
        raise ValueError("no seed in common")
    differences = np.array([ours[seed] - base[seed] for seed in seeds])
    mean = float(differences.mean())
    if len(seeds) == 1:
        return Interval(mean, -math.inf, math.inf)
    if np.ptp(differences) == 0:
        return Interval(mean, mean, mean)
    if len(seeds) < FEW:
        error = stats.sem(differences)
        low, high = stats.t.interval(LEVEL, len(seeds) - 1, loc=mean, scale=error)
    else:
        found = stats.bootstrap(
            (differences,), np.mean, confidence_level=LEVEL, method="BCa", random_state=0
        )
        low, high = found.confidence_interval
    return Interval(mean, float(low), float(high))


class ImageAP:
    """mAP of one file of detections for any weighting of the images.

    A bootstrap draws images with replacement: a weighting by whole numbers. What one pass of
    pycocotools matched is kept, so that a draw costs a cumulative sum; pycocotools itself would
    take most of a second for each. With weights of one it gives pycocotools' mAP.

    Args:
        truth: The annotations.
        detections: COCO results.
        images: Ids of the images, in the order of the weights.
    """

    def __init__(
        self, truth: COCO, detections: Sequence[dict[str, Any]], images: Sequence[int]
    ) -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            evaluation = COCOeval(truth, as_coco(truth, detections), "bbox")
            evaluation.params.areaRng = evaluation.params.areaRng[:1]
            evaluation.params.areaRngLbl = evaluation.params.areaRngLbl[:1]
            evaluation.params.imgIds = list(images)
            evaluation.evaluate()
        self._recalls = evaluation.params.recThrs
        most = evaluation.params.maxDets[-1]
        # evaluate() sorts the ids; the weights come in the caller's order
        place = {image: index for index, image in enumerate(images)}
        order = [place[image] for image in evaluation.params.imgIds]
        count = len(images)
        self._classes = [
            _Matches.of(evaluation.evalImgs[start : start + count], order, most)
            for start in range(0, len(evaluation.evalImgs), count)
        ]

    def __call__(self, weights: np.ndarray) -> float:
        """mAP over IoU 0.50 to 0.95; -1 where no image with a weight holds an object.

        Args:
            weights: (images,), how often each was drawn.
        """
        found = [matches.precision(weights, self._recalls) for matches in self._classes]
        found = [precision for precision in found if precision is not None]
        return float(np.mean(found)) if found else -1.0


class _Matches(NamedTuple):
    """Detections of one class, best first, and the objects that there are."""

    image: np.ndarray  # (n,) of a detection
    right: np.ndarray  # (IoUs, n) bool
    wrong: np.ndarray  # (IoUs, n) bool
    objects: np.ndarray  # (images,)

    @classmethod
    def of(cls, evaluated: Sequence[dict | None], order: Sequence[int], most: int) -> _Matches:
        objects, parts = np.zeros(len(order)), []
        for place, found in zip(order, evaluated, strict=True):
            if found is None:
                continue
            objects[place] = np.count_nonzero(np.asarray(found["gtIgnore"]) == 0)
            matched = found["dtMatches"][:, :most].astype(bool)
            kept = ~found["dtIgnore"][:, :most].astype(bool)
            scores = np.asarray(found["dtScores"][:most])
            parts.append((scores, np.full(len(scores), place), matched & kept, ~matched & kept))
        if not parts:
            none = np.zeros((1, 0), bool)
            return cls(np.zeros(0, int), none, none, objects)
        scores, image, right, wrong = (
            np.concatenate(part, axis=-1) for part in zip(*parts, strict=True)
        )
        best = np.argsort(
            -scores, kind="mergesort"
        )  # as pycocotools: equal scores keep their order
        return cls(image[best], right[:, best], wrong[:, best], objects)

    def precision(self, weights: np.ndarray, recalls: np.ndarray) -> np.ndarray | None:
        """(IoUs, recalls) interpolated precision, or None without an object."""
        objects = weights @ self.objects
        if not objects:
            return None
        weight = weights[self.image]
        right = np.cumsum(self.right * weight, axis=1)
        wrong = np.cumsum(self.wrong * weight, axis=1)
        precision = right / np.maximum(right + wrong, np.spacing(1))
        precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        padded = np.pad(precision, ((0, 0), (0, 1)))  # recall that is never reached: 0
        return np.stack(
            [
                row[np.searchsorted(recall, recalls, side="left")]
                for row, recall in zip(padded, right / objects, strict=True)
            ]
        )


def bootstrap_images(
    scorers: Mapping[str, Sequence[ImageAP]], images: int, draws: int = 300
) -> dict[str, Interval]:
    """Each row's difference to the first one, over draws of the validation images.

    All rows and seeds see the same draws; a row's score is the mean over its seeds. It says how far
    the difference hangs on which images were chosen, with the trained networks as they are: the
    spread of training is not in it.

    Args:
        scorers: By row, one scorer a seed.
        images: Validation images.
        draws: How many.

    Returns:
        By row, without the first.
    """
    generator = np.random.default_rng(0)
    scores: dict[str, list[float]] = {row: [] for row in scorers}
    for _ in range(draws):
        weights = np.bincount(generator.integers(images, size=images), minlength=images)
        for row, per_seed in scorers.items():
            scores[row].append(np.mean([score(weights) for score in per_seed]))
    everything = np.ones(images)
    whole = {row: np.mean([score(everything) for score in many]) for row, many in scorers.items()}
    base, *rows = scorers
    tail = 100 * (1 - LEVEL) / 2
    return {
        row: Interval(
            float(whole[row] - whole[base]),
            *(
                float(edge)
                for edge in np.percentile(
                    np.subtract(scores[row], scores[base]), (tail, 100 - tail)
                )
            ),
        )
        for row in rows
    }
