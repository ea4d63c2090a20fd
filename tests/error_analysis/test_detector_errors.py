"""The numbers of an analysis agree with each other, in the text and in the JSON."""

from __future__ import annotations

import json
import math

import pytest

from mixdet.error_analysis import (
    DetectorErrors,
    analyze_errors,
    errors_as_dict,
    errors_as_text,
)
from mixdet.errors import MixDetError
from tests.error_analysis.conftest import CLASSES, detect, random_case

BOX, FAR, LARGE = (0, 0, 40, 40), (200, 200, 20, 20), (300, 300, 100, 100)


@pytest.mark.parametrize("seed", range(4))
def test_all_parts_count_the_same_boxes(scored, seed):
    data, detections = random_case(scored, seed)
    errors = analyze_errors(data, detections)
    assert isinstance(errors, DetectorErrors)
    rates = errors.overall.at(errors.score_thr)
    assert errors.wrong_kinds().sum() == rates.wrong
    assert errors.missed_kinds().sum() == rates.objects - rates.correct
    assert errors.missed_by_size().sum() == rates.objects - rates.correct
    assert errors.objects_by_size().sum(1).tolist() == [curve.objects for curve in errors.curves]
    images = errors.image_errors()
    assert sum(image["wrong"] for image in images) == rates.wrong
    assert sum(image["missed"] for image in images) == rates.objects - rates.correct
    totals = [image["wrong"] + image["missed"] for image in images]
    assert totals == sorted(totals, reverse=True)
    correct = [curve.at(errors.score_thr).correct for curve in errors.curves]
    assert errors.errors.confusion.diagonal()[:3].tolist() == correct
    assert sum(correct) == rates.correct
    found = errors_as_dict(errors)
    assert found["overall"]["best"]["score_thr"] == errors.score_thr
    assert found["overall"]["at_score_thr"]["wrong"] == rates.wrong
    matrix = found["confusion_matrix"]
    expected = [float(any(counts)) for counts in matrix["counts"]]
    assert [sum(row) for row in matrix["shares"]] == pytest.approx(expected)


def test_the_json_has_all_numbers_and_no_nan(scored):
    data = scored([(1, 0, BOX), (1, 1, LARGE), (2, 0, FAR)], (1, 2, 3))
    found = detect((1, 0, BOX, 0.9), (1, 2, BOX, 0.8), (2, 1, FAR, 0.95))
    errors = analyze_errors(data, found, ap={"cat": 0.5})
    content = json.loads(json.dumps(errors_as_dict(errors), allow_nan=False))
    assert errors.score_thr == content["score_thr"] == 0.9
    cat, dog, cow = content["classes"]
    assert [one["name"] for one in (cat, dog, cow)] == list(CLASSES)
    assert (cat["ap"], dog["ap"], cow["ap50"], cow["best"]) == (0.5, None, None, None)
    assert cat["ap50"] == pytest.approx(51 / 101)  # one of two objects, before any wrong box
    assert cat["best"] == {
        **{"score_thr": 0.9, "correct": 1, "wrong": 0, "missed": 1},
        **{"precision": 1.0, "recall": 0.5, "f1": pytest.approx(2 / 3)},
    }
    assert len(cat["curve"]["f1"]) == len(content["curve_score_thr"]) == 101
    assert cat["curve"]["recall"][90] == 0.5
    assert cat["curve"]["recall"][91] == 0
    assert cat["curve"]["precision"][91] is None
    assert content["confusion_matrix"]["true"] == [*CLASSES, "already detected", "background"]
    assert content["confusion_matrix"]["counts"] == [
        [1, 1, 0, 0],
        [0, 0, 0, 1],
        [0, 0, 0, 0],
        [0, 0, 0, 0],
        [0, 0, 0, 0],
    ]
    assert content["wrong_detections"]["wrong class"] == {"small": 1, "medium": 0, "large": 0}
    assert content["missed_objects"]["wrong class"]["small"] == 1
    assert content["missed_objects"]["not detected"]["large"] == 1
    assert content["images_with_errors"] == [
        {"id": 2, "file_name": "2.png", "objects": 1, "missed": 1, "wrong": 1},
        {"id": 1, "file_name": "1.png", "objects": 2, "missed": 1, "wrong": 0},
    ]


def test_the_text_states_the_threshold_and_the_confusions(scored):
    data = scored([(1, 0, BOX), (1, 1, LARGE), (2, 0, FAR)], (1, 2))
    found = detect((1, 0, BOX, 0.9), (2, 1, FAR, 0.95))
    errors = analyze_errors(data, found)
    text = errors_as_text(errors)
    assert "score threshold 0.9 (the highest F1 over all classes)" in text
    assert "1 correct and 1 wrong detections, 2 of 3 objects missed" in text
    assert "cat taken for dog (1)" in text
    assert "--score-thr" in text
    assert "score threshold 0.95 (as given)" in errors_as_text(
        analyze_errors(data, found, score_thr=0.95)
    )


def test_a_small_object_has_the_area_of_its_annotation(scored):
    errors = analyze_errors(scored([(1, 0, BOX, {"area": 500}), (1, 0, LARGE)]), [])
    assert errors.objects_by_size().tolist() == [[1, 0, 1], [0, 0, 0], [0, 0, 0]]
    assert errors.missed_by_size().tolist() == errors.objects_by_size().tolist()


def test_without_a_correct_detection_the_threshold_is_that_of_predict(scored):
    for found in ([], detect((1, 0, FAR, 0.9), (1, 1, BOX, 0.1))):
        errors = analyze_errors(scored([(1, 0, BOX)]), found)
        assert errors.score_thr == 0.3
        assert "no detection is correct at any threshold" in errors_as_text(errors)
        json.dumps(errors_as_dict(errors), allow_nan=False)


def test_scores_outside_0_to_1_are_analyzed(scored):
    data = scored([(1, 0, BOX), (1, 0, LARGE)])
    errors = analyze_errors(data, detect((1, 0, BOX, 7.5), (1, 0, LARGE, -2.0)))
    assert (errors.thresholds[0], errors.thresholds[-1]) == (-2.0, 7.5)
    assert errors.overall.at(errors.score_thr).f1 == 1


def test_what_cannot_be_analyzed_is_refused(scored):
    for data in (scored([]), scored([(1, 0, BOX, {"iscrowd": 1})])):
        with pytest.raises(MixDetError, match="no object of the scored classes"):
            analyze_errors(data, [])
    with pytest.raises(MixDetError, match="threshold nan"):
        analyze_errors(scored([(1, 0, BOX)]), [], score_thr=math.nan)
