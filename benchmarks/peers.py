"""What a user would otherwise write: mmdet's own SSDLite on timm's networks, and the same of ours.

Both compute the same from the same weights; they differ in how.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import mixdet.plugin

import timm
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.model import BaseModule
from timm.models._efficientnet_builder import decode_arch_def
from timm.models.efficientnet import EfficientNetFeatures
from torch import Tensor, nn

from mixdet.config.shipped import shipped_folder as shipped
from mixdet.errors import MixDetError


class Network(NamedTuple):
    """A backbone in both ways: the same two outputs, at strides 16 and 32."""

    timm: str | None  # timm's name; None for a MobileNetV2 with mixed kernels, which it lacks
    ours: dict


NETWORKS = {
    "MixNet-S": Network("mixnet_s", dict(type="MixNet", arch="s", taps=("stage5", "stage6"))),
    "MixNet-M": Network("mixnet_m", dict(type="MixNet", arch="m", taps=("stage5", "stage6"))),
    "MobileNetV2 {3,5,7}": Network(
        None, dict(type="MixMobileNetV2", kernel_sizes=(3, 5, 7), taps=("stage5", "stage7"))
    ),
}
# MobileNetV2 in timm's notation, its depthwise kernels mixed
MOBILENET_V2_357 = [
    ["ds_r1_k3.5.7_s1_c16"],
    ["ir_r2_k3.5.7_s2_e6_c24"],
    ["ir_r3_k3.5.7_s2_e6_c32"],
    ["ir_r4_k3.5.7_s2_e6_c64"],
    ["ir_r3_k3.5.7_s1_e6_c96"],
    ["ir_r3_k3.5.7_s2_e6_c160"],
    ["ir_r1_k3.5.7_s1_e6_c320"],
]
LOGIT_SPREAD, BACKGROUND = 1.2, 9.0  # standard deviation of the logits, the background's lead
LEVELS = (-2, -1)  # of timm's features: strides 16 and 32


@MODELS.register_module()
class TimmFeatures(BaseModule):
    """timm's `features_only` network as a backbone.

    Args:
        name: timm's, or None for MobileNetV2 {3,5,7}.
        out_indices: Which of timm's features of `name` to give; those of MobileNetV2 are fixed.
        init_cfg: As mmengine's modules take it.
    """

    def __init__(
        self,
        name: str | None,
        out_indices: Sequence[int] = LEVELS,
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if name:
            self.net = timm.create_model(name, features_only=True, out_indices=out_indices)
        else:
            self.net = EfficientNetFeatures(
                decode_arch_def(MOBILENET_V2_357), out_indices=(3, 4), act_layer=nn.ReLU6
            )
        last = int(self.net.feature_info.module_name()[-1].removeprefix("blocks."))
        del self.net.blocks[last + 1 :]  # timm would compute them for nobody
        self.channels: Sequence[int] = self.net.feature_info.channels()

    def forward(self, x: Tensor) -> list[Tensor]:
        """(N, 3, H, W) -> (N, C, H/S, W/S) a level; S is 16 and 32 where none are chosen."""
        return self.net(x)


def check_known(option: str, names: Iterable[str], known: Iterable[str]) -> None:
    """Refuse what a command line names but nobody knows.

    Args:
        option: Such as "--networks".
        names: What it names.
        known: What it may name.

    Raises:
        MixDetError: Some names are not known.
    """
    if unknown := sorted(set(names) - set(known)):
        raise MixDetError(f"{option} {', '.join(unknown)}: here one has {', '.join(known)}")


def peer_model(name: str, size: int) -> nn.Module:
    """mmdet's `SingleStageDetector`, `SSDNeck` and `SSDHead` on a network of timm's.

    Args:
        name: One of `NETWORKS`.
        size: Side of the square images in pixels.
    """
    backbone = dict(type="TimmFeatures", name=NETWORKS[name].timm)
    model = _shared(size)
    neck, head = model["neck"], model["bbox_head"]
    channels = (*MODELS.build(backbone).channels, *neck.pop("extra_channels"))
    neck |= dict(in_channels=channels[:2], out_channels=channels)
    model["data_preprocessor"]["type"] = "DetDataPreprocessor"
    del head["kernel_sizes"]
    head |= dict(type="SSDHead", in_channels=channels, use_depthwise=True)
    head["anchor_generator"] |= dict(
        input_size=model.pop("input_size"), strides=[round(size / grid) for grid in _grids(size)]
    )
    model["train_cfg"]["smoothl1_beta"] = 1.0
    return MODELS.build(dict(type="SingleStageDetector", backbone=backbone, **model))


def our_model(name: str, size: int) -> nn.Module:
    """The same as an `SSDLite` of ours; arguments as for `peer_model`."""
    return MODELS.build(our_config(name, size))


def our_config(name: str, size: int) -> dict:
    """The config of `our_model`."""
    return dict(type="SSDLite", backbone=NETWORKS[name].ours, **_shared(size))


def share_weights(peer: nn.Module, ours: nn.Module) -> None:
    """Copy the peer's weights: the two name their parts differently, but in the same order."""
    values, names = peer.state_dict().values(), list(ours.state_dict())
    ours.load_state_dict(dict(zip(names, values, strict=True)))


def initialize(model: nn.Module, seed: int = 0) -> None:
    """Draw fresh weights, the same in every process, without mmengine's thousand lines on them."""
    torch.manual_seed(seed)
    for module in model.modules():  # timm's, which no `init_weights` reaches, among them
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    MMLogger.get_current_instance().setLevel("WARNING")
    model.init_weights()


def as_trained(model: nn.Module, inputs: Tensor, seed: int = 0) -> None:
    """Random weights whose scores are spread about as a trained detector's.

    Most pairs of anchor and class score next to nothing; fresh weights would score all the same.

    Args:
        model: One of `peer_model`'s.
        inputs: Images (N, 3, H, W), normalized, for which that holds.
        seed: Of the random numbers.
    """
    initialize(model, seed)
    head = model.bbox_head
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.groups > 1:
            nn.init.kaiming_normal_(module.weight)
        elif isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = None  # the mean over the batches
    # Random layers of ReLU6 let rounding grow from level to level, as trained ones do not; in the
    # middle of its range they do not either.
    for module in model.neck.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.constant_(module.bias, 3)
    for spread, convs in ((LOGIT_SPREAD, head.cls_convs), (0.5, head.reg_convs)):
        for block in convs:
            nn.init.normal_(block[-1].weight, std=spread / math.sqrt(block[-1].in_channels / 2))
    for block, anchors in zip(head.cls_convs, head.num_base_priors, strict=True):
        block[-1].bias.data.view(anchors, -1)[:, -1] = BACKGROUND
    with torch.no_grad():
        model.train()(inputs, mode="tensor")
    model.eval()


def _grids(size: int) -> list[int]:
    """Cells along a side of the six levels."""
    grids = [-(-size // 16), -(-size // 32)]
    while len(grids) < 6:
        grids.append(-(-grids[-1] // 2))
    return grids


def _shared(size: int) -> dict:
    """Data preprocessor, neck, head, and how they train and test: those of our COCO configs."""
    model = Config.fromfile(shipped("configs") / "_base_/models/ssdlite_320.py").model
    del model["type"]
    anchors = model.bbox_head.anchor_generator
    for key in ("min_sizes", "max_sizes"):
        anchors[key] = [round(pixels * size / model.input_size) for pixels in anchors[key]]
    model.input_size = size
    return model.to_dict()
