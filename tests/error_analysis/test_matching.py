"""Detections are matched as in pycocotools, and what cannot be matched is refused."""

from __future__ import annotations

import contextlib
import io

import pytest

from mixdet.error_analysis.matching import match_boxes
from mixdet.errors import MixDetError
from mixdet.evaluation.evaluators import make_evaluator
from tests.error_analysis.conftest import detect, random_case

BOX = (10, 10, 40, 40)


def coco_matches(data, detections) -> list[tuple]:
    """Return (image, category, score, box of the match, ignored) of each detection by COCOeval."""
    evaluation = make_evaluator(data.annotations, detections, data.category_ids, data.image_ids)
    evaluation.params.iouThrs = evaluation.params.iouThrs[:1]
    evaluation.params.areaRng = evaluation.params.areaRng[:1]
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.evaluate()
    images, categories = sorted(data.image_ids), sorted(data.category_ids)
    found = []
    for result in filter(None, evaluation.evalImgs):
        columns = (result[key] for key in ("dtScores", "dtMatches", "dtIgnore"))
        scores, matches, ignored = columns
        for score, match, ignore in zip(scores, matches[0], ignored[0], strict=True):
            box = tuple(evaluation.cocoGt.anns[int(match)]["bbox"]) if match else None
            image = images[result["image_id"] - 1]
            category = categories[result["category_id"] - 1]
            found.append((image, category, score, box, bool(ignore)))
    return sorted(found, key=str)


def our_matches(data, detections) -> list[tuple]:
    matches = match_boxes(data, detections)
    rows = zip(matches.detections.image, matches.detections.label, matches.score, matches.match,
               matches.on_crowd, strict=True)  # fmt: skip
    return sorted(
        (
            (
                matches.image_ids[image],
                data.category_ids[label],
                float(score),
                tuple(matches.truth.box[match].tolist()) if match >= 0 else None,
                bool(ignored),
            )
            for image, label, score, match, ignored in rows
        ),
        key=str,
    )


@pytest.mark.parametrize("seed", range(12))
def test_matches_are_those_of_pycocotools(scored, seed):
    data, detections = random_case(scored, seed)
    expected = coco_matches(data, detections)
    assert our_matches(data, detections) == expected
    assert {match for *_, match, _ in expected} > {None}


def test_at_most_100_detections_of_a_class_in_an_image_are_matched(scored):
    data, detections = random_case(scored, 0, detections=1500)
    ours = our_matches(data, detections)
    assert ours == coco_matches(data, detections)
    assert len(ours) == 900


def test_only_the_scored_classes_and_images_count(scored):
    objects = [(1, 0, BOX), (2, 0, BOX), (1, 1, BOX)]
    data = scored(objects, (1, 2), classes=["cat"], image_ids=[1])
    detections = detect((1, 0, BOX, 0.9), (2, 0, BOX, 0.8), (1, 1, BOX, 0.7))
    matches = match_boxes(data, detections)
    assert matches.classes == ["cat"]
    assert matches.score.tolist() == [0.9]
    assert matches.object_counts.tolist() == [1]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"image_id": 99}, "image_id 99"),
        ({"image_id": "1"}, "image_id '1'"),
        ({"category_id": 99}, "category_id 99"),
        ({"category_id": None}, "category_id None"),
        ({"category_id": [7]}, "COCO's results format"),
        ({"score": float("nan")}, "not finite"),
        ({"score": "0.9"}, "COCO's results format"),
        ({"score": None}, "COCO's results format"),
        ({"bbox": [1, 2, 3, float("inf")]}, "not finite"),
        ({"bbox": [1, 2, 3]}, "COCO's results format"),
        ({"bbox": [[1, 2, 3, 4]]}, "COCO's results format"),
    ],
)
def test_detections_that_cannot_be_used_are_refused(scored, change, words):
    (good,) = detect((1, 0, BOX, 0.9))
    for detections in ([{**good, **change}], [good, {**good, **change}]):
        with pytest.raises(MixDetError, match=words):
            match_boxes(scored([(1, 0, BOX)]), detections)


@pytest.mark.parametrize("key", ["image_id", "category_id", "bbox", "score"])
def test_detections_that_lack_a_key_are_refused(scored, key):
    (detection,) = detect((1, 0, BOX, 0.9))
    del detection[key]
    with pytest.raises(MixDetError, match="COCO's results format"):
        match_boxes(scored([(1, 0, BOX)]), [detection])
