"""Unusual annotations mean the same in training, the data check and every backend of the metric.

The expected scores are those of pycocotools on the same annotations in COCO's usual form.
"""

from __future__ import annotations

import contextlib
import copy
import io
import json

import numpy as np
import pytest
from mmdet.registry import DATASETS
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mixdet.config.read import load_config
from mixdet.data_check import quick_check
from mixdet.errors import MixDetError
from mixdet.evaluation import load_coco, score_boxes
from mixdet.evaluation.evaluators import BACKENDS
from tests.synthetic import coco_annotations
from tests.tiny import CLASSES, write_config

BOXES = [  # image, category, box
    (1, 1, [4, 6, 40, 40]),
    (1, 2, [50, 8, 30, 20]),
    (2, 1, [10, 10, 60, 50]),
    (2, 1, [70, 60, 20, 30]),
    (3, 2, [5, 5, 90, 80]),
]


def reference() -> dict:
    return {
        "images": [
            {"id": i, "file_name": f"{i}.png", "width": 100, "height": 100} for i in (1, 2, 3)
        ],
        "categories": [{"id": i, "name": name} for i, name in enumerate(CLASSES, 1)],
        "annotations": coco_annotations(BOXES),
    }


def detections(content: dict) -> list[dict]:
    """Return moved copies of the true boxes, and some wrong boxes."""
    rng = np.random.default_rng(0)
    images, categories = ([entry["id"] for entry in content[k]] for k in ("images", "categories"))
    results = []
    for image, category, box in BOXES:
        for shift in (0.5, 4.0):
            moved = (np.array(box) + rng.normal(0, shift, 4)).tolist()
            numbers = {"image_id": images[image - 1], "category_id": categories[category - 1]}
            results.append({**numbers, "bbox": moved, "score": round(rng.random(), 2)})
    results.append({**results[0], "bbox": [60.0, 60.0, 30.0, 30.0], "score": 0.99})
    return results


def pycocotools_numbers(content: dict) -> list[float]:
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = copy.deepcopy(content)
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(detections(content)), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats.tolist()


def instances(path) -> list[list[tuple]]:
    """Return the boxes, labels and flags of each image, as training gets them."""
    dataset = DATASETS.build(
        {
            "type": "SafeCocoDataset",
            "ann_file": str(path),
            "data_prefix": {"img": str(path.parent)},
            "metainfo": {"classes": CLASSES},
            "pipeline": [],
        }
    )
    infos = (dataset.get_data_info(index) for index in range(len(dataset)))
    keys = ("bbox", "bbox_label", "ignore_flag")
    return [[tuple(entry[key] for key in keys) for entry in info["instances"]] for info in infos]


@pytest.fixture
def written(tmp_path):
    """A function that writes annotations to a file and returns its path."""

    def write(content, name="a.json"):
        (tmp_path / name).write_text(json.dumps(content))
        return tmp_path / name

    return write


def setting(**fields):
    """Return a function that sets fields of the third annotation."""
    return lambda content: content["annotations"][2].update(fields)


def dropping(field):
    def change(content):
        for annotation in content["annotations"]:
            del annotation[field]

    return change


def numbering(*ids):
    def change(content):
        for annotation, number in zip(content["annotations"], ids, strict=True):
            annotation["id"] = number

    return change


def adding(**fields):
    extra = {"id": 77, "image_id": 1, "category_id": 1, "bbox": [1, 2, 9, 9], "area": 81}
    return lambda content: content["annotations"].append({**extra, "iscrowd": 0, **fields})


def as_crowd(content):
    content["annotations"][2]["iscrowd"] = 1


def unchanged(content):
    pass


