"""The shape scenes are drawn the same every time, and their boxes enclose what is visible."""

from __future__ import annotations

import numpy as np
import pytest
from pycocotools.coco import COCO

from mixdet.errors import MixDetError
from mixdet.shape_scenes.drawing import MIN_SIDE, SIZE, make_scene
from mixdet.shape_scenes.files import make_shape_scenes
from mixdet.shape_scenes.objects import CLASSES, draw_object, object_class


@pytest.fixture(scope="module")
def scenes():
    return [make_scene("train", index) for index in range(20)]


def test_a_scene_depends_on_its_arguments_only(scenes):
    again = make_scene("train", 3)
    assert np.array_equal(again.image, scenes[3].image)
    assert (again.boxes, again.labels) == (scenes[3].boxes, scenes[3].labels)
    for other in (make_scene("val", 3), make_scene("train", 3, seed=1)):
        assert not np.array_equal(other.image, scenes[3].image)


def test_boxes_are_in_the_image_and_have_a_class(scenes):
    boxes = np.array([box for scene in scenes for box in scene.boxes])
    assert len(boxes) > 2 * len(scenes)
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2:] <= SIZE).all()
    assert (boxes[:, 2:] - boxes[:, :2] >= MIN_SIDE).all()
    labels = [label for scene in scenes for label in scene.labels]
    assert {*labels} <= {*range(len(CLASSES))}
    assert len({*labels}) > 20


@pytest.mark.parametrize("label", range(0, len(CLASSES), 6))
def test_the_mask_of_an_object_is_where_it_changes_the_image(label):
    before = np.full((SIZE, SIZE, 3), 128, np.float32)
    after = before.copy()
    photographs = {"gray": (np.full((32, 32, 3), 60, np.uint8), (0, 0, 32, 32))}
    rng = np.random.default_rng(label)
    mask = draw_object(after, label, (80.0, 70.0), 50.0, rng, photographs)
    changed = np.abs(after - before).max(-1) > 0
    assert mask.any()
    # the mask lacks only the soft edge, and pixels that happen to have the color of the background
    grown = np.array([np.roll(mask, shift, (0, 1)) for shift in np.ndindex(3, 3)])
    grown |= np.array([np.roll(mask, (-x, -y), (0, 1)) for x, y in np.ndindex(3, 3)])
    assert not (changed & ~grown.any(0)).any()
    assert (changed & mask).sum() > 0.9 * mask.sum()


def test_classes_differ():
    outlines = {object_class(label).parts[0].amplitudes.tobytes() for label in range(len(CLASSES))}
    assert len(outlines) == len(CLASSES)


def test_the_files_are_in_cocos_format(tmp_path):
    root = make_shape_scenes(tmp_path / "scenes", train=3, val=2)
    for split, count in (("train", 3), ("val", 2)):
        coco = COCO(root / "annotations" / f"instances_{split}.json")
        assert len(coco.imgs) == count
        assert all((root / split / image["file_name"]).is_file() for image in coco.imgs.values())
        scene = make_scene(split, 1)
        found = [(a["bbox"], a["category_id"] - 1) for a in coco.imgToAnns[1]]
        boxes = [[x1, y1, x2 - x1, y2 - y1] for x1, y1, x2, y2 in scene.boxes]
        assert found == [*zip(boxes, scene.labels, strict=True)]
    with pytest.raises(MixDetError, match="not an empty folder"):
        make_shape_scenes(root, train=1, val=1)
    with pytest.raises(MixDetError, match="--train 0: give 1 or more"):
        make_shape_scenes(tmp_path / "none", train=0)
