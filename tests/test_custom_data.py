"""The commands and scripts of docs/custom_data.md work on images that this test draws."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import timm
from mmdet.registry import MODELS
from safetensors.torch import save_file

from mixdet.config.read import read_config
from tests.conftest import ROOT

PAGE = (ROOT / "docs/custom_data.md").read_text()
BLOCKS = [
    block.strip()
    for block in re.findall(r"```python\n(.*?)```", PAGE, flags=re.S)
    if block.split("\n")[0].endswith(".py")  # the first line is "# FILE.py"
]
COMMANDS = [line for line in PAGE.splitlines() if line.startswith("python ")]
CLASSES = ("hammer", "saw")
WIDTH, HEIGHT = 160, 120
Scene = list[tuple[int, tuple[int, int, int, int]]]  # class, (x, y, w, h) in pixels


@pytest.fixture
def working_folder(tmp_path: Path) -> Path:
    """A folder with the tools and configs of the repository, and the files that the page shows."""
    (tmp_path / "tools").symlink_to(ROOT / "tools")
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    for block in BLOCKS:
        name = block.splitlines()[0].removeprefix("# ")
        (tmp_path / name).write_text(block + "\n")
    return tmp_path


def run_in(folder: Path, command: str) -> str:
    """Run a command of the page; return what it printed."""
    python, *arguments = command.split()
    assert python == "python"
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def draw(folder: Path, numbers: range) -> dict[str, Scene]:
    """Write images that each show a square and a disc; return the scenes by file name."""
    folder.mkdir(parents=True)
    scenes = {}
    for number in numbers:
        rng = np.random.default_rng(number)
        image = rng.integers(100, 140, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        scene = []
        for label, left in enumerate(rng.permutation((0, WIDTH // 2)).tolist()):
            side = 2 * int(rng.integers(18, 35))
            x = left + int(rng.integers(WIDTH // 2 - side + 1))
            y = int(rng.integers(HEIGHT - side + 1))
            if label:
                center = (x + side // 2, y + side // 2)
                cv2.circle(image, center, side // 2, (250, 250, 20), -1)
            else:
                image[y : y + side, x : x + side] = 20
            scene.append((label, (x, y, side, side)))
        name = f"{number:03}.png"
        assert cv2.imwrite(str(folder / name), image)
        scenes[name] = scene
    return scenes


def write_voc(folder: Path) -> dict[str, Scene]:
    scenes = draw(folder / "voc/JPEGImages", range(32))
    for name, scene in scenes.items():
        objects = [(CLASSES[label], box) for label, box in scene]
        write_xml((folder / "voc/Annotations" / name).with_suffix(".xml"), objects)
    return scenes


def write_xml(file: Path, objects: list[tuple[str, tuple[int, int, int, int]]]) -> None:
    """Write the names and boxes (x, y, w, h) of an image in VOC's format."""
    entries = "".join(
        f"<object><name>{name}</name><difficult>0</difficult><bndbox>"
        # VOC counts pixels from 1, and the box contains the pixel (xmax, ymax)
        f"<xmin>{x + 1}</xmin><ymin>{y + 1}</ymin><xmax>{x + w}</xmax><ymax>{y + h}</ymax>"
        "</bndbox></object>"
        for name, (x, y, w, h) in objects
    )
    size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height><depth>3</depth></size>"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"<annotation><filename>{file.stem}.png</filename>{size}{entries}</annotation>")


def write_yolo(folder: Path) -> dict[str, Scene]:
    scenes = {}
    for part, numbers in (("train", range(24)), ("val", range(24, 32))):
        drawn = draw(folder / "yolo/images" / part, numbers)
        labels = folder / "yolo/labels" / part
        labels.mkdir(parents=True)
        for name, scene in drawn.items():
            lines = (
                f"{label} {(x + w / 2) / WIDTH} {(y + h / 2) / HEIGHT} {w / WIDTH} {h / HEIGHT}\n"
                for label, (x, y, w, h) in scene
            )
            (labels / name).with_suffix(".txt").write_text("".join(lines))
        scenes |= drawn
    names = "".join(f"  {number}: {name}\n" for number, name in enumerate(CLASSES))
    (folder / "yolo/data.yaml").write_text(f"train: images/train\nval: images/val\nnames:\n{names}")
    return scenes


