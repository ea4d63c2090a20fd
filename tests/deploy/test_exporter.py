"""Exported files have the right inputs, outputs and manifest, and detect the same as PyTorch."""

from __future__ import annotations

import copy
import json
import shutil
from collections import Counter
from functools import partial

import numpy as np
import onnx
import pytest
import torch
from mmdet.models.dense_heads import SSDHead
from mmdet.registry import MODELS
from mmengine.config import Config, ConfigDict
from safetensors.torch import load_file

from mixdet.config.read import read_config
from mixdet.config.shipped import shipped_folder
from mixdet.deploy import RawNetwork, export
from mixdet.deploy.raw_network import pipeline_input_wh
from mixdet.deploy.verification import match_detections
from mixdet.errors import MixDetError
from mixdet.inference import Detector
from mixdet.inference.manifest import sha256
from mixdet.inference.trained import TrainedNetwork

KINDS = ("raw", "end2end")


def shapes(model: onnx.ModelProto) -> dict[str, list]:
    return {
        value.name: [dim.dim_value or dim.dim_param for dim in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }


def test_the_files_state_their_inputs_and_outputs(exported):
    raw = onnx.load(exported / "raw" / "model.onnx")
    anchors = 8 * 8 * 4 + 4 * 4 * 4
    assert shapes(raw) == {
        "image": [1, 64, 64, 3],
        "boxes": [1, anchors, 4],
        "scores": [1, anchors, 2],
    }
    assert raw.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
    whole = onnx.load(exported / "end2end" / "model.onnx")
    assert shapes(whole) == {
        "image": ["N", 64, 64, 3],
        "boxes": ["N", 20, 4],
        "scores": ["N", 20],
        "labels": ["N", 20],
    }
    kinds = Counter(node.op_type for node in raw.graph.node)
    assert not {"NonMaxSuppression", "TopK", "BatchNormalization"} & kinds.keys()
    assert "NonMaxSuppression" in {node.op_type for node in whole.graph.node}


@pytest.mark.parametrize("kind", KINDS)
def test_the_manifest_states_files_scores_and_anchors(exported, network, kind):
    folder = exported / kind
    manifest = json.loads((folder / "mixdet.json").read_text())
    assert manifest["kind"] == kind
    assert manifest["classes"] == ["dark", "bright"]
    assert set(manifest["files"]) == {
        "model.onnx",
        "model.xml",
        "model.bin",
        "model.safetensors",
    }
    for name, digest in manifest["files"].items():
        assert sha256(folder / name) == digest
    assert {p.name for p in folder.iterdir()} == {*manifest["files"], "mixdet.json", "README.md"}
    for target in ("onnx", "openvino"):
        measured = manifest["measured"][target]
        assert measured["images"] == 14
        assert measured["boxes"] > 14
        assert measured["mAP"] == pytest.approx(measured["mAP_torch"], abs=5e-4)
    assert f"mAP {measured['mAP']:.3f}" in (folder / "README.md").read_text()
    anchors = [  # computed as the docstring of RawNetwork.levels says
        np.array(first) + [x * level["stride"][0], y * level["stride"][1]] * 2
        for level in manifest["levels"]
        for y in range(level["cells"][0])
        for x in range(level["cells"][1])
        for first in level["first"]
    ]
    priors = network.model.bbox_head.prior_generator.grid_priors([(8, 8), (4, 4)], device="cpu")
    assert np.allclose(anchors, torch.cat(priors).numpy(), atol=1e-4)


def test_the_safetensors_file_has_the_trained_weights(exported, network):
    weights = load_file(exported / "raw" / "model.safetensors")
    want = network.model.state_dict()
    assert weights.keys() == want.keys()
    assert all(torch.equal(value, want[name]) for name, value in weights.items())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_boxes_equal_pytorch_in_images_of_any_shape(exported, trained, network, kind, runtime):
    rng = np.random.default_rng(1)
    images = [
        rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
        for shape in ((64, 64), (2, 3), (300, 40), (17, 501))
    ]
    assert_equal_detections(
        Detector(exported / kind, runtime=runtime), Detector(trained[1], trained[0]), images
    )


@pytest.mark.parametrize("kind", KINDS)
def test_boxes_equal_pytorch_in_photographs(exported, trained, coco_sample, kind):
    files = sorted((coco_sample / "val2017").iterdir())
    assert len(files) > 40
    assert_equal_detections(Detector(exported / kind), Detector(trained[1], trained[0]), files)


def assert_equal_detections(detector: Detector, original: Detector, images: list) -> None:
    got, want = detector(images, batch_size=3), original(images)
    for a, b in zip(got, want, strict=True):
        arrays = ((d.boxes, d.scores, d.labels) for d in (a, b))
        unmatched, box_difference, score_difference = match_detections(*arrays)
        assert (unmatched, box_difference < 0.1, score_difference < 1e-4) == (0, True, True)
    assert sum(map(len, want)) > 10


@pytest.fixture(scope="session")
def mixnet(tmp_path_factory):
    """A shipped detector with random weights and batch norm statistics.

    In its `RawNetwork`, the first convolution also divides by the images' standard deviation.
    """
    folder = tmp_path_factory.mktemp("mixnet")
    cfg = read_config(str(shipped_folder("configs") / "ssdlite_mixnet_s_digits.py"))
    torch.manual_seed(0)
    model = MODELS.build(cfg.model).train()
    images = {"inputs": [*torch.randint(0, 256, (4, 3, 160, 160), dtype=torch.uint8)]}
    with torch.no_grad():
        for _ in range(20):
            model(**model.data_preprocessor({**images, "data_samples": None}), mode="tensor")
    meta = {"dataset_meta": {"classes": [*"0123456789"]}}
    torch.save({"state_dict": model.state_dict(), "meta": meta}, folder / "random.pth")
    Config.dump(cfg, folder / "config.py")
    return TrainedNetwork(folder / "random.pth", folder / "config.py", "cpu", False)


@pytest.mark.parametrize("name", ["network", "mixnet"])
def test_raw_outputs_equal_those_of_mmdets_head(name, request, monkeypatch):
    """All boxes and scores before NMS equal those that mmdet's head computes.

    The test computes in double precision, since an untrained network amplifies rounding errors.
    """
    network = copy.copy(request.getfixturevalue(name))
    network.model = model = copy.deepcopy(network.model).double()
    zeros = partial(torch.zeros, dtype=torch.float64)
    with monkeypatch.context() as patch:  # RawNetwork runs the model on zeros
        patch.setattr(torch, "zeros", zeros)
        raw = RawNetwork(network).double()
    side = raw.input_wh[0]
    image = torch.randint(0, 256, (2, side, side, 3), dtype=torch.uint8)
    with torch.no_grad():
        boxes, scores = raw(image)
        planes = image.permute(0, 3, 1, 2)
        for outputs in (raw.forward_one_image(image[:1]), raw.forward_planes(planes[:1].float())):
            for output, batched in zip(outputs, (boxes[:1], scores[:1]), strict=True):
                assert torch.allclose(output, batched, atol=1e-4)
        bgr = planes.flip(1) if raw.channel_order == "RGB" else planes
        data = model.data_preprocessor({"inputs": list(bgr), "data_samples": None})
        outputs = model.bbox_head(model.extract_feat(data["inputs"]))
    meta = [{"img_shape": (side, side)}] * 2
    cfg = {**model.test_cfg, "score_thr": -1.0, "nms_pre": 10**6, "min_bbox_size": 0}
    expected = SSDHead.predict_by_feat(
        model.bbox_head, *outputs, batch_img_metas=meta, cfg=ConfigDict(cfg), with_nms=False
    )
    classes = scores.shape[-1]
    for image, want in enumerate(expected):
        got = torch.cat(
            [boxes[image].repeat_interleave(classes, 0), scores_with_labels(scores[image])], 1
        )
        got = got[(got[:, 2:4] > got[:, :2]).all(1)]  # mmdet drops empty boxes
        assert len(got) > 600
        wanted = torch.cat([want.bboxes, want.scores[:, None], want.labels[:, None]], 1)
        assert torch.allclose(sort_rows(got), sort_rows(wanted), atol=1e-3)


def test_a_single_mean_is_used_for_all_channels(mixnet):
    """mmengine's data preprocessor accepts one mean and one deviation for all three channels."""
    network = copy.copy(mixnet)
    network.model = copy.deepcopy(mixnet.model)
    preprocessor = network.model.data_preprocessor
    preprocessor.mean, preprocessor.std = (torch.full((1, 1, 1), value) for value in (127.5, 64.0))
    image = torch.randint(0, 256, (1, 160, 160, 3), dtype=torch.uint8)
    raw = RawNetwork(network)
    preprocessor.mean, preprocessor.std = (torch.full((3, 1, 1), value) for value in (127.5, 64.0))
    for output, expected in zip(raw(image), RawNetwork(network)(image), strict=True):
        assert torch.allclose(output, expected, atol=1e-4)


def test_a_network_for_8_bits_has_more_dense_convolutions(mixnet):
    """In 8 bits, a narrow grouped 1x1 convolution is slower than a dense one padded with zeros."""
    weights = {
        int8: sum(value.numel() for value in RawNetwork(mixnet, int8=int8).parameters())
        for int8 in (False, True)
    }
    assert weights[True] > weights[False]


def scores_with_labels(scores: torch.Tensor) -> torch.Tensor:
    labels = torch.arange(scores.shape[1]).expand_as(scores)
    return torch.stack([scores.flatten(), labels.flatten()], 1)


def sort_rows(rows: torch.Tensor) -> torch.Tensor:
    rows = rows.double()
    for column in (4, 5):
        rows = rows[rows[:, column].argsort(stable=True)]
    return rows


@pytest.mark.parametrize(
    ("pipeline", "words"),
    [
        ([dict(type="Resize", scale=(64, 64), keep_ratio=True)], "keep_ratio"),
        ([dict(type="Resize", scale=(64, 64), keep_ratio=False, interpolation="area")], "area"),
        ([dict(type="Pad", size_divisor=32)], "Pad"),
        ([dict(type="mmdet.LoadImageFromNDArray", to_float32=True)], "to_float32"),
        ([dict(type="PackDetInputs")], "no Resize"),
    ],
)
def test_unsupported_steps_of_a_pipeline_are_named(pipeline, words):
    with pytest.raises(MixDetError, match=words):
        pipeline_input_wh(pipeline)


def test_export_fails_if_boxes_differ(trained, tmp_path, monkeypatch):
    def shifted(self, image):
        boxes, scores = original(self, image)
        return boxes + 0.2, scores

    original = RawNetwork.forward
    monkeypatch.setattr(RawNetwork, "forward", shifted)
    with pytest.raises(MixDetError, match=r"boxes differ by 0\.2 pixels"):
        export(*trained, tmp_path)


def test_export_without_test_data_needs_check_false(trained, tmp_path, images):
    config, checkpoint = trained
    with pytest.raises(MixDetError, match="nowhere"):
        export(config, checkpoint, tmp_path / "a", data_root=str(tmp_path / "nowhere"))
    moved = tmp_path / "moved"
    shutil.copytree(images, moved)
    (folder,) = export(config, checkpoint, tmp_path / "b", data_root=str(moved))
    assert json.loads((folder / "mixdet.json").read_text())["measured"]["onnx"]["images"] == 14
    (folder,) = export(config, checkpoint, tmp_path / "c", check=False)
    assert json.loads((folder / "mixdet.json").read_text())["measured"] == {}
