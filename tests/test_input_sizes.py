"""Width and height of a wide or tall input are never exchanged, from training to the export."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import mixdet.plugin

import cv2
import numpy as np
import pytest
import torch
from mmdet.registry import MODELS, TRANSFORMS

from mixdet import launch
from mixdet.config.read import read_config
from mixdet.deploy import export
from mixdet.deploy.verification import match_detections
from mixdet.errors import MixDetError
from mixdet.inference import Detector
from tests.conftest import ROOT
from tests.synthetic import coco_annotations, random_batch, randomize_norms

WIDE, TALL = (128, 64), (64, 128)
IMAGES = [(150, 90), (70, 160), (150, 90), (70, 160)]  # (width, height), wide and tall
CONFIG = f"""
_base_ = {str(ROOT / "configs/_base_/own_data.py")!r}
custom_imports = dict(imports=["mixdet.plugin", "tests.tiny"], allow_failed_imports=False)
experiment_name = {{name!r}}
data = dict(data_root={{root!r}}, metainfo=dict(classes=("dark", "bright")))
loader = dict(batch_size=2, num_workers=0, persistent_workers=False, dataset=data)
train_dataloader = val_dataloader = test_dataloader = loader
val_evaluator = test_evaluator = dict(ann_file={{root!r}} + "/annotations/instances_val2017.json")
train_cfg = dict(max_epochs=1, val_interval=1)
load_from = None
model = dict(
    backbone=dict(_delete_=True, type="TinyBackbone", plain=True),
    neck=dict(extra_channels=(8, 8, 8), level_strides=(2, 2, 2), level_paddings=(1, 1, 1)),
    bbox_head=dict(num_classes=2, kernel_sizes=3),
    test_cfg=dict(score_thr=0.001, max_per_img=10),
)
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Path:
    """A config of a tiny SSDLite for 320 x 320 pixels, and wide and tall images."""
    folder = tmp_path_factory.mktemp("sizes")
    rng = np.random.default_rng(0)
    (folder / "annotations").mkdir()
    for split in ("train2017", "val2017"):
        (folder / split).mkdir()
        images, boxes = [], []
        for number, (width, height) in enumerate(IMAGES, start=1):
            image = rng.integers(90, 160, (height, width, 3), dtype=np.uint8)
            for label, x, y in ((1, 0, 0), (2, width - 50, height - 40)):  # two opposite corners
                image[y : y + 40, x : x + 50] = 255 * (label - 1)
                boxes.append((number, label, [x, y, 50, 40]))
            name = f"{number}.png"
            cv2.imwrite(str(folder / split / name), image)
            images.append({"id": number, "file_name": name, "width": width, "height": height})
        content = {
            "images": images,
            "annotations": coco_annotations(boxes),
            "categories": [{"id": 1, "name": "dark"}, {"id": 2, "name": "bright"}],
        }
        (folder / f"annotations/instances_{split}.json").write_text(json.dumps(content))
    path = folder / "sizes.py"
    path.write_text(CONFIG.format(root=str(folder), name=folder.name))
    return path


@pytest.fixture(scope="module", params=[WIDE, TALL], ids=["wide", "tall"])
def trained(request, config, quick, tmp_path_factory) -> tuple[tuple[int, int], Path]:
    """A size (width, height), and a checkpoint that was trained with it.

    After the training, norms and head get random values. Otherwise the scores of many cells would
    be equal, and rounding would decide which boxes NMS keeps.
    """
    folder = tmp_path_factory.mktemp("run")
    options = [f"experiment_name={folder.name}"]
    launch.train(str(config), work_dir=str(folder), size=request.param, cfg_options=options)
    file = folder / "epoch_1.pth"
    checkpoint = torch.load(file)
    torch.manual_seed(0)
    model = MODELS.build(read_config(config, size=request.param).model)
    model.load_state_dict(checkpoint["state_dict"])
    randomize_norms(model)
    for predictor in (*model.bbox_head.cls_convs, *model.bbox_head.reg_convs):
        torch.nn.init.normal_(predictor[-1].weight, std=0.3)
    torch.save({**checkpoint, "state_dict": model.state_dict()}, file)
    return request.param, file


