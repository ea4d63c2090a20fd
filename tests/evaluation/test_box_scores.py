"""`as_results` and `score_boxes` give the same AP as a computation by hand."""

from __future__ import annotations

import json

import pytest

from mixdet.evaluation import BoxScores, as_results, load_coco, score_boxes


def test_finding_one_of_two_objects_gives_a_recall_of_one_half(tmp_path):
    boxes = [[10, 10, 40, 40], [60, 60, 40, 40]]
    annotations = [
        dict(id=number, image_id=5, category_id=3, bbox=box, area=1600, iscrowd=0)
        for number, box in enumerate(boxes, 1)
    ]
    images = [dict(id=5, file_name="a.png", width=128, height=128)]
    content = dict(images=images, annotations=annotations, categories=[dict(id=3, name="cat")])
    (tmp_path / "truth.json").write_text(json.dumps(content))
    results = as_results(5, [[10, 10, 50, 50]], [0.9], [0], [3])
    assert results == [dict(image_id=5, category_id=3, bbox=[10, 10, 40, 40], score=0.9)]
    scores = score_boxes(load_coco(tmp_path / "truth.json"), results)
    assert isinstance(scores, BoxScores)
    assert scores.stats["AR_100"] == pytest.approx(0.5)
    # COCO averages the precision at 101 recalls. Here the precision is 1 at the 51 recalls up to
    # 0.5, and 0 at the other recalls.
    assert scores.stats["bbox_mAP"] == pytest.approx(51 / 101)
    assert scores.per_class == {"cat": pytest.approx(51 / 101)}
    assert scores.per_class_50 == scores.per_class
    # An IoU of 35 / 40 is enough for 8 of the 10 thresholds, 0.50 to 0.85
    results = as_results(5, [[10, 10, 45, 50]], [0.9], [0], [3])
    scores = score_boxes(load_coco(tmp_path / "truth.json"), results)
    assert scores.per_class == {"cat": pytest.approx(0.8 * 51 / 101)}
    assert scores.per_class_50 == {"cat": pytest.approx(51 / 101)}
