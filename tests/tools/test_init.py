"""tools/init.py writes a config that the check and the training accept, from every format."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from mmdet.registry import MODELS
from PIL import Image
from pycocotools.coco import COCO

from mixdet.config.input_size import input_wh
from mixdet.config.read import read_config
from mixdet.own_data import write_own_config
from mixdet.own_data.training_plan import BATCH, plan_training
from tests.conftest import ROOT
from tests.exports import CLASSES, draw, scenes_of, write_coco, write_json, write_voc, write_yolo

pytestmark = pytest.mark.usefixtures("quick")


def written_scenes(config: Path) -> dict[str, list]:
    """Return the boxes that the config's training and validation data have, and open each image."""
    cfg, scenes = read_config(config), {}
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        dataset = loader.dataset
        root = Path(dataset.data_root)
        COCO(root / dataset.ann_file)
        content = json.loads((root / dataset.ann_file).read_text())
        for image in content["images"]:
            file = root / dataset.data_prefix.img / image["file_name"]
            assert Image.open(file).size == (image["width"], image["height"])
        scenes |= scenes_of(content)
    return scenes


@pytest.mark.parametrize("write", [write_coco, write_yolo, write_voc])
def test_all_formats_give_the_same_boxes_and_pass_the_check(tool, tmp_path, write):
    folder, config = tmp_path / "data", tmp_path / "own.py"
    drawn = write(folder)
    before = {path: path.stat().st_mtime for path in folder.rglob("*")}
    code, out, err = tool("init", folder, "--out", config)
    assert code == 0, out + err
    assert before == {path: path.stat().st_mtime for path in folder.rglob("*")}
    assert written_scenes(config) == drawn
    assert f"format: {write.__name__[6:].upper()}" in out
    assert "nothing is wrong" in out
    assert out.endswith(f"next:\n  python tools/check_data.py {config}\n"
                        f"  python tools/train.py {config}\n")  # fmt: skip
    assert (tmp_path / "own_annotations").is_dir() == (write is not write_coco)
    cfg = read_config(config)
    assert cfg.classes == CLASSES
    assert cfg.auto_scale_lr.base_batch_size == BATCH
    assert cfg.model.bbox_head.num_classes == 2
    assert cfg.val_evaluator.ann_file == str(
        Path(cfg.val_dataloader.dataset.data_root, cfg.val_dataloader.dataset.ann_file)
    )


def test_the_config_is_short(tmp_path):
    write_coco(tmp_path / "data", train=8, val=2)
    own = write_own_config(tmp_path / "data", tmp_path / "own.py")
    code = re.sub(r'""".*?"""', "", own.config.read_text(), flags=re.S)
    statements = re.findall(r"^\w", code, flags=re.M)
    assert len(statements) <= (17 if "\nsize = " in code else 12)
    assert max(map(len, code.splitlines())) <= 100 + len(str(tmp_path))


@pytest.mark.parametrize(("shrink", "side"), [(1, 224), (4, 320)])
def test_the_input_is_smaller_if_nearly_all_boxes_are_large(tmp_path, shrink, side):
    write_coco(tmp_path / "data", train=8, val=2)
    file = tmp_path / "data/annotations/instances_train2017.json"
    content = json.loads(file.read_text())
    for annotation in content["annotations"]:
        annotation["bbox"][2:] = [length / shrink for length in annotation["bbox"][2:]]
    file.write_text(json.dumps(content))
    own = write_own_config(tmp_path / "data", tmp_path / "own.py")
    cfg = read_config(own.config)
    assert input_wh(cfg) == (side, side)
    assert cfg.test_dataloader.dataset.pipeline[1].scale == (side, side)
    (line,) = (line for line in own.lines if line.startswith("input size"))
    assert f"{side}x{side}, " in line
    assert ("95 % of the boxes" in line) == (side == 224)


def test_the_config_has_the_paths_that_the_user_gives_and_a_relative_base(tool, tmp_path):
    """Within a checkout, the config has no absolute path."""
    write_yolo(tmp_path / "data", train=8, val=2)
    data = os.path.relpath(tmp_path / "data", ROOT)
    out = Path("work_dirs", f"{tmp_path.name}.py")
    annotations = Path("work_dirs", f"{tmp_path.name}_annotations")
    try:
        code, printed, err = tool("init", data, "--out", out)
        assert code == 0, printed + err
        text = (ROOT / out).read_text()
        assert '_base_ = "../configs/_base_/own_data.py"' in text
        assert f'data_prefix=dict(img="{Path(data).as_posix()}/")' in text
        assert f'ann_file="{annotations.as_posix()}/train.json"' in text
        assert str(ROOT) not in text
    finally:
        for file in [ROOT / out, *(ROOT / annotations).glob("*.json")]:
            file.unlink(missing_ok=True)
        if (ROOT / annotations).is_dir():
            (ROOT / annotations).rmdir()