def converted(folder: Path, script: str) -> dict[str, Scene]:
    """Run a conversion script of the page; return the scenes that it wrote as annotations."""
    assert run_in(folder, f"python {script}").splitlines()[-1] == str(list(CLASSES))
    scenes: dict[str, Scene] = {}
    for part in ("train2017", "val2017"):
        file = folder / f"data/workshop/annotations/instances_{part}.json"
        content = json.loads(file.read_text())
        names = {category["id"]: category["name"] for category in content["categories"]}
        files = {image["id"]: image["file_name"] for image in content["images"]}
        images = (folder / f"data/workshop/{part}").iterdir()
        assert set(files.values()) == {image.name for image in images}
        for entry in content["annotations"]:
            label = CLASSES.index(names[entry["category_id"]])
            box = tuple(round(value, 3) for value in entry["bbox"])
            scenes.setdefault(files[entry["image_id"]], []).append((label, box))
    return scenes


def test_the_config_of_the_page_has_at_most_ten_lines():
    (config,) = (block for block in BLOCKS if block.startswith("# configs/workshop.py"))
    assert len(config.splitlines()) <= 10


def test_the_backbone_starts_from_the_weights_file_that_the_page_names(tmp_path):
    network = timm.create_model("mixnet_s")
    file = tmp_path / "model.safetensors"
    save_file(network.state_dict(), file)
    (block,) = (part for part in PAGE.split("```") if "# weights from a file" in part)
    (tmp_path / "own.py").write_text(
        f"_base_ = {str(ROOT / 'configs/_base_/own_data.py')!r}\n"
        + block.removeprefix("python\n").replace("weights/model.safetensors", str(file))
    )
    backbone = MODELS.build(read_config(tmp_path / "own.py").model.backbone)
    backbone.init_weights()
    assert backbone.conv_stem.weight.equal(network.conv_stem.weight)
    (page_of_s,) = re.findall(r"hf download (\S+) model.safetensors", PAGE)
    pages = {page_of_s, *re.findall(r"`(timm/mixnet_\S+)`", PAGE)}
    sizes = ("s", "m", "l", "xl")
    known = {timm.models.get_pretrained_cfg(f"mixnet_{size}").hf_hub_id for size in sizes}
    assert pages == known


def test_supervision_numbers_classes_as_the_page_says(tmp_path):
    """supervision sorts the images by name, and the new classes of each image alphabetically."""
    supervision = pytest.importorskip("supervision")

    def classes(**names: tuple[str, ...]) -> list[str]:
        folder = tmp_path / "-".join(names)
        for file, objects in names.items():
            image = folder / "images" / f"{file}.png"
            image.parent.mkdir(parents=True, exist_ok=True)
            assert cv2.imwrite(str(image), np.zeros((HEIGHT, WIDTH, 3), np.uint8))
            write_xml(folder / "labels" / f"{file}.xml", [(name, (2, 3, 9, 9)) for name in objects])
        return supervision.DetectionDataset.from_pascal_voc(
            str(folder / "images"), str(folder / "labels")
        ).classes

    assert classes(i1=("zebra",), i2=("ape",)) == ["zebra", "ape"]
    assert classes(i1=("zebra", "ape"), i2=("bear",)) == ["ape", "zebra", "bear"]
    assert classes(i1=("b",), i2=("a",), i10=("c",)) == ["b", "c", "a"]


@pytest.mark.heavy
def test_converted_yolo_labels_equal_the_drawn_boxes_and_pass_the_check(working_folder):
    folder = working_folder
    pytest.importorskip("supervision")
    drawn = write_yolo(folder)
    assert converted(folder, "convert_yolo.py") == drawn
    assert "nothing is wrong" in run_in(folder, COMMANDS[0])


@pytest.mark.heavy
def test_all_commands_of_the_page_work_on_converted_voc_labels(working_folder):
    folder = working_folder
    pytest.importorskip("supervision")
    drawn = write_voc(folder)
    assert converted(folder, "convert_voc.py") == drawn
    check, *training, compare = COMMANDS
    assert "nothing is wrong" in run_in(folder, check)
    train, test, predict, other_test = (run_in(folder, command) for command in training)
    for printed in (train, test, other_test):
        assert re.search(r"coco/bbox_mAP: 0\.\d+", printed), printed[-2000:]
    assert len(list(folder.glob("outputs/predict/*.png"))) == 8, predict
    assert "workshop_plain" in run_in(folder, compare)
    assert (folder / "work_dirs/workshop_comparison/report.html").is_file()
    assert (folder / "workshop.html").is_file()
