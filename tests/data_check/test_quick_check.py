"""The quick check reports every kind of fault, with its count and its first examples."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from mixdet.config.read import load_config
from mixdet.data_check import full_check, quick_check
from mixdet.data_check.box_checks import guess_format
from mixdet.errors import MixDetError
from mixdet.evaluation import load_coco
from tests.tiny import IMAGES, write_config


@pytest.fixture
def check(images, tmp_path):
    """A function that changes and checks the tiny training data, and returns problems by code."""

    def run(change, extra=""):
        data = shutil.copytree(images, tmp_path / "data")
        file = data / "annotations" / "instances_train2017.json"
        content = json.loads(file.read_text())
        change(content, data)
        file.write_text(json.dumps(content))
        problems = quick_check(load_config(write_config(tmp_path, data, extra=extra)))
        assert all(problem.data.startswith("training") for problem in problems)
        return {problem.code: problem for problem in problems}

    return run


def test_correct_data_have_no_problem(check):
    assert check(lambda content, data: None) == {}


def set_box(*box):
    def change(content, data):
        content["annotations"][0]["bbox"] = list(box)

    return change


def misspell(content, data):
    content["categories"][1]["name"] = "brigth"


def swap(content, data):
    content["categories"].reverse()


def add_category(content, data):
    content["categories"].append({"id": 9, "name": "other"})


def name_twice(content, data):
    content["categories"].append({"id": 9, "name": "dark"})


def without_bright(content, data):
    content["annotations"] = [a for a in content["annotations"] if a["category_id"] == 1]


def same_annotation_id(content, data):
    content["annotations"][1]["id"] = content["annotations"][0]["id"]


def same_image_id(content, data):
    content["images"][1]["id"] = content["images"][0]["id"]


def same_category_id(content, data):
    content["categories"].append({"id": 1, "name": "other"})


def without_width(content, data):
    del content["images"][2]["width"]


def with_null_width(content, data):
    content["images"][2]["width"] = None


def of_no_image(content, data):
    content["annotations"][0]["image_id"] = 999


def of_no_category(content, data):
    content["annotations"][0]["category_id"] = 999


def no_area(content, data):
    content["annotations"][0]["area"] = 0


def without_images(content, data):
    content["images"] = []


def same_name(content, data):
    content["images"][1]["file_name"] = content["images"][0]["file_name"]


def rename(name):
    def change(content, data):
        content["images"][0]["file_name"] = name

    return change


def link_out(content, data):
    image = data / "train2017" / "1.png"
    image.rename(data / "elsewhere.png")
    image.symlink_to(data / "elsewhere.png")


def folder_out(content, data):
    (data / "train2017" / "inner").symlink_to(data / "val2017")
    content["images"][0]["file_name"] = "inner/1.png"


def link_inside(content, data):
    (data / "train2017" / "link.png").symlink_to(data / "train2017" / "1.png")
    content["images"][0]["file_name"] = "link.png"


def one_gone(content, data):
    (data / "train2017" / "1.png").unlink()


def all_gone(content, data):
    shutil.rmtree(data / "train2017")
    (data / "train2017").mkdir()


@pytest.mark.parametrize(
    ("change", "code", "level", "words"),
    [
        (misspell, "missing_classes", "error", "bright, did you mean brigth?"),
        (swap, "classes_in_another_order", "error", "boxes of bright would get the label dark"),
        (add_category, "unused_categories", "note", "other"),
        (name_twice, "category_names_twice", "error", "dark"),
        (without_bright, "classes_without_examples", "warning", "bright"),
        (same_annotation_id, "annotation_ids_twice", "warning", "annotation id 1"),
        (same_image_id, "image_ids_twice", "error", "image id 1"),
        (same_category_id, "category_ids_twice", "error", "category id 1"),
        (without_width, "incomplete_images", "error", "id 3"),
        (with_null_width, "incomplete_images", "error", "id 3"),
        (of_no_image, "unknown_images", "warning", "image_id 999"),
        (of_no_category, "unknown_categories", "warning", "category_id 999"),
        (no_area, "no_area_stated", "warning", "annotation 1"),
        (without_images, "no_images", "error", None),
        (same_name, "names_twice", "warning", "1.png"),
        (set_box(float("nan"), 2, 9, 9), "broken_boxes", "error", "annotations[0].bbox: 4 finite"),
        (set_box(1, 2, float("inf"), 9), "broken_boxes", "error", "got [1, 2, inf, 9], in 1.png"),
        (
            set_box(1, 2, 9),
            "broken_boxes",
            "error",
            "annotations[0].bbox: 4 numbers expected, got 3",
        ),
        (set_box("1", 2, 9, 9), "broken_boxes", "error", "annotations[0].bbox"),
        (set_box(1, 2, 0, 9), "flat_boxes", "warning", "annotation 1"),
        (set_box(1, 2, 9, -3), "flat_boxes", "warning", "annotation 1"),
        (set_box(1, 2, 0.5, 9), "small_boxes", "warning", "annotation 1"),
        (set_box(60, 2, 9, 9), "boxes_beyond", "warning", "in an image of 64 x 64"),
        (set_box(70, 2, 9, 9), "boxes_outside", "warning", "in an image of 64 x 64"),
        (rename("/etc/passwd"), "names_outside_the_root", "error", "/etc/passwd"),
        (rename("../val2017/1.png"), "names_outside_the_root", "error", "../val2017/1.png"),
        (rename(""), "names_outside_the_root", "error", "names no image"),
        (rename(7), "names_outside_the_root", "error", "names no image"),
        (link_out, "names_outside_the_root", "error", "elsewhere.png"),
        (folder_out, "names_outside_the_root", "error", "val2017"),
        (one_gone, "missing_images", "warning", "train2017/1.png"),
        (all_gone, "missing_images", "error", "train2017/1.png"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_fault_is_reported_with_its_level_and_an_example(check, change, code, level, words):
    problem = check(change)[code]
    assert problem.level == level
    if words:
        assert words in problem.examples[0].text
        assert words in problem.line()


def test_a_link_within_the_folder_is_no_problem(check):
    assert check(link_inside) == {}


def test_a_thousand_faults_are_counted_and_five_are_shown(check):
    def change(content, data):
        lost = dict(content["annotations"][0], image_id=999)
        content["annotations"] += [dict(lost, id=1000 + i) for i in range(1000)]

    problem = check(change)["unknown_images"]
    assert problem.count == 1000
    assert len(problem.examples) == 5


def test_the_same_data_set_for_training_and_validation_is_reported(images, tmp_path):
    same = "val_dataloader = train_dataloader\ntest_dataloader = train_dataloader\n"
    same += "val_evaluator['ann_file'] = data_root + '/annotations/instances_train2017.json'\n"
    problems = quick_check(load_config(write_config(tmp_path, images, extra=same)))
    assert [problem.code for problem in problems] == ["one_data_set"]


def test_different_classes_in_training_and_validation_are_reported(images, tmp_path):
    other = "val_dataloader['dataset']['metainfo'] = dict(classes=('dark',))\n"
    problems = quick_check(load_config(write_config(tmp_path, images, extra=other)))
    assert "classes_differ" in [problem.code for problem in problems]


def coco_boxes(coco_sample):
    coco = load_coco(coco_sample / "annotations" / "instances_val2017.json")
    images = [coco.imgs[annotation["image_id"]] for annotation in coco.anns.values()]
    return (
        np.array([annotation["bbox"] for annotation in coco.anns.values()]),
        np.array([(image["width"], image["height"]) for image in images], float),
    )


def test_formats_of_real_boxes_are_told_apart(coco_sample):
    boxes, sizes = coco_boxes(coco_sample)
    corners = np.hstack([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]])
    centers = np.hstack([boxes[:, :2] + boxes[:, 2:] / 2, boxes[:, 2:]])
    assert guess_format(boxes, sizes) is None
    assert guess_format(corners, sizes) == "x1 y1 x2 y2"
    assert guess_format(centers, sizes) == "center x, center y, w, h"
    assert guess_format(centers / np.hstack([sizes, sizes]), sizes).startswith("fractions")


def test_one_wrong_box_is_not_taken_for_another_format(check):
    assert "box_format" not in check(set_box(30, 30, 50, 50))


def test_boxes_stored_as_corners_are_an_error(check):
    def change(content, data):
        for annotation in content["annotations"]:
            x, y, width, height = annotation["bbox"]
            annotation["bbox"] = [x, y, x + width, y + height]

    problem = check(change)["box_format"]
    assert problem.level == "error"
    assert "x1 y1 x2 y2" in problem.text
    assert problem.count > IMAGES


def test_absolute_paths_are_not_joined_to_data_root(check, tmp_path):
    """An absolute path is used without `data_root`, as in mmengine."""
    data = tmp_path / "data"
    extra = (
        f"train_dataloader['dataset']['ann_file'] = '{data}/annotations/instances_train2017.json'\n"
        f"train_dataloader['dataset']['data_prefix'] = dict(img='{data}/train2017/')\n"
        "train_dataloader['dataset']['data_root'] = 'elsewhere'\n"
    )
    assert check(lambda content, data: None, extra) == {}


def test_a_remote_data_set_is_not_checked(images, tmp_path):
    remote = "train_dataloader['dataset']['backend_args'] = dict(backend='petrel')\n"
    remote += "val_dataloader['dataset']['data_root'] = 's3://bucket/'\n"
    cfg = load_config(write_config(tmp_path, images, extra=remote + "test_dataloader = None\n"))
    assert quick_check(cfg) == []
    with pytest.raises(MixDetError, match="no CocoDataset"):
        full_check(cfg)


def test_a_voc_data_set_that_cannot_be_built_is_an_error(images, tmp_path):
    voc = "val_dataloader['dataset'].update(type='VOCDataset', ann_file='ImageSets/val.txt')\n"
    (problem,) = quick_check(load_config(write_config(tmp_path, images, extra=voc)))
    assert (problem.code, problem.level, problem.data) == ("unusable", "error", "validation")
    assert "ImageSets/val.txt" in problem.text