def test_images_without_boxes_are_used_unless_an_option_leaves_them_out(tool, tmp_path):
    write_yolo(tmp_path / "data", train=10, val=2)
    for number in (1, 3):
        (tmp_path / f"data/labels/train/{number:03}.txt").unlink()
    for options, used in (((), 10), (("--skip-images-without-boxes", "--force"), 8)):
        code, out, err = tool("init", tmp_path / "data", "--out", tmp_path / "own.py", *options)
        assert code == 0, out + err
        assert "2 training images without boxes" in out
        assert f"training data: {used} of 10 images are used" in out
    cfg = read_config(tmp_path / "own.py")
    assert cfg.train_dataloader.dataset.filter_cfg.filter_empty_gt is True


def test_existing_files_are_replaced_only_with_force(tool, refusal, tmp_path):
    write_yolo(tmp_path / "data", train=8, val=2)
    config = tmp_path / "own.py"
    config.write_text("mine")
    arguments = ("init", tmp_path / "data", "--out", config)
    assert "own.py exists already: pass --force" in refusal(*arguments)
    assert config.read_text() == "mine"
    config.unlink()
    write_json(tmp_path / "own_annotations/val.json", {})
    assert "val.json exists already" in refusal(*arguments)
    assert not config.exists()
    assert not (tmp_path / "own_annotations/train.json").exists()
    assert tool(*arguments, "--force")[0] == 0
    assert "classes" in config.read_text()
    # files that an earlier call wrote into the folder of the data are not read as data
    inside = (tmp_path / "data", "--out", tmp_path / "data/own.py")
    assert tool("init", *inside)[0] == tool("init", *inside, "--force")[0] == 0


@pytest.mark.parametrize("write", [write_yolo, write_coco])
def test_files_of_an_earlier_config_in_the_data_folder_are_not_read_as_data(tmp_path, write):
    folder = tmp_path / "data"
    drawn = write(folder, train=8, val=2)
    if write is write_coco:  # COCO files that are written anew
        for file in folder.glob("annotations/*.json"):
            file.write_text(file.read_text().replace('"hammer"', '" hammer"'))
    for name in ("a.py", "b.py"):
        write_own_config(folder, folder / name)
        assert (folder / name).with_name(f"{name[0]}_annotations").is_dir()
        assert written_scenes(folder / name) == drawn


def test_an_error_of_the_check_ends_with_code_1_after_the_config_is_written(tool, tmp_path):
    write_coco(tmp_path / "data", train=8, val=2)
    file = tmp_path / "data/annotations/instances_train2017.json"
    content = json.loads(file.read_text())
    content["annotations"][0]["bbox"] = ["1", "2", "3", "4"]
    del content["annotations"][1]["image_id"]
    content["images"][2]["width"] = "160"
    write_json(file, content)
    code, out, _ = tool("init", tmp_path / "data", "--out", tmp_path / "own.py")
    assert code == 1
    assert "error: training data: annotations that cannot be used" in out
    assert (tmp_path / "own.py").is_file()


def test_data_outside_of_the_folder_and_links_are_followed(tmp_path):
    drawn = write_yolo(tmp_path / "real", train=8, val=2)
    (tmp_path / "data").mkdir()
    yaml = (tmp_path / "real/data.yaml").read_text()
    (tmp_path / "data/data.yaml").write_text(f"path: ../real\n{yaml}")
    write_own_config(tmp_path / "data", tmp_path / "a.py")
    (tmp_path / "data/data.yaml").write_text(yaml)
    for part in ("images", "labels"):
        (tmp_path / "data" / part).symlink_to(tmp_path / "real" / part)
    write_own_config(tmp_path / "data/data.yaml", tmp_path / "b.py")
    assert written_scenes(tmp_path / "a.py") == written_scenes(tmp_path / "b.py") == drawn


@pytest.mark.parametrize("absolute", [True, False])
@pytest.mark.parametrize("is_relative", [True, False])
def test_coco_names_that_are_absolute_or_begin_with_the_data_folder_are_rewritten(
    tmp_path, monkeypatch, is_relative, absolute
):
    drawn = write_coco(tmp_path / "data", train=8, val=2)
    for split in ("train", "val"):
        file = tmp_path / f"data/annotations/instances_{split}2017.json"
        content = json.loads(file.read_text())
        for entry in content["images"]:
            inner = Path("data", f"{split}2017", entry["file_name"])
            entry["file_name"] = str(tmp_path / inner if absolute else inner)
        write_json(file, content)
    monkeypatch.chdir(tmp_path)
    write_own_config("data" if is_relative else tmp_path / "data", "own.py")
    assert written_scenes(Path("own.py")) == drawn
    assert (tmp_path / "own_annotations").is_dir()


