"""The forms of a detector that torch runs, and the folders that the others load."""

from __future__ import annotations

import mixdet.plugin  # noqa: F401 - before anything of mmdet's

# isort: split
import json
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmdet.registry import TRANSFORMS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models.detection import ssdlite320_mobilenet_v3_large
from torchvision.models.detection.image_list import ImageList

from mixdet.analysis.benchmark.contestants import (
    MATRIX,
    OURS,
    OURS_INT8,
    PEER,
    SIDE,
    TORCHVISION,
)
from mixdet.analysis.benchmark.peers import (
    as_trained,
    our_config,
    our_model,
    peer_model,
    share_weights,
)
from mixdet.analysis.benchmark.pictures import PACK
from mixdet.deploy.export import export
from mixdet.deploy.exported import FILES, FORMAT, MANIFEST, read_manifest, sha256
from mixdet.deploy.network import RawNetwork
from mixdet.deploy.quantise import blocks, quantise
from mixdet.deploy.to_onnx import save_onnx
from mixdet.deploy.to_openvino import convert
from mixdet.engine.config import read_config
from mixdet.engine.trained import TrainedNetwork
from mixdet.models.fusing import fuse
from mixdet.shipped import shipped

SIZE = 320
POST = dict(
    score_thr=0.05,
    nms_pre=1000,
    nms=dict(type="nms", iou_threshold=0.45),
    min_bbox_size=0,
    max_per_img=100,
)
CONFIG, CHECKPOINT = "config.py", "random.pth"


def prepare(network: str, folder: Path, exports: dict[str, set[str]]) -> dict[str, int]:
    """Write what the contestants load: config, checkpoint, and exported folders.

    Args:
        network: One of `NETWORKS`.
        folder: Where.
        exports: By the name of each exported folder, the runtimes to export for.

    Returns:
        Multiply-adds of the detector of that network, of torchvision's, and of a matrix product.
    """
    init_default_scope("mmdet")
    cfg = read_config(str(shipped("configs") / "ssdlite_mixnet_s_coco.py"))
    cfg.model = our_config(network, SIZE) | dict(test_cfg=POST)
    Config.dump(cfg, folder / CONFIG)
    model = our_model(network, SIZE)
    share_weights(_peer(network), model)
    classes = [f"class {number}" for number in range(model.bbox_head.num_classes)]
    meta = {"dataset_meta": {"classes": classes}}
    torch.save({"state_dict": model.state_dict(), "meta": meta}, folder / CHECKPOINT)
    paths = folder / CONFIG, folder / CHECKPOINT, folder / OURS
    export(*paths, targets=sorted(exports.get(OURS, set())), check=False)
    if OURS_INT8 in exports:
        trained = TrainedNetwork(folder / CHECKPOINT, folder / CONFIG, "cpu", trust=False)
        _save_int8(trained, read_manifest(folder / OURS), folder / OURS_INT8, exports[OURS_INT8])
    raw = TorchvisionRaw()
    raw.save(folder / TORCHVISION, exports.get(TORCHVISION, set()))
    return {OURS: _madds(model), TORCHVISION: _madds(raw.model), MATRIX: SIDE**3}


def _save_int8(
    trained: TrainedNetwork, manifest: dict[str, Any], folder: Path, targets: set[str]
) -> None:
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (8, 1, SIZE, SIZE, 3), np.uint8)
    for target in targets:
        with tempfile.TemporaryDirectory() as work:
            file = Path(work, FILES["onnx"][0])
            save_onnx(RawNetwork(trained, target, int8=True), file, manifest["postprocess"], {})
            nodes = [*blocks(file, squeeze_excite=False)]
            quantise(target, file, folder, nodes, [*noise], Path(work, "ranges.json"))
    _save_manifest(folder, manifest | {"precision": "int8"})


def _save_manifest(folder: Path, manifest: dict[str, object]) -> None:
    files = {file.name: sha256(file) for file in sorted(folder.iterdir())}
    (folder / MANIFEST).write_text(json.dumps(manifest | {"files": files}))


def _peer(network: str) -> nn.Module:
    model = peer_model(network, SIZE)
    as_trained(model, torch.randn(8, 3, SIZE, SIZE))
    return model


def _madds(model: nn.Module) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        x = torch.zeros(1, 3, SIZE, SIZE)
        if hasattr(model, "bbox_head"):
            model.eval()(x, mode="tensor")
        else:
            model.head(list(model.eval().backbone(x).values()))
    return counter.get_total_flops() // 2


