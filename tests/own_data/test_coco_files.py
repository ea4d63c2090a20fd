"""COCO files are found in the layouts of COCO, Roboflow, CVAT and Label Studio."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mixdet.errors import MixDetError
from mixdet.own_data.coco_files import find_coco, read_coco
from mixdet.own_data.labeled_data import LabeledData
from tests.exports import CLASSES, coco_content, draw, scenes_of, write_coco, write_json


def read(folder: Path) -> LabeledData:
    return read_coco(find_coco(folder), folder)


def test_files_that_training_can_use_stay_as_they_are(tmp_path):
    drawn = write_coco(tmp_path, train=3, val=2)
    write_json(tmp_path / "annotations/captions_train2017.json", {"images": [], "annotations": []})
    keypoints = coco_content({})
    keypoints["images"] = [{"id": 1, "file_name": "000.png"}]
    write_json(tmp_path / "annotations/person_keypoints_train2017.json", keypoints)
    keypoints["images"] = [{"id": 1, "file_name": "absent.png"}]
    write_json(tmp_path / "annotations/image_info_test2017.json", keypoints)
    data = read(tmp_path)
    assert data.ready == {
        split: (tmp_path / f"annotations/instances_{split}2017.json", tmp_path / f"{split}2017")
        for split in ("train", "val")
    }
    assert data.classes == [*CLASSES]
    assert scenes_of(data.splits["train"]) | scenes_of(data.splits["val"]) == drawn
    assert "the test images are left out" in data.notes[0]


@pytest.mark.parametrize("train", [range(8), range(5), [2]])
def test_a_missing_validation_image_is_not_replaced_by_a_training_image(tmp_path, train):
    """The names of the images restart in each split, so train2017/002.png is another image."""
    for split, numbers in (("train", train), ("val", range(5))):
        content = coco_content(draw(tmp_path / f"{split}2017", numbers))
        write_json(tmp_path / f"annotations/instances_{split}2017.json", content)
    assert read(tmp_path).ready["val"][1] == tmp_path / "val2017"
    (tmp_path / "val2017/002.png").unlink()
    words = r"instances_val2017.json: file_name 002.png: no such image, and .*train2017"
    with pytest.raises(MixDetError, match=words):
        read(tmp_path)


@pytest.mark.parametrize("name", ["train2017/{}", "/elsewhere/train2017/{}"])
def test_a_name_with_the_folder_of_another_split_is_found(tmp_path, name):
    """Some people split the images of one folder by two COCO files."""
    for split, numbers in (("train", range(3)), ("val", range(3, 5))):
        content = coco_content(draw(tmp_path / "train2017", numbers))
        for entry in content["images"]:
            entry["file_name"] = name.format(entry["file_name"])
        write_json(tmp_path / f"{split}.json", content)
    assert [*scenes_of(read(tmp_path).splits["val"])] == ["003.png", "004.png"]


def test_roboflow_files_are_found_in_folders_with_images_of_equal_names(tmp_path):
    for part in ("train", "valid", "test"):
        content = coco_content(draw(tmp_path / part, range(2)))
        content["categories"] = [
            {"id": 0, "name": "tools", "supercategory": "none"},
            *({**category, "supercategory": "tools"} for category in content["categories"]),
        ]
        write_json(tmp_path / part / "_annotations.coco.json", content)
    data = read(tmp_path)
    assert data.classes == [*CLASSES]
    assert "the category 'tools' is left out" in data.notes[0]
    folders = {split: folder.name for split, (_, folder) in data.ready.items()}
    assert folders == {"train": "train", "val": "valid", "test": "test"}


def test_roboflows_root_category_may_have_the_name_of_a_class(tmp_path):
    """mmdet would find both categories by the name, so such files are written anew."""
    for part in ("train", "valid"):
        content = coco_content(draw(tmp_path / part, range(2)))
        for entry in content["annotations"]:
            entry["category_id"] = 1
        content["categories"] = [
            {"id": 0, "name": "saw", "supercategory": "none"},
            {"id": 1, "name": "saw", "supercategory": "saw"},
        ]
        write_json(tmp_path / part / "_annotations.coco.json", content)
    data = read(tmp_path)
    assert data.classes == ["saw"]
    assert "the category 'saw' is left out" in data.notes[0]
    assert data.ready is None
    for split in data.splits.values():
        assert split["categories"] == [{"id": 1, "name": "saw"}]
        assert {entry["category_id"] for entry in split["annotations"]} == {1}


@pytest.mark.parametrize(
    "name",
    ["images/{}", "images\\{}", "../../label-studio/upload/1/{}", "/data/local-files/{}", "{}"],
)
def test_images_with_a_path_on_another_machine_are_found_by_their_file_name(tmp_path, name):
    """Label Studio and CVAT export one file without a split."""
    drawn = draw(tmp_path / "images", range(3))
    content = coco_content(drawn)
    for entry in content["images"]:
        entry["file_name"] = name.format(entry["file_name"])
    write_json(tmp_path / "annotations/instances_default.json", content)
    data = read(tmp_path)
    assert data.ready is None
    assert scenes_of(data.splits["all"]) == drawn
    for image in data.splits["all"]["images"]:
        assert Path(image["file_name"]).parent == tmp_path / "images"


def test_classes_of_two_orders_get_the_order_of_the_first_file(tmp_path):
    drawn = write_coco(tmp_path, train=2, val=2)
    file = tmp_path / "annotations/instances_val2017.json"
    content = json.loads(file.read_text())
    content["categories"].reverse()
    content["categories"].append({"id": 9, "name": "file"})
    write_json(file, content)
    data = read(tmp_path)
    assert data.ready is None  # mmdet numbers the classes of each file in the order of the file
    assert data.classes == [*CLASSES, "file"]
    for split in data.splits.values():
        split["categories"] = [c for c in split["categories"] if c["name"] != "file"]
    assert scenes_of(data.splits["train"]) | scenes_of(data.splits["val"]) == drawn


@pytest.mark.parametrize("name", [5, " hammer "])
def test_names_of_classes_that_are_no_plain_text_need_new_files(tmp_path, name):
    """mmdet would find no category of this name, and shift the labels of all others."""
    write_coco(tmp_path, train=2, val=2)
    for split in ("train", "val"):
        file = tmp_path / f"annotations/instances_{split}2017.json"
        content = json.loads(file.read_text())
        content["categories"][0]["name"] = name
        write_json(file, content)
    data = read(tmp_path)
    assert data.ready is None
    assert data.classes == [str(name).strip(), "saw"]
    names = [category["name"] for category in data.splits["val"]["categories"]]
    assert names == data.classes


def test_a_link_that_leads_out_of_the_image_folder_needs_a_new_file(tmp_path):
    write_coco(tmp_path / "data", train=2, val=2)
    image = tmp_path / "data/train2017/000.png"
    image.rename(tmp_path / "elsewhere.png")
    image.symlink_to(tmp_path / "elsewhere.png")
    assert read(tmp_path / "data").ready is None


def test_unclear_and_wrong_files_are_refused(tmp_path):
    content = coco_content(draw(tmp_path / "images", range(2)))
    write_json(tmp_path / "one.json", content)
    write_json(tmp_path / "two.json", content)
    with pytest.raises(MixDetError, match=r"one.json and .*two.json are COCO files of no split"):
        read(tmp_path)
    (tmp_path / "two.json").rename(tmp_path / "val.json")
    with pytest.raises(MixDetError, match=r"one.json: its name states no split"):
        read(tmp_path)
    (tmp_path / "val.json").unlink()
    for change, words in (
        ({"categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "a"}]}, "'a' is listed twice"),
        ({"categories": content["categories"][:1]}, r"annotation \d+ has the category_id 2"),
        ({"images": [{"id": 1, "file_name": "none.png"}]}, "file_name none.png: no such image"),
        ({"images": [{"id": 1, "file_name": ".."}]}, r"image 1 has the file_name '..'"),
        ({"images": [{"id": 1}]}, "image 1 has the file_name None"),
    ):
        write_json(tmp_path / "one.json", {**content, **change})
        with pytest.raises(MixDetError, match=f"one.json.*{words}"):
            read(tmp_path)


def test_files_of_other_tools_are_no_coco_files(tmp_path):
    for number in range(30):  # labelme writes a file for each image
        write_json(tmp_path / f"labels/{number}.json", {"shapes": []})
    write_json(tmp_path / "package.json", {"name": "x"})
    (tmp_path / "broken.json").write_text("{")
    assert find_coco(tmp_path) == []