def test_a_test_split_is_in_the_config(tmp_path):
    write_yolo(tmp_path / "data", train=8, val=2)
    drawn = draw(tmp_path / "data/images/test", range(20, 23))
    (tmp_path / "data/labels/test").mkdir()
    for name in drawn:
        text = "0 0.5 0.5 0.25 0.25\n"
        (tmp_path / "data/labels/test" / name).with_suffix(".txt").write_text(text)
    with (tmp_path / "data/data.yaml").open("a") as file:
        file.write("test: images/test\n")
    own = write_own_config(tmp_path / "data", tmp_path / "own.py")
    assert [file.name for file in own.annotations] == ["train.json", "val.json", "test.json"]
    assert "images: 8 training, 2 validation, 3 test" in own.lines
    cfg = read_config(own.config)
    assert cfg.test_evaluator.ann_file == cfg.test_dataloader.dataset.ann_file
    assert cfg.test_dataloader.dataset.ann_file.endswith("test.json")
    assert cfg.val_dataloader.dataset.ann_file.endswith("val.json")


def test_images_are_split_anew_if_training_and_validation_name_the_same_images(tmp_path):
    write_yolo(tmp_path / "data", train=20, val=2)
    file = tmp_path / "data/data.yaml"
    file.write_text(file.read_text().replace("images/val", "images/train"))
    own = write_own_config(tmp_path / "data", tmp_path / "own.py")
    assert "training and validation name the same images" in own.lines
    train, val = (json.loads(file.read_text())["images"] for file in own.annotations)
    assert len(train) + len(val) == 20
    assert not {i["file_name"] for i in train} & {i["file_name"] for i in val}


def test_names_of_classes_are_quoted(tmp_path):
    write_yolo(tmp_path / "data", train=8, val=2)
    names = ['"quoted"', "it's", "c:\\x", "Säge", *(f"class number {n}" for n in range(30))]
    text = "train: images/train\nval: images/val\nnames: " + json.dumps(names)
    (tmp_path / "data/data.yaml").write_text(text)
    own = write_own_config(tmp_path / "data", tmp_path / "own.py")
    assert list(read_config(own.config).classes) == names
    assert max(map(len, own.config.read_text().partition("data =")[0].splitlines())) < 140


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda folder: None, "data: no such folder"),
        (lambda folder: folder.mkdir(), "no annotations in the format of COCO, YOLO or VOC"),
        (lambda folder: (write_yolo(folder, 2, 1), write_coco(folder, 2, 1)), "several formats"),
        (lambda folder: write_yolo(folder, 1, 1), "1 training image: batch norm needs"),
        (
            lambda folder: [
                file.write_text("")
                for _ in [write_yolo(folder, 3, 1)]
                for file in folder.rglob("labels/*/*.txt")
            ],
            "the training images have no box",
        ),
    ],
    ids=["missing", "empty", "two formats", "one image", "no box"],
)
def test_data_that_cannot_be_trained_on_are_refused(refusal, tmp_path, make, words):
    make(tmp_path / "data")
    line = refusal("init", tmp_path / "data", "--out", tmp_path / "own.py")
    assert words in line
    assert not (tmp_path / "own.py").exists()


def test_the_format_and_the_file_can_be_named(tool, refusal, tmp_path):
    write_yolo(tmp_path / "data", train=8, val=2)
    write_coco(tmp_path / "data", train=8, val=2)
    code, out, _ = tool("init", tmp_path / "data", "--format", "yolo", "--out", tmp_path / "a.py")
    assert (code, "format: YOLO" in out) == (0, True)
    file = tmp_path / "data/annotations/instances_train2017.json"
    code, out, _ = tool("init", file, "--out", tmp_path / "b.py")
    assert (code, "format: COCO" in out) == (0, True)
    assert "split off by a hash" in out  # this file has no validation images
    assert "name it own.py" in refusal("init", tmp_path / "data", "--out", tmp_path / "own.json")


def test_the_schedule_fits_the_number_of_images():
    plans = {images: plan_training(images) for images in (2, 50, 290, 819, 5000, 118_287)}
    for images, plan in plans.items():
        per_epoch = images // plan.batch_size
        assert plan.iterations == plan.max_epochs * per_epoch
        assert 1 <= plan.val_interval <= plan.max_epochs
        assert plan.iterations >= 3000 - per_epoch
    assert [plan.max_epochs for plan in plans.values()] == [3000, 500, 100, 100, 19, 12]
    assert plans[2].batch_size == 2


def test_init_with_a_size_writes_what_the_size_option_of_training_sets(tool, tmp_path):
    write_coco(tmp_path / "data", train=8, val=2)
    arguments = ("init", tmp_path / "data", "--out")
    code, out, err = tool(*arguments, tmp_path / "wide.py", "--size", "512x288")
    assert code == 0, out + err
    assert "input size: 512x288, as --size says" in out
    write_own_config(tmp_path / "data", tmp_path / "plain.py")
    wide = read_config(tmp_path / "wide.py")
    option = read_config(tmp_path / "plain.py", size=(512, 288))
    for key in ("model", "train_dataloader", "val_dataloader", "test_dataloader"):
        assert wide[key].to_dict() == option[key].to_dict(), key
    model = MODELS.build(wide.model)
    assert model.input_wh == (512, 288)
