"""YOLO labels are read in the layouts of Ultralytics, Roboflow, CVAT and labelImg."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from mixdet.errors import MixDetError
from mixdet.own_data.labeled_data import LabeledData
from mixdet.own_data.yolo_files import find_yolo, read_yolo
from tests.exports import CLASSES, HEIGHT, WIDTH, draw, scenes_of, write_labels, write_yolo


def read(folder: Path) -> LabeledData:
    return read_yolo(find_yolo(folder), folder)


def move(folder: Path, **moves: str) -> None:
    for source, target in moves.items():
        (folder / target).parent.mkdir(parents=True, exist_ok=True)
        (folder / source.replace("__", "/")).rename(folder / target)


ROBOFLOW = {
    "images__train": "train/images",
    "labels__train": "train/labels",
    "images__val": "valid/images",
    "labels__val": "valid/labels",
}
NAMES = f"names: [{', '.join(CLASSES)}]\n"


@pytest.mark.parametrize(
    ("moves", "yaml"),
    [
        ({}, f"train: images/train\nval: images/val\nnc: 2\n{NAMES}"),
        ({}, f"path: .\ntrain: [images/train]\nval: images/val\n{NAMES}"),
        ({}, f"path: ../elsewhere\ntrain: ./images/train\nval: images/val/\n{NAMES}"),
        ({}, f"path: /content\ntrain: /content/d/images/train\nval: images/val\n{NAMES}"),
        ({}, f"train: train.txt\nval: val.txt\n{NAMES}"),
        (ROBOFLOW, f"train: ../train/images\nval: ../valid/images\n{NAMES}"),
        (ROBOFLOW, f"train: train/images\nvalid: valid/images\ntest: ../test/images\n{NAMES}"),
        (ROBOFLOW, NAMES),
    ],
    ids=["folders", "list", "missing path", "other machine", "lists", "roboflow", "test", "names"],
)
def test_all_ways_to_name_the_images_give_the_same_boxes(tmp_path, moves, yaml):
    drawn = write_yolo(tmp_path, train=3, val=2)
    for part in ("train", "val"):
        images = sorted((tmp_path / "images" / part).iterdir())
        lines = [f"./images/{part}/{image.name}\n" for image in images]
        (tmp_path / f"{part}.txt").write_text("".join(lines))
    move(tmp_path, **moves)
    (tmp_path / "data.yaml").write_text(yaml)
    data = read(tmp_path)
    assert data.classes == [*CLASSES]
    assert scenes_of(data.splits["train"]) | scenes_of(data.splits["val"]) == drawn
    assert len(data.splits["train"]["images"]) == 3
    assert ("no test images" in str(data.notes)) == ("test" in yaml)


@pytest.mark.parametrize("layout", ["labelImg", "Label Studio", "CVAT"])
def test_exports_without_data_yaml_are_read(tmp_path, layout):
    drawn = draw(tmp_path / "images", range(3))
    for name, scene in drawn.items():
        write_labels((tmp_path / "labels" / name).with_suffix(".txt"), scene)
    names = "\n".join(CLASSES) + "\n"
    if layout == "Label Studio":
        (tmp_path / "classes.txt").write_text(names)
        (tmp_path / "notes.json").write_text("{}")
    elif layout == "labelImg":
        for file in (tmp_path / "labels").iterdir():
            file.rename(tmp_path / "images" / file.name)
        (tmp_path / "images/classes.txt").write_text("\ufeff" + names, encoding="utf-8")
    else:
        for folder in ("images", "labels"):
            shutil.copytree(tmp_path / folder, tmp_path / "obj_train_data", dirs_exist_ok=True)
            shutil.rmtree(tmp_path / folder)
        listed = [f"data/obj_train_data/{name}\n" for name in drawn]
        (tmp_path / "train.txt").write_text("".join(listed))
        (tmp_path / "obj.names").write_text(names)
        described = (
            "classes = 2\ntrain = data/train.txt\nnames = data/obj.names\nbackup = backup/\n"
        )
        (tmp_path / "obj.data").write_text(described)
    data = read(tmp_path)
    (content,) = data.splits.values()
    assert scenes_of(content) == drawn
    assert data.classes == [*CLASSES]


@pytest.mark.parametrize("names", [("train2017", "val2017"), ("Train", "my_validation")])
def test_folders_whose_names_contain_a_split_are_splits(tmp_path, names):
    write_yolo(tmp_path, train=3, val=2)
    (tmp_path / "data.yaml").unlink()
    (tmp_path / "classes.txt").write_text("\n".join(CLASSES))
    for old, new in zip(("train", "val"), names, strict=True):
        for folder in ("images", "labels"):
            (tmp_path / folder / old).rename(tmp_path / folder / new)
    splits = read(tmp_path).splits
    assert {name: len(part["images"]) for name, part in splits.items()} == {"train": 3, "val": 2}


def test_boxes_equal_those_of_supervision(tmp_path):
    supervision = pytest.importorskip("supervision")
    write_yolo(tmp_path, train=4, val=1)
    (tmp_path / "labels/train/001.txt").write_text("1 0.1 0.2 0.7 0.3 0.4 0.9\n0 .5 .5 .25 .5\n")
    (tmp_path / "labels/train/002.txt").write_text("")
    theirs = supervision.DetectionDataset.from_yolo(
        *(str(tmp_path / part) for part in ("images/train", "labels/train", "data.yaml"))
    )
    ours = scenes_of(read(tmp_path).splits["train"])
    assert ours.keys() == {Path(path).name for path in theirs.image_paths}
    for path, _, detections in theirs:
        boxes = [(x, y, x + w, y + h) for _, (x, y, w, h) in ours[Path(path).name]]
        assert [label for label, _ in ours[Path(path).name]] == detections.class_id.tolist()
        # supervision rounds the corners of polygons to whole pixels
        assert detections.xyxy.reshape(-1).tolist() == pytest.approx(sum(boxes, ()), abs=1)


def test_images_without_labels_are_images_without_objects(tmp_path):
    write_yolo(tmp_path, train=4, val=1)
    (tmp_path / "labels/train/001.txt").unlink()
    (tmp_path / "labels/train/002.txt").write_text("\n")
    (tmp_path / "labels/train/extra.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    data = read(tmp_path)
    scenes = scenes_of(data.splits["train"])
    assert scenes["001.png"] == scenes["002.png"] == []
    notes = data.tally.notes()
    assert [note.partition(" (")[0] for note in notes] == [
        "images without a label file, used as images without objects: 1",
        "label files without an image, left out: 1",
    ]


def test_boxes_are_clipped_dropped_and_counted(tmp_path):
    write_yolo(tmp_path, train=1, val=1)
    lines = (
        "0 0.0 0.5 0.5 0.5",  # half of it is beyond the left edge
        "1 0.5 0.5 0.0 0.5",  # no area
        "1 1.5 0.5 0.2 0.2",  # outside
        "0 0.5 0.5 0.5 0.5",
        "0 0.5 0.5 0.5 0.5",  # repeated
        "1 0.5 0.5 0.5 0.5 0.9",  # with a confidence
        "0 0.25 0.25 0.75 0.25 0.75 0.5 0.25 0.5",  # a polygon
    )
    (tmp_path / "labels/train/000.txt").write_text("\n".join(lines))
    data = read(tmp_path)
    w, h = WIDTH, HEIGHT
    assert scenes_of(data.splits["train"])["000.png"] == [
        (0, (0, h / 4, w / 4, h / 2)),
        (0, (w / 4, h / 4, w / 2, h / 2)),
        (1, (w / 4, h / 4, w / 2, h / 2)),
        (0, (w / 4, h / 4, w / 2, h / 4)),
    ]
    for line, words in (
        (1, "boxes that extended beyond their image"),
        (2, "boxes without an area"),
        (3, "boxes wholly outside"),
        (5, "boxes that repeated a box"),
        (6, "boxes with a sixth number"),
        (7, "polygons"),
    ):
        (note,) = (note for note in data.tally.notes() if note.startswith(words))
        assert ": 1 (first: " in note
        assert note.endswith(f"000.txt:{line})")


@pytest.mark.parametrize(
    ("shape", "keypoints"), [("[2, 2]", "0.3 0.3 0.4 0.6"), ("[2, 3]", "0.3 0.3 2 0.4 0.6 1")]
)
def test_only_the_box_of_a_line_with_keypoints_is_used(tmp_path, shape, keypoints):
    """The third number of a keypoint is its visibility: 0, 1 or 2."""
    write_yolo(tmp_path, train=1, val=1)
    with (tmp_path / "data.yaml").open("a") as file:
        file.write(f"kpt_shape: {shape}\n")
    (tmp_path / "labels/train/000.txt").write_text(f"1 0.5 0.5 0.5 0.5 {keypoints}\n")
    box = (WIDTH / 4, HEIGHT / 4, WIDTH / 2, HEIGHT / 2)
    assert scenes_of(read(tmp_path).splits["train"])["000.png"] == [(1, box)]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("2 0.5 0.5 0.1 0.1", "class id 2, but .*data.yaml has the 2 classes 0 to 1"),
        ("-1 0.5 0.5 0.1 0.1", "class id -1"),
        ("0.5 0.5 0.5 0.1 0.1", "class id 0.5"),
        ("hammer 0.5 0.5 0.1 0.1", "not a line of numbers"),
        ("0,0.5,0.5,0.1,0.1", "not a line of numbers"),
        ("0 80 60 20 20", "number 2 is 80, which is no fraction of the image size: divide pixels"),
        ("0 nan 0.5 0.1 0.1", "number 2 is nan, which is no fraction"),
        ("0 0.5 0.5 0.1 0.1 0.5 0.5 2 0.4 0.4 1", "number 8 is 2, .* keypoints, state `kpt_shape`"),
        ("0 0.5 0.5 -0.1 0.1", "below 0"),
        ("0 0.5 0.5", "3 numbers"),
        ("0 0.5 0.5 0.1 0.1 0.2 0.2 0.3", "8 numbers"),
    ],
)
def test_a_wrong_line_is_refused_with_its_file_and_line(tmp_path, line, words):
    write_yolo(tmp_path, train=1, val=1)
    (tmp_path / "labels/train/000.txt").write_text(f"0 0.5 0.5 0.1 0.1\n\n{line}\n")
    with pytest.raises(MixDetError, match=f"labels/train/000.txt:3: .*{words}"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("yaml", "words"),
    [
        (f"train: images/train\nval: images/va\n{NAMES}", "data.yaml:2: images/va does not exist"),
        (f"train: images/tran\n{NAMES}", "data.yaml:1: images/tran does not exist"),
        (f"val: images/val\n{NAMES}", "names no training images"),
        (f"train: images/train\nnc: 3\n{NAMES}", "data.yaml:2: nc is 3, but `names` has 2"),
        ("train: images/train\nnames: {0: a, 2: b}\n", "data.yaml:2: the ids of `names` are 0, 2"),
        ("train: images/train\nnames: [a, a]\n", "data.yaml:2: the class 'a' is listed twice"),
        ("train: images/train\nnames: [a, '']\n", "data.yaml:2: class 1 has no name"),
        ("train: images/train\nnames: a\n", "data.yaml:2: `names` is neither a list"),
        ("names: [a\ntrain: images\n", r"data.yaml:2: not a YAML file"),
        (f"train: {{a: b}}\n{NAMES}", "data.yaml:1: train is neither a path nor a list"),
        (f"train: list.txt\n{NAMES}", "list.txt:2: images/none.png: no such image"),
    ],
)
def test_a_wrong_description_is_refused_with_its_line(tmp_path, yaml, words):
    write_yolo(tmp_path, train=1, val=1)
    (tmp_path / "list.txt").write_text("images/train/000.png\nimages/none.png\n")
    (tmp_path / "data.yaml").write_text(yaml)
    with pytest.raises(MixDetError, match=words):
        read(tmp_path)


def test_names_stay_as_they_are_written(tmp_path):
    write_yolo(tmp_path, train=1, val=1)
    text = "train: images/train\nval: images/val\nnames:\n- no\n- 1.0\n- on\n- 'null'\n"
    (tmp_path / "data.yaml").write_text(text)
    assert read(tmp_path).classes == ["no", "1.0", "on", "null"]


def test_unclear_files_are_refused(tmp_path):
    write_yolo(tmp_path, train=2, val=1)
    shutil.copy(tmp_path / "images/train/000.png", tmp_path / "images/train/000.jpg")
    with pytest.raises(MixDetError, match=r"000.jpg and .*000.png share the labels"):
        read(tmp_path)
    (tmp_path / "images/train/000.jpg").unlink()
    (tmp_path / "data.yaml").rename(tmp_path / "first.yaml")
    shutil.copy(tmp_path / "first.yaml", tmp_path / "second.yml")
    with pytest.raises(MixDetError, match=r"several files name classes \(first.yaml, second.yml\)"):
        find_yolo(tmp_path)
    shutil.rmtree(tmp_path / "labels")
    with pytest.raises(MixDetError, match=re.escape("labels/train/000.txt: no such label file")):
        read_yolo(tmp_path / "first.yaml", tmp_path)
