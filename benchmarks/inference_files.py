"""Write the files that `infer` needs: a config, a checkpoint and exported folders."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import mixdet.plugin

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import Tensor, nn
from torchvision.models.detection import ssdlite320_mobilenet_v3_large
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.ssd import SSD

from benchmarks.inference_forms import (
    MATRIX_PRODUCT,
    MATRIX_SIZE,
    OURS_BF16,
    OURS_FP32,
    OURS_INT8,
    TORCHVISION_FP32,
)
from benchmarks.networks import our_config, our_model, peer_model
from benchmarks.weights import copy_weights, initialize_as_trained
from mixdet.analysis.complexity import count_madds
from mixdet.config.read import read_config
from mixdet.config.shipped import shipped_folder
from mixdet.deploy import export
from mixdet.deploy.onnx_file import write_onnx
from mixdet.deploy.quantization import blocks_of_nodes, quantize_nodes
from mixdet.deploy.raw_network import RawNetwork
from mixdet.deploy.to_onnx import convert_to_onnx
from mixdet.deploy.to_openvino import convert_to_openvino
from mixdet.inference.manifest import MANIFEST, MANIFEST_FORMAT, read_manifest, sha256
from mixdet.inference.runtimes import RUNTIME_FILES
from mixdet.inference.trained import TrainedNetwork

SIZE = 320
TEST_CFG = dict(
    score_thr=0.05,
    nms_pre=1000,
    nms=dict(type="nms", iou_threshold=0.45),
    min_bbox_size=0,
    max_per_img=100,
)
CONFIG, CHECKPOINT = "config.py", "random.pth"


def write_files(network: str, folder: Path, exports: Mapping[str, set[str]]) -> dict[str, int]:
    """Write a config, a checkpoint with random weights, and exported folders.

    Args:
        network: A key of `benchmarks.networks.NETWORKS`.
        folder: An empty folder.
        exports: Names of the exported folders to write, each with the runtimes to export for.

    Returns:
        Multiply-adds of MixDet's detector, of torchvision's detector, and of a matrix product. The
        names of all forms of a detector begin with its key, such as "MixDet".
    """
    init_default_scope("mmdet")
    cfg = read_config(str(shipped_folder("configs") / "ssdlite_mixnet_s_coco.py"))
    cfg.model = our_config(network, SIZE) | dict(test_cfg=TEST_CFG)
    Config.dump(cfg, folder / CONFIG)
    model = our_model(network, SIZE).eval()
    copy_weights(peer_as_trained(network), model)
    classes = [f"class {number}" for number in range(model.bbox_head.num_classes)]
    meta = {"dataset_meta": {"classes": classes}}
    torch.save({"state_dict": model.state_dict(), "meta": meta}, folder / CHECKPOINT)
    targets = exports.get(OURS_FP32, set()) | exports.get(OURS_BF16, set())
    paths = folder / CONFIG, folder / CHECKPOINT, folder / OURS_FP32
    export(*paths, targets=sorted(targets), check=False)
    if OURS_BF16 in exports:
        _copy_as_bf16(folder / OURS_FP32, folder / OURS_BF16)
    if OURS_INT8 in exports:
        trained = TrainedNetwork(folder / CHECKPOINT, folder / CONFIG, "cpu", trust=False)
        manifest = read_manifest(folder / OURS_FP32)
        _write_int8(trained, manifest, folder / OURS_INT8, exports[OURS_INT8])
    raw = TorchvisionRaw()
    _write_torchvision(raw, folder / TORCHVISION_FP32, exports.get(TORCHVISION_FP32, set()))
    image = torch.zeros(1, 3, SIZE, SIZE)
    return {
        "MixDet": count_madds(model, image),
        "torchvision": count_madds(raw.outputs, image),
        MATRIX_PRODUCT: MATRIX_SIZE**3,
    }


def peer_as_trained(network: str) -> nn.Module:
    """Build the peer with random weights. Its scores are distributed as after training."""
    model = peer_model(network, SIZE)
    initialize_as_trained(model, torch.randn(8, 3, SIZE, SIZE))
    return model


def _copy_as_bf16(folder: Path, copy: Path) -> None:
    """Copy an exported folder, and set the precision in the manifest of the copy to bfloat16."""
    shutil.copytree(folder, copy)
    _write_manifest(copy, read_manifest(folder) | {"precision": "bf16"})


def _write_int8(
    trained: TrainedNetwork, manifest: dict[str, object], folder: Path, targets: set[str]
) -> None:
    """Export in 8 bits. The calibration images are noise, since only the speed is measured."""
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (8, 1, SIZE, SIZE, 3), np.uint8)
    for target in targets:
        with tempfile.TemporaryDirectory() as work:
            file = Path(work, RUNTIME_FILES["onnx"][0])
            network = RawNetwork(trained, target, int8=True)
            model = convert_to_onnx(network, manifest["postprocess"], {})
            write_onnx(model, file)
            nodes = [*blocks_of_nodes(model, squeeze_excite=False)]
            quantize_nodes(target, file, folder, nodes, [*noise], Path(work, "ranges.json"))
    _write_manifest(folder, manifest | {"precision": "int8"})


def _write_manifest(folder: Path, manifest: dict[str, object]) -> None:
    """Write `mixdet.json` with the hashes of the other files in the folder."""
    files = [file for file in sorted(folder.iterdir()) if file.name != MANIFEST]
    hashes = {file.name: sha256(file) for file in files}
    (folder / MANIFEST).write_text(json.dumps(manifest | {"files": hashes}))


def torchvision_ssdlite() -> SSD:
    """Build torchvision's SSDLite with random weights and the post-processing of `TEST_CFG`."""
    return ssdlite320_mobilenet_v3_large(
        weights=None,
        weights_backbone=None,
        score_thresh=TEST_CFG["score_thr"],
        nms_thresh=TEST_CFG["nms"]["iou_threshold"],
        detections_per_img=TEST_CFG["max_per_img"],
    ).eval()


