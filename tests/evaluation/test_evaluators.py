"""Every backend gives the scores of pycocotools, hotcoco to the last bit."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mixdet.errors import MixDetError
from mixdet.evaluation import BoxScores, CocoDetectionMetric, load_coco, score_boxes
from mixdet.evaluation.evaluators import BACKENDS
from tests.synthetic import random_coco_detections

SIDES = (3, 31.999999, 32, 64, 96, 96.0000001)  # areas at the limits of small and medium objects
AREAS = (32.0**2, np.nextafter(32.0**2, 0), 96.0**2, np.nextafter(96.0**2, 1e9), 1e10, 2e10)
SCORES = (0.0, -0.0, 0.25, 0.5, 1, -2.5)


def random_boxes(rng: np.random.Generator, count: int, kind: str) -> np.ndarray:
    """Draw boxes (count, 4) as (x, y, width, height) in pixels."""
    if kind == "grid":  # many equal IoUs
        return rng.integers(1, 12, (count, 4)) * 8.0
    if kind == "limits":
        return np.hstack([rng.integers(0, 4, (count, 2)) * 16.0, rng.choice(SIDES, (count, 2))])
    boxes = rng.random((count, 4)) * 100 + 1e-3
    return boxes.astype(np.float32).astype(float) if kind == "float32" else boxes


def random_case(seed: int) -> tuple[dict, list[dict]]:
    """Draw an annotation file and detections with all that makes an evaluation difficult.

    There are crowds, equal scores, images and classes without boxes, no image or no class at all,
    up to 400 detections per image, areas at the limits, areas that differ from the box's, ids that
    are large, negative, fractions or text, and degenerate boxes.
    """
    rng = np.random.default_rng(seed)
    kind = rng.choice(["grid", "limits", "float32", "float64"])
    image_ids = [int(number) for number in rng.permutation(10**12 + np.arange(20) * 7)]
    image_ids = [*image_ids, 0, -5, 2.5, "007", "a"]
    image_ids = [image_ids[index] for index in rng.permutation(25)[: rng.integers(0, 7)]]
    category_ids = [[90, 1, 13], [5], [], ["cat", 3], [2**40, 0, -1, 7]][rng.integers(5)]
    objects, found = [], []
    for image_id in image_ids if category_ids else []:
        boxes = random_boxes(rng, int(rng.choice([0, 2, 20])), kind)
        for box in boxes:
            category = category_ids[rng.integers(len(category_ids)) * int(rng.random() < 0.7)]
            area = rng.choice(AREAS) if rng.random() < 0.3 else box[2] * box[3]
            objects.append((image_id, category, box.tolist(), float(area), int(rng.random() < 0.2)))
        count = int(rng.choice([0, 10, 50, 400]))
        moved = random_boxes(rng, count, kind)
        if len(boxes):
            near = rng.random(count) < 0.6
            moved[near] = boxes[rng.integers(len(boxes), size=near.sum())]
            shift = near & (rng.random(count) < 0.7)
            moved[shift] += rng.normal(0, 0.1, (shift.sum(), 4)) * np.tile(moved[shift, 2:], 2)
        odd = rng.random(count)
        moved[odd < 0.03, 2:] *= -1
        moved[(odd > 0.03) & (odd < 0.06), 2] = 0
        moved[(odd > 0.06) & (odd < 0.07)] *= 1e160  # the area is infinite
        moved[(odd > 0.07) & (odd < 0.1), 2:] *= 1e-200  # the area is rounded to 0
        for box in moved:
            category = category_ids[rng.integers(len(category_ids))]
            score = rng.random() if rng.random() < 0.5 else rng.choice(SCORES)
            found.append((image_id, category, box.tolist(), float(score)))
    keys = ("image_id", "category_id", "bbox", "area", "iscrowd")
    content = {
        "images": [{"id": name} for name in image_ids],
        "categories": [{"id": name, "name": f"class {name}"} for name in category_ids],
        "annotations": [
            {"id": number, **dict(zip(keys, row, strict=True))}
            for number, row in enumerate(objects, 1)
        ],
    }
    keys = ("image_id", "category_id", "bbox", "score")
    return content, [dict(zip(keys, row, strict=True)) for row in found]


def pycocotools_stats(content: dict, detections: list[dict]) -> list[float]:
    """Return pycocotools' 12 numbers, with ids that are counted from 1 in their order.

    A detection of area 0 gets no width and no height. Otherwise pycocotools divides 0 by 0.
    """
    numbers = {
        kind: {
            name: number
            for number, name in enumerate(
                sorted((e["id"] for e in content[kind]), key=lambda i: (isinstance(i, str), i)), 1
            )
        }
        for kind in ("images", "categories")
    }

    def numbered(boxes: list[dict]) -> list[dict]:
        return [
            box
            | {
                "id": number,
                "image_id": numbers["images"][box["image_id"]],
                "category_id": numbers["categories"][box["category_id"]],
            }
            for number, box in enumerate(boxes, 1)
        ]

    found = []
    for detection in numbered(detections):
        x, y, width, height = detection["bbox"]
        area = width * height
        box = [x, y, width, height] if area else [x, y, 0.0, 0.0]
        found.append(detection | {"bbox": box, "area": area, "iscrowd": 0})
    files = []
    with contextlib.redirect_stdout(io.StringIO()):
        for boxes in (numbered(content["annotations"]), found):
            coco = COCO()
            coco.dataset = {
                "annotations": boxes,
                **{kind: [{"id": number} for number in numbers[kind].values()] for kind in numbers},
            }
            coco.createIndex()
            files.append(coco)
        evaluation = COCOeval(*files, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats.tolist()


def assert_equal(got: BoxScores, want: BoxScores, backend: str) -> None:
    """Compare all numbers: those of faster_coco_eval differ by rounding errors."""
    for name in ("stats", "per_class", "per_class_50"):
        values, expected = (np.array([*getattr(x, name).values()]) for x in (got, want))
        if backend == "faster_coco_eval":
            np.testing.assert_allclose(values, expected, rtol=0, atol=1e-12, equal_nan=True)
        else:
            np.testing.assert_array_equal(values, expected)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered")
def test_random_boxes_get_the_scores_of_pycocotools(seed, tmp_path):
    """Each seed makes four cases."""
    defined = 0
    for case in range(4 * seed, 4 * seed + 4):
        content, detections = random_case(case)
        path = tmp_path / f"{case}.json"
        path.write_text(json.dumps(content))
        truth = load_coco(path)
        scores = {name: score_boxes(truth, detections, backend=name) for name in BACKENDS}
        want = pycocotools_stats(content, detections)
        assert list(scores["pycocotools"].stats.values()) == want
        defined += want[0] > 0
        for backend in BACKENDS[1:]:
            assert_equal(scores[backend], scores["pycocotools"], backend)
    assert defined


@pytest.mark.heavy
@pytest.mark.parametrize("backend", BACKENDS[1:])
def test_scores_of_5000_images_equal_those_of_pycocotools(backend):
    truth, detections = random_coco_detections(5000)
    want, got = (score_boxes(truth, detections, backend=b) for b in (BACKENDS[0], backend))
    assert_equal(got, want, backend)
    assert 0.1 < want.stats["bbox_mAP"] < 0.9


@pytest.mark.parametrize("backend", BACKENDS[1:])
def test_chosen_images_and_classes_get_the_scores_of_pycocotools(backend):
    truth, detections = random_coco_detections(12, classes=4)
    for images, categories in (([3, 1], [2, 0]), ([], [1]), ([2], []), (None, [3])):
        want, got = (
            score_boxes(truth, detections, categories, images, backend=b)
            for b in (BACKENDS[0], backend)
        )
        assert_equal(got, want, backend)
        assert list(got.per_class) == [f"class {number}" for number in sorted(categories)]


def test_numbers_of_any_type_get_the_same_scores():
    """The negative of an unsigned score would be a large number, which sorts it first."""
    truth, detections = random_coco_detections(5, classes=2)
    for detection in detections:
        detection["score"] = round(detection["score"] * 100)
        detection["bbox"] = [round(side) for side in detection["bbox"]]
    typed = [
        detection | {"score": np.uint8(detection["score"]), "bbox": np.int32(detection["bbox"])}
        for detection in detections
    ]
    want = score_boxes(truth, detections)
    for backend in BACKENDS:
        assert_equal(score_boxes(truth, typed, backend=backend), want, backend)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_process_gets_the_scores_of_hotcoco():
    """hotcoco would wait forever there, since its threads exist only in the parent."""
    truth, detections = random_coco_detections(20)
    want = score_boxes(truth, detections, backend="hotcoco").stats
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            stats = score_boxes(truth, detections, backend="hotcoco").stats
            os.write(writer, json.dumps(stats).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        assert json.loads(pipe.read()) == want
    os.waitpid(child, 0)


def test_an_unknown_backend_and_a_missing_package_are_refused(monkeypatch):
    with pytest.raises(MixDetError, match="backend='coco' of the COCO metric"):
        CocoDetectionMetric("truth.json", backend="coco")
    for backend, install in (("faster_coco_eval", r"mixdet\[fast-eval\]"), ("hotcoco", "hotcoco")):
        monkeypatch.setitem(sys.modules, backend, None)
        with pytest.raises(MixDetError, match=f"pip install .?{install}"):
            CocoDetectionMetric("truth.json", backend=backend)