@pytest.mark.parametrize(
    ("change", "meaning", "said"),
    [
        (dropping("iscrowd"), unchanged, None),
        (setting(iscrowd=None), unchanged, None),
        (setting(iscrowd=False), unchanged, None),
        (setting(iscrowd=True), as_crowd, None),
        (setting(iscrowd=1.0), as_crowd, None),
        (setting(ignore=0), unchanged, None),
        (setting(ignore=1), as_crowd, "1 marked `ignore`"),
        (setting(ignore=True), as_crowd, "1 marked `ignore`"),
        (setting(ignore=1, iscrowd=1), as_crowd, "1 marked `ignore`"),
        (setting(ignore=0, iscrowd=1), as_crowd, None),
        (dropping("area"), unchanged, "5 without an area above 0"),
        (setting(area=None), unchanged, "1 without an area above 0"),
        (setting(area=0), unchanged, "1 without an area above 0"),
        (setting(area=-7.5), unchanged, "1 without an area above 0"),
        (numbering(0, 1, 2, 3, 4), unchanged, "numbered anew"),
        (numbering(-1, -2, -3, -4, -5), unchanged, "numbered anew"),
        (numbering(1, 1, 2, 2, 1), unchanged, "numbered anew"),
        (numbering(1.5, 2.5, 3.5, 4.5, 5.5), unchanged, "numbered anew"),
        (numbering("a", "b", "c", "d", "0"), unchanged, "numbered anew"),
        (numbering(None, None, 1, 2, 3), unchanged, "numbered anew"),
        (numbering(2**70, 2**64, 2**63, 2**53, 2**53 + 1), unchanged, None),
        (dropping("id"), unchanged, "numbered anew"),
        (setting(segmentation=[]), unchanged, None),
        (setting(segmentation={"size": [1, 1], "counts": "0"}), unchanged, None),
        (adding(bbox=[1, 2, 0, 9]), unchanged, "1 with a width or a height"),
        (adding(bbox=[9, 9, -5, -5]), unchanged, "1 with a width or a height"),
        (adding(image_id=99), unchanged, "1 of an image or a category that is not in the file"),
        (adding(image_id="1"), unchanged, "1 of an image or a category that is not in the file"),
        (adding(category_id=99), unchanged, "1 of an image or a category that is not in the file"),
    ],
)
def test_an_unusual_field_means_the_same_in_training_and_every_backend(
    written, monkeypatch, change, meaning, said
):
    lines = []
    monkeypatch.setattr("mixdet.annotations.table.print_log", lambda line, **_: lines.append(line))
    content, expected = reference(), reference()
    change(content)
    meaning(expected)
    path = written(content)
    want = pycocotools_numbers(expected)
    assert 0.1 < want[0] < 0.9
    for backend in BACKENDS:
        stats = score_boxes(load_coco(path), detections(content), backend=backend).stats
        assert list(stats.values()) == pytest.approx(want, abs=1e-12), backend
    assert instances(path) == instances(written(expected, "expected.json"))
    if said:
        (line,) = lines  # logged once, although the file is read several times
        assert line.startswith(f"{path}: annotations ")
        assert said in line
    else:
        assert not lines


def text_ids(content):
    for image in content["images"]:
        image["id"] = f"scene {image['id']}"
    for category in content["categories"]:
        category["id"] = f"c{category['id']}"
    for annotation in content["annotations"]:
        annotation["image_id"] = f"scene {annotation['image_id']}"
        annotation["category_id"] = f"c{annotation['category_id']}"


def numbers_as_text(content):
    for image in content["images"]:
        image["id"] = f"00{image['id']}"
    for annotation in content["annotations"]:
        annotation["image_id"] = f"00{annotation['image_id']}"


def mixed_ids(content):
    content["images"][2]["id"] = "z"
    content["annotations"][4]["image_id"] = "z"


def fractions(content):
    for image in content["images"]:
        image["id"] += 0.5
    for annotation in content["annotations"]:
        annotation["image_id"] += 0.5


@pytest.mark.parametrize("change", [text_ids, numbers_as_text, mixed_ids, fractions])
def test_ids_of_images_and_categories_may_be_text(written, change):
    content = reference()
    change(content)
    path = written(content)
    for backend in BACKENDS:
        stats = score_boxes(load_coco(path), detections(content), backend=backend).stats
        assert list(stats.values()) == pytest.approx(pycocotools_numbers(reference()), abs=1e-12)
    assert instances(path) == instances(written(reference(), "expected.json"))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (
            {"bbox": [1, float("nan"), 9, 9]},
            "bbox: 4 finite numbers of pixels expected, got [1, nan, 9, 9]",
        ),
        (
            {"bbox": [1, 2, float("inf"), 9]},
            "bbox: 4 finite numbers of pixels expected, got [1, 2, inf, 9]",
        ),
        (
            {"bbox": [1, 2, 10**400, 9]},
            "bbox: 4 finite numbers of pixels expected, got [1, 2, 1000",
        ),
        (
            {"bbox": ["1", "2", "9", "9"]},
            "bbox: 4 finite numbers of pixels expected, got ['1', '2'",
        ),
        ({"bbox": "1 2 9 9"}, "bbox: 4 numbers expected, got '1 2 9 9'"),
        ({"bbox": [1, 2, 9]}, "bbox: 4 numbers expected, got 3"),
        ({"bbox": []}, "bbox: 4 numbers expected, got 0"),
        ({"bbox": None}, "bbox: 4 numbers expected, got None"),
        (
            {"bbox": [1, 2, 9, True]},
            "bbox: 4 finite numbers of pixels expected, got [1, 2, 9, True]",
        ),
        ({"area": "81"}, "area: a number or no field expected, got '81'"),
        ({"area": float("nan")}, "area: a number or no field expected, got nan"),
        ({"area": [81]}, "area: a number or no field expected, got [81]"),
        ({"iscrowd": "0"}, "iscrowd: 0 or 1 expected, got '0'"),
        ({"iscrowd": float("nan")}, "iscrowd: 0 or 1 expected, got nan"),
        ({"ignore": "false"}, "ignore: 0 or 1 expected, got 'false'"),
        ({"category_id": None}, "category_id: a number or text expected, got None"),
        ({"image_id": None}, "image_id: a number or text expected, got None"),
    ],
)
def test_an_ambiguous_value_is_refused_with_its_annotation_and_field(
    images_copy, tmp_path, fields, words
):
    path = images_copy / "annotations" / "instances_train2017.json"
    content = json.loads(path.read_text())
    content["annotations"][0].update(fields)
    path.write_text(json.dumps(content))
    for read in (load_coco, instances):
        with pytest.raises(MixDetError) as error:
            read(path)
        assert str(error.value).startswith(f"annotations[0].{words}")
        assert str(error.value).endswith(f" ({path})")
    problems = {p.code: p for p in quick_check(load_config(write_config(tmp_path, images_copy)))}
    assert problems["broken_boxes"].level == "error"
    assert words in problems["broken_boxes"].line()


