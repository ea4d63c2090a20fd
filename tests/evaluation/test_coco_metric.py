"""The metric gives exactly the scores that pycocotools computes from the written results file."""

from __future__ import annotations

import contextlib
import io
import json
import math
from typing import NamedTuple

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mixdet.errors import MixDetError
from mixdet.evaluation import CocoDetectionMetric, load_coco, score_boxes
from mixdet.evaluation.coco_scores import STATS
from mixdet.evaluation.evaluators import BACKENDS
from tests.synthetic import coco_annotations

CLASSES = ("cat", "dog", "emu")


class Scores(NamedTuple):
    """The 12 numbers, and the AP and then the AP50 of the classes that have objects."""

    stats: list[float]
    per_class: list[float]


def pycocotools_scores(ann_file, results_file) -> Scores:
    """Return what pycocotools computes from two files."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(ann_file))
        evaluation = COCOeval(truth, truth.loadRes(str(results_file)), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    precision = evaluation.eval["precision"][..., 0, -1]  # (IoU, recall, class), -1 if undefined
    tables = [precision[..., index] for index in range(precision.shape[-1])]
    tables += [table[:1] for table in tables]
    return Scores(
        evaluation.stats.tolist(),
        [float(table[table > -1].mean()) for table in tables if (table > -1).any()],
    )


def noisy_predictions(truth: COCO, seed: int = 0) -> list[dict]:
    """Return predictions like those of a detector: true boxes that are moved, and wrong boxes."""
    rng = np.random.default_rng(seed)
    categories = truth.getCatIds()
    samples = []
    for image_id, image in truth.imgs.items():
        boxes, labels, scores = [], [], []
        for annotation in truth.imgToAnns[image_id]:
            x, y, w, h = annotation["bbox"]
            for _ in range(rng.integers(0, 4)):
                moved = np.array([x, y, x + w, y + h]) + rng.normal(0, 0.08, 4) * [w, h, w, h]
                boxes.append(moved)
                right = rng.random() < 0.8
                category = annotation["category_id"] if right else rng.choice(categories)
                labels.append(categories.index(category))
                scores.append(rng.random())
        for _ in range(rng.integers(0, 120)):  # sometimes more than 100 per image
            corner = rng.random(2) * [image["width"], image["height"]] * 0.8
            boxes.append(np.concatenate([corner, corner + rng.random(2) * 100 + 1]))
            labels.append(int(rng.integers(len(categories))))
            scores.append(rng.random() * 0.5)
        predicted = {
            "bboxes": torch.tensor(np.array(boxes).reshape(-1, 4), dtype=torch.float32),
            "labels": torch.tensor(labels, dtype=torch.long),
            "scores": torch.tensor(scores, dtype=torch.float32),
        }
        samples.append({"img_id": image_id, "pred_instances": predicted})
    return samples


def evaluate(ann_file, samples, classes, **arguments) -> tuple[CocoDetectionMetric, dict]:
    metric = CocoDetectionMetric(str(ann_file), **arguments)
    metric.dataset_meta = {"classes": classes}
    for start in range(0, len(samples), 5):
        metric.process({}, samples[start : start + 5])
    return metric, metric.evaluate(len(samples))


@pytest.fixture
def ann_file(tmp_path):
    """Annotations with gaps in the ids of the images and classes. No object is an `emu`."""
    images = [{"id": i, "file_name": f"{i}.jpg", "width": 100, "height": 80} for i in (3, 5, 9)]
    boxes = [(3, 2, [10, 10, 20, 20]), (3, 7, [40, 10, 50, 60]), (5, 7, [5, 5, 40, 40])]
    annotations = coco_annotations(boxes)
    categories = [{"id": i, "name": name} for i, name in zip((2, 7, 8), CLASSES, strict=True)]
    path = tmp_path / "truth.json"
    content = {"images": images, "annotations": annotations, "categories": categories}
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_scores_equal_those_of_pycocotools(coco_sample, tmp_path, backend):
    ann_file = coco_sample / "annotations" / "instances_val2017.json"
    truth = load_coco(ann_file)
    classes = tuple(category["name"] for category in truth.dataset["categories"])
    results = tmp_path / "new folder" / "results.json"
    metric, numbers = evaluate(
        ann_file,
        noisy_predictions(truth),
        classes,
        results_file=str(results),
        backend=backend,
        classwise=True,
    )
    want = pycocotools_scores(ann_file, results)
    per_class = [
        value for name, value in numbers.items() if name.startswith(("coco/AP/", "coco/AP50/"))
    ]
    stats = list(numbers.values())[: len(STATS)]
    assert list(numbers)[: len(STATS)] == [f"coco/{name}" for name in STATS]
    if backend == "faster_coco_eval":
        assert stats == pytest.approx(want.stats, abs=1e-12)
        assert per_class == pytest.approx(want.per_class, abs=1e-12)
    else:
        assert stats == want.stats
        assert per_class == want.per_class
    assert 0.1 < numbers["coco/bbox_mAP"] < 0.9
    assert numbers["coco/AR_1"] < numbers["coco/AR_10"] < numbers["coco/AR_100"]
    assert all(type(value) is float for value in numbers.values())

    defined = [ap for ap in metric.scores.per_class.values() if not math.isnan(ap)]
    assert len(metric.scores.per_class) == 80
    assert np.mean(defined) == pytest.approx(numbers["coco/bbox_mAP"], abs=1e-12)
    defined = [ap for ap in metric.scores.per_class_50.values() if not math.isnan(ap)]
    assert np.mean(defined) == pytest.approx(numbers["coco/bbox_mAP_50"], abs=1e-12)


def test_boxes_and_scores_are_written_unrounded(ann_file, tmp_path):
    boxes = torch.rand(4, 4).cumsum(1) * 30
    scores = torch.rand(4)
    predicted = {"bboxes": boxes, "scores": scores, "labels": torch.tensor([0, 1, 2, 0])}
    samples = [{"img_id": 5, "pred_instances": predicted}]
    evaluate(ann_file, samples, CLASSES, results_file=str(tmp_path / "results.json"))
    written = json.loads((tmp_path / "results.json").read_text())
    wh = boxes.double()[:, 2:] - boxes.double()[:, :2]
    assert [w["bbox"] for w in written] == torch.cat([boxes.double()[:, :2], wh], 1).tolist()
    assert [w["score"] for w in written] == scores.tolist()
    assert [w["category_id"] for w in written] == [2, 7, 8, 2]
    assert {w["image_id"] for w in written} == {5}


@pytest.mark.parametrize("convert", [torch.Tensor.numpy, torch.Tensor.half, torch.Tensor.bfloat16])
def test_the_metric_keeps_its_own_copy_of_predictions_of_any_type(ann_file, convert):
    samples = perfect(load_coco(ann_file))
    for sample in samples:
        sample["pred_instances"] = {
            name: column if name == "labels" else convert(column)
            for name, column in sample["pred_instances"].items()
        }
    metric = CocoDetectionMetric(str(ann_file))
    metric.dataset_meta = {"classes": CLASSES}
    metric.process({}, samples)
    for sample in samples:
        sample["pred_instances"]["bboxes"][:] = 0
    assert metric.evaluate(len(samples))["coco/bbox_mAP"] == pytest.approx(1)


def perfect(truth: COCO) -> list[dict]:
    samples = []
    for image_id in truth.imgs:
        annotations = truth.imgToAnns[image_id]
        boxes = torch.tensor([a["bbox"] for a in annotations], dtype=torch.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        labels = torch.tensor([truth.getCatIds().index(a["category_id"]) for a in annotations])
        predicted = {"bboxes": boxes, "labels": labels.long(), "scores": torch.ones(len(boxes))}
        samples.append({"img_id": image_id, "pred_instances": predicted})
    return samples


def test_perfect_predictions_score_1_and_no_predictions_score_0(ann_file):
    samples = perfect(load_coco(ann_file))
    metric, numbers = evaluate(ann_file, samples, CLASSES, classwise=True)
    assert numbers["coco/bbox_mAP"] == pytest.approx(1)
    assert numbers["coco/bbox_mAP_l"] == -1  # there is no large object
    assert numbers["coco/AP/dog"] == numbers["coco/AP50/dog"] == pytest.approx(1)
    assert {f"coco/{name}" for name in metric.names} - numbers.keys() == {
        "coco/AP/emu",
        "coco/AP50/emu",
    }
    assert math.isnan(metric.scores.per_class["emu"])

    for sample in samples:
        sample["pred_instances"] = {k: v[:0] for k, v in sample["pred_instances"].items()}
    _, numbers = evaluate(ann_file, samples, CLASSES)
    assert {numbers[f"coco/{name}"] for name in STATS if not name.endswith(("_l", "_l_100"))} == {0}


def test_images_that_were_not_processed_are_left_out_with_a_warning(ann_file, monkeypatch):
    warnings = []
    monkeypatch.setattr(
        "mixdet.evaluation.coco_metric.print_log", lambda text, **_: warnings.append(text)
    )
    samples = perfect(load_coco(ann_file))
    _, numbers = evaluate(ann_file, samples[:1], CLASSES)
    assert numbers["coco/bbox_mAP"] == pytest.approx(1)
    assert warnings == [f"evaluated on 1 of the 3 images in {ann_file}"]


def test_only_the_chosen_classes_are_evaluated(ann_file):
    truth = load_coco(ann_file)
    scores = score_boxes(truth, [], category_ids=[7])
    assert list(scores.per_class) == ["dog"]


@pytest.mark.parametrize("classes", [("dog", "cat", "emu"), ("cat", "dog", "emu", "yak")])
def test_classes_in_another_order_than_the_file_are_refused(ann_file, classes):
    with pytest.raises(MixDetError, match=r"order|lacks yak"):
        evaluate(ann_file, perfect(load_coco(ann_file)), classes)


def test_files_that_are_not_annotations_are_refused(tmp_path):
    with pytest.raises(MixDetError, match="cannot read"):
        load_coco(tmp_path / "missing.json")
    for content in ("{", "[]", '{"images": [{}]}'):
        (tmp_path / "bad.json").write_text(content)
        with pytest.raises(MixDetError, match="not a COCO annotation file"):
            load_coco(tmp_path / "bad.json")


def test_the_table_shows_percent_and_every_class(ann_file):
    metric, _ = evaluate(ann_file, perfect(load_coco(ann_file)), CLASSES)
    head, values, _, _, classes = metric.scores.table().splitlines()
    assert dict(zip(head.split(), values.split(), strict=True)) == {
        "mAP": "100.0",
        "mAP50": "100.0",
        "mAP75": "100.0",
        "small": "100.0",
        "medium": "100.0",
        "large": "-",
        "AR_100": "100.0",
    }
    assert classes.split() == ["cat", "100.0", "100.0", "dog", "100.0", "100.0", "emu", "-", "-"]