def input_shape(detector: Detector) -> tuple[int, ...]:
    """Return the (height, width) of the network's input for an image of 50 x 40 pixels."""
    image = np.zeros((40, 50, 3), np.uint8)
    return tuple(detector._network.prepare(image)["inputs"].shape[1:])


def test_a_checkpoint_keeps_the_size_it_was_trained_with(config, trained):
    wh, checkpoint = trained
    assert input_shape(Detector(checkpoint)) == wh[::-1]
    with pytest.warns(UserWarning, match=f"trained with images of {wh[0]}x{wh[1]}"):
        named = Detector(checkpoint, config)
    assert input_shape(named) == wh[::-1]
    image = next((config.parent / "val2017").glob("*.png"))
    assert np.array_equal(named(image).boxes, Detector(checkpoint)(image).boxes)


def test_a_checkpoint_can_be_tested_with_another_size(config, trained, tmp_path, capfd):
    wh, checkpoint = trained
    for size, words in ((wh, ""), (96, "the test takes images of 96x96")):
        options = [f"experiment_name={tmp_path.name}_{size == 96}"]
        metrics = launch.evaluate(
            str(config), str(checkpoint), work_dir=str(tmp_path), size=size, cfg_options=options
        )
        assert "coco/bbox_mAP" in metrics
        log = "".join(capfd.readouterr())
        assert words in log
        assert ("the checkpoint was trained with" in log) == (size == 96)


@pytest.mark.heavy
def test_exported_folders_detect_the_same_boxes(config, trained, tmp_path):
    wh, checkpoint = trained
    with pytest.warns(UserWarning, match="trained with images of"):
        folders = export(
            config, checkpoint, tmp_path, targets=("onnx", "openvino"), kinds=("raw", "end2end")
        )
    detector = Detector(checkpoint)
    for folder in folders:
        stated = json.loads((folder / "mixdet.json").read_text())["input"]
        assert (stated["width"], stated["height"]) == wh
        for runtime in ("onnx", "openvino"):
            exported = Detector(folder, runtime=runtime)
            for image in (config.parent / "val2017").glob("*.png"):
                ours, theirs = detector(image), exported(image)
                pairs = ((d.boxes, d.scores, d.labels) for d in (ours, theirs))
                unmatched, pixels, _ = match_detections(*pairs)
                assert len(ours) > 0
                assert unmatched == 0
                assert pixels < 0.01


@pytest.mark.parametrize("trained", [WIDE], ids=["wide"], indirect=True)
def test_an_export_can_have_another_size(config, trained, tmp_path, call_main):
    """The export and `verify` compare the boxes with those of PyTorch at that size."""
    _, checkpoint = trained
    (folder,) = export(config, checkpoint, tmp_path, size=(96, 160))
    stated = json.loads((folder / "mixdet.json").read_text())["input"]
    assert (stated["width"], stated["height"]) == (96, 160)
    arguments = ("verify.py", folder, config, checkpoint)
    verify = ROOT / "tools/verify.py"
    code, out, err = call_main(lambda: runpy.run_path(verify, run_name="__main__"), *arguments)
    assert code == 0, out + err


