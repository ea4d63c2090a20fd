"""Precision, recall, F1 and AP50 over the threshold equal those of scikit-learn and pycocotools."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import precision_recall_curve

from mixdet.error_analysis.matching import match_boxes
from mixdet.error_analysis.score_curves import ScoreCurve, class_curves, overall_curve
from mixdet.evaluation.coco_scores import score_boxes
from tests.error_analysis.conftest import detect, random_case

BOX, FAR = (10, 10, 40, 40), (200, 200, 20, 20)


@pytest.mark.parametrize("seed", range(5))
def test_rates_are_those_of_scikit_learn(scored, seed):
    matches = match_boxes(*random_case(scored, seed))
    counted = ~matches.on_crowd
    correct, scores = matches.correct[counted], matches.score[counted]
    curve = overall_curve(matches)
    precision, recall, thresholds = precision_recall_curve(correct, scores)
    found = correct.sum() / curve.objects  # scikit-learn knows only objects that are detected
    assert len(thresholds) == len(curve.scores)
    for p, r, threshold in zip(precision, recall, thresholds, strict=False):
        rates = curve.at(threshold)
        assert (rates.precision, rates.recall) == pytest.approx((p, r * found))
        assert rates.f1 == pytest.approx(2 * p * r * found / (p + r * found) if r else 0)


@pytest.mark.parametrize("seed", range(8))
def test_ap50_is_that_of_pycocotools(scored, seed):
    """The scores have many ties, whose order changes the AP."""
    data, detections = random_case(scored, seed)
    curves = class_curves(match_boxes(data, detections))
    for category, curve in zip(data.category_ids, curves, strict=True):
        stats = score_boxes(data.annotations, detections, [category], data.image_ids).stats
        expected = stats["bbox_mAP_50"] if curve.objects else math.nan
        assert curve.ap50 == pytest.approx(expected, abs=1e-12, nan_ok=True)


@pytest.mark.parametrize("seed", range(8))
def test_the_best_threshold_has_the_highest_f1_of_all(scored, seed):
    curve = overall_curve(match_boxes(*random_case(scored, seed)))
    best = curve.best()
    f1 = [curve.at(score).f1 for score in curve.scores]
    assert best.f1 == max(f1)
    # the rounded threshold lets in the same detections as the highest score with this F1
    first = curve.at(curve.scores[int(np.argmax(f1))])
    assert (best.correct, best.wrong) == (first.correct, first.wrong)


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ((0.98765, 0.4), 0.98),  # two digits are enough
        ((0.98765, 0.985), 0.987),
        ((0.98765, 0.98764), 0.98765),
        ((0.29, 0.1), 0.28),  # 0.29 * 100 is a little less than 29
        ((1.0, 0.5), 1.0),
        ((1e-7, 0.0), 1e-7),
        ((5.5, 2.0), 5.5),
        ((-1.234, -2.0), -1.24),
    ],
)
def test_the_best_threshold_has_few_digits(scores, expected):
    curve = ScoreCurve.from_detections(np.array(scores), np.array([True, False]), 1)
    assert curve.best().score_thr == expected
    assert curve.at(expected).correct == 1
    assert curve.at(expected).wrong == 0


def test_a_detection_at_the_threshold_is_used(scored):
    matches = match_boxes(
        scored([(1, 0, BOX)]), detect((1, 0, BOX, 0.5), (1, 0, FAR, 0.5), (1, 0, FAR, 0.4))
    )
    (curve, *_) = class_curves(matches)
    assert (curve.at(0.5).correct, curve.at(0.5).wrong) == (1, 1)
    assert (curve.at(0.51).correct, curve.at(0.51).wrong) == (0, 0)
    assert math.isnan(curve.at(0.51).precision)
    assert curve.at(0).wrong == 2


def test_rates_without_objects_or_detections(scored):
    matches = match_boxes(scored([(1, 0, BOX)]), detect((1, 1, BOX, 0.9)))
    cat, dog, cow = class_curves(matches)
    assert (cat.at(0.5).recall, cat.at(0.5).f1, cat.ap50, cat.best()) == (0, 0, 0, None)
    assert math.isnan(cat.at(0.5).precision)
    assert dog.at(0.5).precision == 0
    assert math.isnan(dog.at(0.5).recall)
    assert math.isnan(dog.at(0.5).f1)
    assert math.isnan(dog.ap50)
    assert dog.best() is None
    assert cow.best() is None