class TorchvisionRaw(nn.Module):
    """torchvision's SSDLite with the inputs and outputs of our exported files of kind raw."""

    size = (SIZE, SIZE)

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.model = torchvisions()
        x = torch.zeros(1, 3, SIZE, SIZE)
        with torch.no_grad():
            features = list(self.model.backbone(x).values())
            anchors = self.model.anchor_generator(ImageList(x, [self.size]), features)
        self.register_buffer("anchors", anchors[0])

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """As `mixdet.deploy.network.RawNetwork`."""
        x = (image.float() / 127.5 - 1).permute(0, 3, 1, 2)
        found = self.model.head(list(self.model.backbone(x).values()))
        decode = torch.vmap(partial(self.model.box_coder.decode_single, boxes=self.anchors))
        boxes = decode(found["bbox_regression"])
        return boxes.clamp(0, SIZE), found["cls_logits"].softmax(-1)[..., 1:]

    def save(self, folder: Path, targets: set[str]) -> None:
        """Write a folder that `ExportedNetwork` runs."""
        folder.mkdir()
        post = dict(POST, iou_thr=POST["nms"]["iou_threshold"])
        save_onnx(self.eval(), folder / FILES["onnx"][0], post, {})
        if "openvino" in targets:
            import openvino

            model = convert(folder / FILES["onnx"][0])
            openvino.save_model(model, folder / FILES["openvino"][0], compress_to_fp16=False)
        manifest = {
            "format": FORMAT,
            "kind": "raw",
            "input": {"width": SIZE, "height": SIZE, "channels": "RGB"},
            "classes": [f"class {number}" for number in range(90)],
            "levels": [{"anchors": len(self.anchors)}],
            "postprocess": post,
        }
        _save_manifest(folder, manifest)


def torchvisions() -> nn.Module:
    """torchvision's SSDLite, random weights, with our thresholds."""
    return ssdlite320_mobilenet_v3_large(
        weights=None,
        weights_backbone=None,
        score_thresh=POST["score_thr"],
        nms_thresh=POST["nms"]["iou_threshold"],
        detections_per_img=POST["max_per_img"],
    ).eval()


def load(form: str, folder: Path, threads: int, network: str) -> Callable[[list], dict]:
    """A form that torch runs.

    Args:
        form: One of `TORCH_FORMS`.
        folder: What `prepare` has filled.
        threads: How many to compute with.
        network: As for `prepare`.

    Returns:
        Takes pictures (H, W, 3) and gives the parts, each to be called.
    """
    init_default_scope("mmdet")
    torch.set_num_threads(threads)
    made = {
        PEER: lambda: _torch(folder, partial(_peers, network), TRANSFORMS.build(PACK)),
        "MixDet, PyTorch": lambda: _torch(folder),
        "MixDet, PyTorch fused": lambda: _torch(folder, _fused),
        "MixDet, PyTorch compiled": lambda: _torch(folder, _compiled),
        "torchvision SSDLite, PyTorch": _torchvision,
        MATRIX: _product,
    }[form]()

    def parts(images: list[np.ndarray]) -> dict[str, Callable]:
        with torch.inference_mode():
            return {part: torch.inference_mode()(run) for part, run in made(images).items()}

    return parts


def _torch(
    folder: Path,
    rewrite: Callable[[nn.Module], nn.Module] = lambda model: model,
    pack: BaseTransform | None = None,
):
    trained = TrainedNetwork(folder / CHECKPOINT, folder / CONFIG, "cpu", trust=False)
    trained.predictor = rewrite(trained.model)
    if pack is not None:
        trained._steps[-1] = pack

    def made(images: list[np.ndarray]) -> dict[str, Callable]:
        model = trained.predictor
        prepared = [trained._prepare(image) for image in images]
        batch = {key: [one[key] for one in prepared] for key in ("inputs", "data_samples")}
        inputs = model.data_preprocessor(batch)["inputs"]
        outputs = model(inputs, mode="tensor")
        metas = [sample.metainfo for sample in batch["data_samples"]]
        head = model.bbox_head
        return {
            "end to end": lambda: trained(images),
            "network": lambda: model(inputs, mode="tensor"),
            "decode and NMS": lambda: head.predict_by_feat(
                *outputs, batch_img_metas=metas, rescale=True
            ),
        }

    return made


def _peers(network: str, ours: nn.Module) -> nn.Module:
    model = _peer(network)
    model.bbox_head.test_cfg = ours.bbox_head.test_cfg
    return model


def _fused(model: nn.Module) -> nn.Module:
    return fuse(model, "torch")


def _compiled(model: nn.Module) -> nn.Module:
    fused = _fused(model)
    for part in (fused.backbone, fused.neck, fused.bbox_head):
        part.compile()
    return fused


def _torchvision() -> Callable[[list], dict]:
    model = torchvisions()

    def tensor(image: np.ndarray) -> Tensor:
        return torch.from_numpy(image).permute(2, 0, 1).float() / 255

    def made(images: list[np.ndarray]) -> dict[str, Callable]:
        inputs, _ = model.transform([tensor(image) for image in images])
        features = list(model.backbone(inputs.tensors).values())
        outputs, anchors = model.head(features), model.anchor_generator(inputs, features)
        return {
            "end to end": lambda: model([tensor(image) for image in images]),
            "network": lambda: model.head(list(model.backbone(inputs.tensors).values())),
            "decode and NMS": lambda: model.postprocess_detections(
                dict(outputs), anchors, inputs.image_sizes
            ),
        }

    return made


def _product() -> Callable[[list], dict]:
    matrix = torch.randn(SIDE, SIDE)
    return lambda images: {"network": lambda: [matrix @ matrix for _ in images]}
