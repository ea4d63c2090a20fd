"""The options of tools/test.py for results, drawings and test-time augmentation."""

from __future__ import annotations

import json
import re

import cv2
import numpy as np
import pytest
import torch
import torchvision
from mmengine.fileio import load
from PIL import Image

from mixdet.evaluation import ScoredData
from mixdet.inference import Detector
from mixdet.visual.drawn_images import draw_images
from tests.tiny import IMAGES, SIZE

pytestmark = pytest.mark.usefixtures("quick")

NMS_IOU, MAX_BOXES = 0.45, 20  # of the tiny config


def detections_of(file) -> dict[int, list[tuple]]:
    """Return (x1, y1, x2, y2, score, category) of each image in a file of COCO results."""
    by_image: dict[int, list[tuple]] = {number: [] for number in range(1, IMAGES + 1)}
    for item in json.loads(file.read_text()):
        x, y, width, height = item["bbox"]
        box = (x, y, x + width, y + height)
        by_image[item["image_id"]].append((*box, item["score"], item["category_id"]))
    return by_image


def close(found: list[tuple], expected: list[tuple]) -> bool:
    """Whether two lists of detections are equal, in the order of the scores, up to rounding."""
    found, expected = (sorted(part, key=lambda d: (-d[4], *d)) for part in (found, expected))
    return len(found) == len(expected) and np.allclose(found, expected, rtol=1e-3, atol=2e-2)


def test_a_pickle_has_the_form_that_the_tools_of_mmdet_read(tool, trained, tmp_path):
    pickle = tmp_path / "new" / "results.pkl"
    code, out, err = tool("test", *trained, "--work-dir", tmp_path, "--out", pickle)
    assert code == 0, err
    assert "mAP" in out
    results = load(pickle)
    # The COCO results are written too
    by_image = detections_of(tmp_path / "test_detections.json")
    assert [result["img_id"] for result in results] == [*by_image]
    for result in results:
        assert "gt_instances" not in result
        instances = result["pred_instances"]
        assert {type(value) for value in instances.values()} == {torch.Tensor}
        boxes, scores, labels = (instances[key] for key in ("bboxes", "scores", "labels"))
        rows = torch.cat([boxes, scores[:, None], labels[:, None] + 1], 1).tolist()
        assert close([tuple(row) for row in rows], by_image[result["img_id"]])


def test_show_dir_draws_every_image(tool, images_copy, trained, tmp_path):
    names = {1: "deep/1.png", 2: "2.bmp"}
    file = images_copy / "annotations/instances_val2017.json"
    content = json.loads(file.read_text())
    (images_copy / "val2017/deep").mkdir()
    for entry in content["images"]:
        if name := names.get(entry["id"]):
            old = images_copy / "val2017" / entry["file_name"]
            Image.open(old).save(images_copy / "val2017" / name)
            entry["file_name"] = name
    file.write_text(json.dumps(content))
    folder = tmp_path / "shown" / "here"
    options = ["--work-dir", tmp_path, "--data-root", images_copy, "--show-dir", folder]
    code, out, err = tool("test", *trained, *options)
    assert code == 0, err
    assert f"drawn images: {IMAGES} in {folder}" in out
    drawn = {str(path.relative_to(folder)) for path in folder.rglob("*.*")}
    expected = {"deep/1.png", "2.bmp.jpg"}
    assert drawn == expected | {f"{number}.png" for number in range(3, IMAGES + 1)}
    image = np.asarray(Image.open(folder / "5.png"))
    assert max(image.shape) == 480
    # The drawing differs from the enlarged image: it has the boxes
    plain = Image.open(images_copy / "val2017/5.png").resize((480, 480), Image.Resampling.BICUBIC)
    assert np.abs(image.astype(int) - np.asarray(plain)).max() > 100


def test_a_drawing_never_leaves_its_folder(images_copy, tmp_path):
    """`tools/test.py` refuses such annotations. A hook in a run of mmdet's tool draws them."""
    file = images_copy / "annotations/instances_val2017.json"
    content = json.loads(file.read_text())
    for entry in content["images"]:
        entry["file_name"] = f"../val2017/{entry['file_name']}"
    content["images"][0]["file_name"] = str(images_copy / "val2017/1.png")
    file.write_text(json.dumps(content))
    (tmp_path / "results.json").write_text("[]")
    folder = tmp_path / "a" / "b"
    draw_images(ScoredData.read(file), images_copy / "val2017", tmp_path / "results.json", folder)
    assert len(list(folder.rglob("*.png"))) == IMAGES
    assert list(tmp_path.glob("a/*")) == [folder]
    assert max(Image.open(images_copy / "val2017/1.png").size) == SIZE  # not overwritten


