"""The detectors that `infer` runs in PyTorch, for example compiled or fused."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import mixdet.plugin

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmdet.registry import TRANSFORMS
from mmengine.registry import init_default_scope
from torch import Tensor, nn

from benchmarks.coco_images import PACK_DET_INPUTS
from benchmarks.inference_files import CHECKPOINT, CONFIG, peer_as_trained, torchvision_ssdlite
from benchmarks.inference_forms import (
    DECODE_AND_NMS,
    END_TO_END,
    MATRIX_PRODUCT,
    MATRIX_SIZE,
    NETWORK,
    PEER,
    Parts,
)
from mixdet.inference.trained import TrainedNetwork
from mixdet.models.fusing import fuse


def load_torch_form(
    form: str, folder: Path, threads: int, network: str
) -> Callable[[list[np.ndarray]], Parts]:
    """Load a detector in one of the forms that PyTorch runs.

    Args:
        form: One of `benchmarks.inference_forms.TORCH_FORMS`.
        folder: The folder that `benchmarks.inference_files.write_files` has filled.
        threads: Number of threads to compute with.
        network: A key of `benchmarks.networks.NETWORKS`.

    Returns:
        A function that takes RGB images (H, W, 3) and returns their `Parts`.
    """
    init_default_scope("mmdet")
    torch.set_num_threads(threads)
    load = {
        PEER: lambda: _load_detector(
            folder, partial(_peer_of, network), TRANSFORMS.build(PACK_DET_INPUTS)
        ),
        "MixDet, PyTorch": lambda: _load_detector(folder),
        "MixDet, PyTorch fused": lambda: _load_detector(folder, _fused),
        "MixDet, PyTorch compiled": lambda: _load_detector(folder, _compiled),
        "torchvision SSDLite, PyTorch": _load_torchvision,
        MATRIX_PRODUCT: _load_matrix_product,
    }[form]
    parts_for = load()

    def parts_without_gradients(images: list[np.ndarray]) -> Parts:
        with torch.inference_mode():
            return {part: torch.inference_mode()(run) for part, run in parts_for(images).items()}

    return parts_without_gradients


def _load_detector(
    folder: Path,
    rewrite: Callable[[nn.Module], nn.Module] = lambda model: model,
    pack: BaseTransform | None = None,
) -> Callable[[list[np.ndarray]], Parts]:
    """Load the checkpoint, and return the same kind of function as `load_torch_form`.

    Args:
        folder: The folder that holds the config and the checkpoint.
        rewrite: Takes the detector of the checkpoint, and returns the detector to run.
        pack: Last step of the test pipeline. None keeps the last step of the config.
    """
    trained = TrainedNetwork(folder / CHECKPOINT, folder / CONFIG, "cpu", trust=False)
    trained.predictor = rewrite(trained.model)
    if pack is not None:
        trained.steps[-1] = pack

    def parts_for(images: list[np.ndarray]) -> Parts:
        model = trained.predictor
        prepared = [trained.prepare(image) for image in images]
        batch = {key: [sample[key] for sample in prepared] for key in ("inputs", "data_samples")}
        inputs = model.data_preprocessor(batch)["inputs"]
        outputs = model(inputs, mode="tensor")
        metas = [sample.metainfo for sample in batch["data_samples"]]
        head = model.bbox_head
        return {
            END_TO_END: lambda: trained(images),
            NETWORK: lambda: model(inputs, mode="tensor"),
            DECODE_AND_NMS: lambda: head.predict_by_feat(
                *outputs, batch_img_metas=metas, rescale=True
            ),
        }

    return parts_for


def _peer_of(network: str, ours: nn.Module) -> nn.Module:
    model = peer_as_trained(network)
    model.bbox_head.test_cfg = ours.bbox_head.test_cfg
    return model


def _fused(model: nn.Module) -> nn.Module:
    return fuse(model, "torch")


def _compiled(model: nn.Module) -> nn.Module:
    fused = _fused(model)
    for part in (fused.backbone, fused.neck, fused.bbox_head):
        part.compile()
    return fused


def _load_torchvision() -> Callable[[list[np.ndarray]], Parts]:
    model = torchvision_ssdlite()

    def to_tensor(image: np.ndarray) -> Tensor:
        return torch.from_numpy(image).permute(2, 0, 1).float() / 255

    def parts_for(images: list[np.ndarray]) -> Parts:
        inputs, _ = model.transform([to_tensor(image) for image in images])
        features = list(model.backbone(inputs.tensors).values())
        outputs, anchors = model.head(features), model.anchor_generator(inputs, features)
        return {
            END_TO_END: lambda: model([to_tensor(image) for image in images]),
            NETWORK: lambda: model.head(list(model.backbone(inputs.tensors).values())),
            DECODE_AND_NMS: lambda: model.postprocess_detections(
                dict(outputs), anchors, inputs.image_sizes
            ),
        }

    return parts_for


def _load_matrix_product() -> Callable[[list[np.ndarray]], Parts]:
    matrix = torch.randn(MATRIX_SIZE, MATRIX_SIZE)
    return lambda images: {NETWORK: lambda: [matrix @ matrix for _ in images]}