@pytest.mark.parametrize("wh", [WIDE, TALL], ids=["wide", "tall"])
@pytest.mark.parametrize("image_wh", [(900, 300), (200, 700)])
@pytest.mark.parametrize("corner", [(0, 0), (1, 0), (0, 1), (1, 1)])
def test_an_object_in_a_corner_is_put_back_at_its_place(config, wh, image_wh, corner):
    """The head gets the offsets of an object in the shrunk image, and returns its original box.

    The box of the object in the shrunk image is read from the pixels.
    """
    cfg = read_config(config, size=wh)
    model = MODELS.build(cfg.model).eval()
    (image_width, image_height), side = image_wh, 120
    x, y = corner[0] * (image_width - side), corner[1] * (image_height - side)
    box = torch.tensor([[x, y, x + side, y + side]], dtype=torch.float32)
    image = np.zeros((image_height, image_width, 3), np.uint8)
    image[y : y + side, x : x + side] = 255
    results = {"img": image, "img_shape": image.shape[:2], "ori_shape": image.shape[:2]}
    for step in cfg.test_dataloader.dataset.pipeline:
        if step.type not in ("LoadImageFromFile", "LoadAnnotations"):
            results = TRANSFORMS.build(step)({**results, "img_id": 0, "img_path": ""})
    inputs, sample = results["inputs"], results["data_samples"]
    rows, columns = (torch.nonzero(inputs[0].amax(axis) > 127) for axis in (1, 0))
    shrunk = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    shrunk = torch.tensor([shrunk], dtype=torch.float32)

    head, (width, height) = model.bbox_head, wh
    levels = model.extract_feat(torch.zeros(1, 3, height, width))
    grids = [tuple(level.shape[-2:]) for level in levels]
    anchors = torch.cat(head.prior_generator.grid_priors(grids, device="cpu"))
    distances = (anchors[:, :2] + anchors[:, 2:] - shrunk[:, :2] - shrunk[:, 2:]).square().sum(1)
    nearest = distances.argmin(0, keepdim=True)
    scores = torch.tensor([0.0, 0, 9]).repeat(len(anchors), 1)  # the last class is background
    scores[nearest] = torch.tensor([9.0, 0, 0])
    offsets = torch.zeros(len(anchors), 4)
    offsets[nearest] = head.bbox_coder.encode(anchors[nearest], shrunk)
    (predicted,) = head.predict_by_feat(
        *(as_levels(flat, grids, head.num_base_priors) for flat in (scores, offsets)),
        batch_img_metas=[sample.metainfo],
        rescale=True,
    )
    best = predicted.bboxes[predicted.scores.argmax()]
    pixels = max(image_width / width, image_height / height)  # image pixels per input pixel
    assert (best - box[0]).abs().max() <= pixels


def as_levels(flat: torch.Tensor, grids: list, counts: list[int]) -> list[torch.Tensor]:
    """Turn values (A, columns) of all anchors into a head's outputs (1, channels, H, W)."""
    sizes = [rows * columns * count for (rows, columns), count in zip(grids, counts, strict=True)]
    return [
        level.reshape(*grid, -1).permute(2, 0, 1)[None]
        for level, grid in zip(flat.split(sizes), grids, strict=True)
    ]


@pytest.mark.parametrize("wh", [WIDE, TALL], ids=["wide", "tall"])
def test_training_crops_have_their_boxes_where_their_pixels_are(config, wh):
    cfg = read_config(config, size=wh)
    step = {**cfg.train_dataloader.dataset.pipeline[1], "photometric": None, "fill": (0, 0, 0)}
    transform = TRANSFORMS.build(step)
    file = config.parent / "corner.png"
    image = np.zeros((120, 300, 3), np.uint8)
    image[60:120, 200:300] = 255
    cv2.imwrite(str(file), image)
    instance = {"bbox": [200, 60, 300, 120], "bbox_label": 1, "ignore_flag": False}
    for seed in range(12):
        np.random.seed(seed)
        result = transform(
            {"img_path": str(file), "height": 120, "width": 300, "instances": [dict(instance)]}
        )
        assert result["img"].shape[:2] == wh[::-1]
        rows, columns = (np.flatnonzero(result["img"][..., 0].max(axis) > 127) for axis in (1, 0))
        if len(result["gt_bboxes"]):
            drawn = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
            assert np.abs(result["gt_bboxes"].tensor[0].numpy() - drawn).max() <= 1.5


@pytest.mark.parametrize("size", [(33, 50), 75, (300, 64)])
def test_sizes_that_are_no_multiples_of_the_strides_train_and_predict(config, size):
    model = MODELS.build(read_config(config, size=size).model)
    width, height = model.input_wh
    batch = random_batch(2, 32)
    batch["inputs"] = [torch.zeros(3, height, width, dtype=torch.uint8)] * 2
    for sample in batch["data_samples"]:
        sample.set_metainfo({"img_shape": (height, width), "pad_shape": (height, width)})
        sample.gt_instances.labels %= 2
    data = model.data_preprocessor(batch, training=True)
    loss, _ = model.parse_losses(model(**data, mode="loss"))
    loss.backward()
    assert torch.isfinite(loss)
    model.eval()(**model.data_preprocessor(batch), mode="predict")


def test_a_pipeline_of_another_size_is_refused(config):
    """The model refuses an image whose width and height are exchanged."""
    model = MODELS.build(read_config(config, size=WIDE).model)
    with pytest.raises(MixDetError, match=r"images of 64x128, but .*\(128, 64\).* --size 128x64"):
        model.predict(torch.zeros(1, 3, 128, 64), [])