def test_augmentation_merges_the_boxes_of_the_image_and_of_its_mirror_image(
    tool, images, trained, tmp_path
):
    results = tmp_path / "results.json"
    code, out, err = tool("test", *trained, "--work-dir", tmp_path, "--tta", "--out", results)
    assert code == 0, err
    assert "the training mirrors none" not in out
    detector = Detector(trained[1])
    for number, found in detections_of(results).items():
        image = cv2.imread(str(images / f"val2017/{number}.png"))[..., ::-1]
        parts = [detector(version.copy(), score_thr=0) for version in (image, image[:, ::-1])]
        mirrored = parts[1].boxes[:, [2, 1, 0, 3]] * [-1, 1, -1, 1] + [64, 0, 64, 0]
        boxes = torch.tensor(np.concatenate([parts[0].boxes, mirrored])).double()
        scores = torch.tensor(np.concatenate([part.scores for part in parts])).double()
        labels = torch.tensor(np.concatenate([part.labels for part in parts]))
        kept = torchvision.ops.batched_nms(boxes, scores, labels, NMS_IOU)[:MAX_BOXES]
        rows = torch.cat([boxes, scores[:, None], labels[:, None] + 1], 1)[kept].tolist()
        assert close(found, [tuple(row) for row in rows]), number


def test_the_config_may_say_how_to_augment(tool, trained, tmp_path):
    config = tmp_path / "config.py"
    config.write_text(
        f"_base_ = {str(trained[0])!r}\n"
        "tta_pipeline = [\n"
        "    dict(type='LoadImageFromFile'),\n"
        "    dict(type='Resize', scale=(64, 64), keep_ratio=False),\n"
        "    dict(type='LoadAnnotations', with_bbox=True),\n"
        "    dict(type='TestTimeAug', transforms=[[dict(type='PackDetInputs', meta_keys=(\n"
        "        'img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor', 'flip',\n"
        "        'flip_direction'))]])]\n"
        "tta_pipeline[2:2] = [dict(type='RandomFlip', prob=0.0)]\n"
    )
    files = []
    for number, options in enumerate([["--tta"], []]):
        files.append(tmp_path / f"{number}.json")
        work = tmp_path / f"work{number}"
        code, _, err = tool(
            "test", config, trained[1], "--work-dir", work, "--out", files[-1], *options
        )
        assert code == 0, err
    # One version of an image gives the detections of a test without augmentation
    augmented, plain = map(detections_of, files)
    assert all(close(augmented[number], plain[number]) for number in plain)


def test_augmenting_what_the_training_never_saw_is_warned_about(tool, trained, tmp_path):
    config = tmp_path / "config.py"
    config.write_text(
        f"_base_ = {str(trained[0])!r}\n"
        "train_dataloader = dict(dataset=dict(pipeline=[dict(type='LoadImageFromFile')]))\n"
    )
    code, out, err = tool("test", config, trained[1], "--work-dir", tmp_path, "--tta")
    assert code == 0, err
    assert "the training mirrors none" in out + err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--show-dir", "{tmp}/shown"], r"--show-dir: only a CocoDetectionMetric"),
        (["--show-dir", "{tmp}/file/x"], r"--show-dir .*file/x: "),
        (["--out", "{tmp}/file/x.pkl"], r"--out .*file: "),
    ],
)
def test_what_cannot_be_written_is_refused(refusal, images, trained, tmp_path, options, message):
    (tmp_path / "file").touch()
    options = [option.format(tmp=tmp_path) for option in options]
    if "shown" in options[1]:
        config = tmp_path / "config.py"
        config.write_text(
            f"_base_ = {str(trained[0])!r}\n"
            "test_evaluator = dict(_delete_=True, type='CocoMetric',\n"
            f"    ann_file='{images}/annotations/instances_val2017.json')\n"
        )
        trained = (config, trained[1])
    assert re.search(message, refusal("test", *trained, *options))


def test_a_pipeline_that_packs_nothing_cannot_be_augmented(refusal, trained, tmp_path):
    config = tmp_path / "config.py"
    config.write_text(
        f"_base_ = {str(trained[0])!r}\n"
        "test_dataloader = dict(dataset=dict(pipeline=[dict(type='LoadImageFromFile')]))\n"
    )
    message = refusal("test", config, trained[1], "--tta", "--work-dir", tmp_path)
    assert "--tta: the test pipeline ends with LoadImageFromFile" in message