class TorchvisionRaw(nn.Module):
    """torchvision's SSDLite with the inputs and outputs of a file that `--kind raw` exports."""

    input_wh = (SIZE, SIZE)

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.model = torchvision_ssdlite()
        x = torch.zeros(1, 3, SIZE, SIZE)
        with torch.no_grad():
            features = list(self.model.backbone(x).values())
            anchors = self.model.anchor_generator(ImageList(x, [self.input_wh]), features)
        self.register_buffer("anchors", anchors[0])

    def outputs(self, x: Tensor) -> dict[str, Tensor]:
        """Compute backbone and head for normalized images (N, 3, H, W)."""
        return self.model.head(list(self.model.backbone(x).values()))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Map uint8 images (N, H, W, 3) to boxes (N, A, 4) and scores (N, A, classes).

        A is the number of anchors.
        """
        outputs = self.outputs((image.float() / 127.5 - 1).permute(0, 3, 1, 2))
        decode = torch.vmap(partial(self.model.box_coder.decode_single, boxes=self.anchors))
        boxes = decode(outputs["bbox_regression"])
        return boxes.clamp(0, SIZE), outputs["cls_logits"].softmax(-1)[..., 1:]


def _write_torchvision(raw: TorchvisionRaw, folder: Path, targets: set[str]) -> None:
    folder.mkdir()
    postprocess = dict(TEST_CFG, iou_thr=TEST_CFG["nms"]["iou_threshold"])
    write_onnx(convert_to_onnx(raw.eval(), postprocess, {}), folder / RUNTIME_FILES["onnx"][0])
    if "openvino" in targets:
        import openvino  # optional

        model = convert_to_openvino(folder / RUNTIME_FILES["onnx"][0])
        openvino.save_model(model, folder / RUNTIME_FILES["openvino"][0], compress_to_fp16=False)
    manifest = {
        "format": MANIFEST_FORMAT,
        "kind": "raw",
        "input": {"width": SIZE, "height": SIZE, "channels": "RGB"},
        "classes": [f"class {number}" for number in range(90)],
        "levels": [{"anchors": len(raw.anchors)}],
        "postprocess": postprocess,
    }
    _write_manifest(folder, manifest)
