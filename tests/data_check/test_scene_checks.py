"""Near-duplicates of training images, and classes that only one scene shows, are reported."""

from __future__ import annotations

import cv2
import pytest

from mixdet.config.read import load_config
from mixdet.data_check import full_check
from tests.data_check.conftest import rewrite
from tests.tiny import write_config


@pytest.fixture
def check(images_copy, tmp_path):
    """A function that makes the full check of the tiny data, and returns problems by code."""

    def run(extra=""):
        report = full_check(load_config(write_config(tmp_path, images_copy, extra=extra)))
        return {problem.code: problem for problem in report.problems}

    return run


@pytest.fixture
def photos(images_copy, photograph):
    """The tiny data set, in which each image is another part of a photograph."""
    for number in range(14):
        for name, top in (("train2017", 0), ("val2017", 150)):
            part = photograph[top : top + 140, 20 * number : 20 * number + 140]
            if number % 2:
                part = part[::-1, ::-1]
            image = cv2.resize(part, (64, 64))
            cv2.imwrite(str(images_copy / name / f"{number + 1}.png"), image)
    return images_copy


def test_different_images_have_no_problem(check):
    assert check() == {}


def test_a_changed_copy_of_a_training_image_is_reported(check, photos):
    image = cv2.imread(str(photos / "train2017" / "3.png"))
    cv2.imwrite(str(photos / "val2017" / "9.png"), cv2.convertScaleAbs(image[1:, 1:], alpha=0.8))
    problem = check()["near_duplicate_images"]
    assert (problem.level, problem.count) == ("warning", 1)
    assert problem.data.startswith("validation")
    assert f"val2017/9.png is nearly {photos / 'train2017' / '3.png'}" in problem.examples[0].text
    assert "move" in problem.text


def test_an_equal_image_is_reported_once(check, photos):
    (photos / "val2017" / "9.png").write_bytes((photos / "train2017" / "3.png").read_bytes())
    problems = check()
    assert problems["shared_images"].count == 1
    assert "near_duplicate_images" not in problems


@pytest.mark.parametrize("split", ["train2017", "val2017"])
def test_a_class_of_one_scene_is_reported(check, photos, split):
    """All objects of the class `bright` are in three images, which are nearly equal."""
    image = cv2.imread(str(photos / split / "1.png"))
    for number in (1, 5, 8):
        changed = cv2.convertScaleAbs(image, alpha=1 - number / 40)
        cv2.imwrite(str(photos / split / f"{number}.png"), changed)

    def only_in_three(content):
        for annotation in content["annotations"]:
            annotation["category_id"] = 2 if annotation["image_id"] in (1, 5, 8) else 1

    rewrite(photos / "annotations" / f"instances_{split}.json", only_in_three)
    problem = check()["classes_of_one_scene"]
    assert problem.level == ("warning" if split == "train2017" else "note")
    assert problem.count == 1
    assert problem.examples[0].text.startswith("bright: 3 images, such as ")


@pytest.mark.parametrize("other", [False, True])
def test_a_class_with_many_images_of_one_scene_is_reported(check, images_copy, photograph, other):
    """The class `bright` is in 80 frames of a turning camera.

    If `other` replaces one frame by another scene, the class is not reported.
    """
    for number in range(80):
        frame = photograph[:200, number : number + 300]
        if other and number == 41:
            frame = photograph[100:, 151:]
        cv2.imwrite(str(images_copy / "train2017" / f"frame{number}.png"), frame)

    def add_frames(content):
        for annotation in content["annotations"]:
            annotation["category_id"] = 1
        for number in range(100, 180):
            name = f"frame{number - 100}.png"
            entry = {"id": number, "file_name": name, "width": 300, "height": 200}
            content["images"].append(entry)
            content["annotations"].append(
                {"id": number, "image_id": number, "category_id": 2, "bbox": [9, 9, 40, 40]}
                | {"area": 1600, "iscrowd": 0}
            )

    rewrite(images_copy / "annotations" / "instances_train2017.json", add_frames)
    assert ("classes_of_one_scene" in check()) != other


def test_a_class_in_two_scenes_is_no_problem(check, photos):
    def in_two(content):
        for annotation in content["annotations"]:
            annotation["category_id"] = 2 if annotation["image_id"] in (1, 12) else 1

    rewrite(photos / "annotations" / "instances_train2017.json", in_two)
    assert "classes_of_one_scene" not in check()


def test_a_class_of_one_image_is_a_class_of_one_scene(check, photos):
    def in_one(content):
        for annotation in content["annotations"]:
            annotation["category_id"] = 2 if annotation["image_id"] == 4 else 1

    file = photos / "annotations" / "instances_train2017.json"
    rewrite(file, in_one)
    assert "bright: 1 image, such as" in check()["classes_of_one_scene"].examples[0].text
