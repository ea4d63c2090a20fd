"""The true boxes of the metric are those that pycocotools reads, and give the same 12 numbers."""

from __future__ import annotations

import contextlib
import io
import itertools
import json

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mixdet.evaluation import ScoredData, load_coco

FIELDS = ("id", "image_id", "category_id", "bbox", "area", "iscrowd")


@pytest.fixture(scope="module", params=["train", "val"])
def ann_file(request, coco_sample):
    return coco_sample / "annotations" / f"instances_{request.param}2017.json"


def pycocotools_coco(path) -> COCO:
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(str(path))


def boxes_of(annotations) -> list[dict]:
    return [{key: annotation[key] for key in FIELDS} for annotation in annotations]


def test_images_categories_and_boxes_are_those_of_pycocotools(ann_file):
    truth, expected = load_coco(ann_file), pycocotools_coco(ann_file)
    assert list(truth.dataset["annotations"]) == boxes_of(expected.dataset["annotations"])
    assert truth.dataset["annotations"][3:5] == boxes_of(expected.dataset["annotations"][3:5])
    assert truth.dataset["annotations"][-1] == boxes_of(expected.dataset["annotations"])[-1]
    assert truth.cats == expected.cats
    assert truth.catToImgs == expected.catToImgs
    assert list(truth.imgs) == list(expected.imgs)
    for image_id, image in truth.imgs.items():
        assert image.items() <= expected.imgs[image_id].items()
        assert truth.imgToAnns.get(image_id, []) == boxes_of(expected.imgToAnns[image_id])
        for category_id, crowd in itertools.product((1, 62), (None, 0, 1)):
            chosen = {"imgIds": [image_id], "catIds": [category_id], "iscrowd": crowd}
            assert truth.getAnnIds(**chosen) == expected.getAnnIds(**chosen)
    ids = expected.getAnnIds()[::7]
    assert truth.getAnnIds()[::7] == ids
    assert truth.loadAnns(ids) == boxes_of(expected.loadAnns(ids))
    assert truth.getImgIds(catIds=[1]) == expected.getImgIds(catIds=[1])


def test_the_12_numbers_equal_those_of_pycocotools_bit_for_bit(ann_file):
    rng = np.random.default_rng(0)
    content = json.loads(ann_file.read_text())
    detections = [
        {
            "image_id": annotation["image_id"],
            "category_id": annotation["category_id"],
            "bbox": (np.array(annotation["bbox"]) + rng.normal(0, 6, 4)).clip(1).tolist(),
            "score": round(rng.random(), 2),  # many equal scores
        }
        for annotation in content["annotations"] * 2
    ]
    scores = ScoredData.read(ann_file).score(detections)
    expected = pycocotools_coco(ann_file)
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(expected, expected.loadRes(detections), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    assert list(scores.stats.values()) == evaluation.stats.tolist()
    assert 0.05 < scores.stats["bbox_mAP"] < 0.95