NO_LISTS = [
    "images: a list expected, got None",
    "annotations: a list expected, got {}",
    "categories: a list expected, got None",
]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c["images"][1].update(id=1), "images[1].id: 1 is also the id of images[0]"),
        (
            lambda c: c["categories"][1].update(id=1),
            "categories[1].id: 1 is also the id of categories[0]",
        ),
        (lambda c: c["images"][1].pop("id"), "images[1].id: a number or text expected, got None"),
        (
            lambda c: c["images"][1].update(id=[1]),
            "images[1].id: a number or text expected, got [1]",
        ),
        (lambda c: c["annotations"].append("x"), "annotations[5]: an object expected, got 'x'"),
        (lambda c: c.pop("images"), NO_LISTS[0]),
        (lambda c: c.update(annotations={}), NO_LISTS[1]),
        (lambda c: c.pop("categories"), NO_LISTS[2]),
    ],
)
def test_a_file_with_duplicate_ids_or_malformed_lists_is_refused(written, change, words):
    content = reference()
    change(content)
    path = written(content)
    for read in (load_coco, instances):
        with pytest.raises(MixDetError) as error:
            read(path)
        place = f"{path}: not a COCO annotation file: " if words in NO_LISTS else ""
        assert str(error.value).startswith(place + words)
        assert str(path) in str(error.value)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"bbox": [float("nan"), 2, 9, 9]}, "1 detections are not finite (first: image 1, bbox"),
        ({"bbox": [1, 2, float("inf"), 9]}, "not finite"),
        ({"score": float("nan")}, "score nan"),
        ({"bbox": [1, 2, 9]}, "not in COCO's results format"),
        ({"image_id": 9}, "image_id 9, which is not in the annotation file"),
        ({"category_id": "x"}, "category_id 'x', which is not in the annotation file"),
    ],
)
def test_malformed_detections_are_refused_by_every_backend(written, backend, fields, words):
    results = detections(reference())
    results[0].update(fields)
    with pytest.raises(MixDetError) as error:
        score_boxes(load_coco(written(reference())), results, backend=backend)
    assert words in str(error.value)


SAFE, MMDET = "SafeCocoDataset", "CocoDataset"


@pytest.mark.parametrize(
    ("dataset", "fields", "code", "level"),
    [
        (SAFE, {"ignore": 1}, "ignored_boxes", "note"),
        (SAFE, {"area": None}, "no_area", "note"),
        (SAFE, {"area": -1}, "no_area_stated", "warning"),
        (SAFE, {"id": 0}, "unusable_annotation_ids", "note"),
        (SAFE, {"id": "a"}, "unusable_annotation_ids", "note"),
        (SAFE, {"iscrowd": None}, None, None),
        (MMDET, {"ignore": 1}, "ignored_boxes", "warning"),
        (MMDET, {"area": None}, "no_area", "error"),
    ],
)
def test_the_data_check_reports_how_the_data_set_reads_unusual_values(
    images_copy, tmp_path, dataset, fields, code, level
):
    path = images_copy / "annotations" / "instances_train2017.json"
    content = json.loads(path.read_text())
    content["annotations"][0].update(fields)
    path.write_text(json.dumps(content))
    config = write_config(tmp_path, images_copy)
    options = [
        f"train_dataloader.dataset.type={dataset}",
        "model.train_cfg.assigner.ignore_iof_thr=0.5",  # mmdet's SSDHead needs it for ignored boxes
    ]
    problems = quick_check(load_config(config, options))
    assert [(p.code, p.level, p.count) for p in problems] == ([(code, level, 1)] if code else [])
    assert dataset == SAFE or "use SafeCocoDataset" in problems[0].text
