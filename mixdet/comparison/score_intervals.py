"""Confidence intervals of a difference in mAP, over seeds and over validation images.

A row is a config of a comparison. It has one score per seed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from mixdet.comparison.image_matches import ImageAP

CONFIDENCE = 0.95
MIN_BOOTSTRAP_SEEDS = 8  # with fewer seeds, the bootstrap's interval would be too narrow

NO_SPREAD = 1e-9  # differences whose range is smaller are equal, up to rounding


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
    single difference says nothing about the spread. Nor do fewer than 8 equal differences, unless
    they are all zero, as those of the same network are.

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
    if np.ptp(differences) < NO_SPREAD:
        if len(seeds) < MIN_BOOTSTRAP_SEEDS and abs(mean) >= NO_SPREAD:
            return Interval(mean, -math.inf, math.inf)
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
