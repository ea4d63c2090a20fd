"""What a user would otherwise write: mmdet's own SSDLite on timm's networks, and the same of ours.

Both compute the same from the same weights; they differ in how.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import timm
from mmdet.registry import MODELS
from timm.models._efficientnet_builder import decode_arch_def
from timm.models.efficientnet import EfficientNetFeatures
from torch import Tensor, nn

import mixdet.plugin  # noqa: F401


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
LEVELS = (-2, -1)  # of timm's features: strides 16 and 32
EXTRA_CHANNELS = (512, 256, 256, 128)
NORM = dict(type="BN", eps=0.001, momentum=0.03)
RELU6 = dict(type="ReLU6")


@MODELS.register_module()
class TimmFeatures(nn.Module):
    """timm's `features_only` network as a backbone.

    Args:
        name: timm's, or None for MobileNetV2 {3,5,7}.
    """

    def __init__(self, name: str | None) -> None:
        super().__init__()
        if name:
            self.net = timm.create_model(name, features_only=True, out_indices=LEVELS)
        else:
            self.net = EfficientNetFeatures(
                decode_arch_def(MOBILENET_V2_357), out_indices=(3, 4), act_layer=nn.ReLU6
            )
        self.channels: Sequence[int] = self.net.feature_info.channels()

    def forward(self, x: Tensor) -> list[Tensor]:
        """(N, 3, H, W) -> (N, C, H/16, W/16) and (N, C, H/32, W/32)."""
        return self.net(x)


def peer_model(name: str, size: int) -> nn.Module:
    """mmdet's `SingleStageDetector`, `SSDNeck` and `SSDHead` on a network of timm's.

    Args:
        name: One of `NETWORKS`.
        size: Side of the square pictures in pixels.
    """
    backbone = dict(type="TimmFeatures", name=NETWORKS[name].timm)
    channels = (*MODELS.build(backbone).channels, *EXTRA_CHANNELS)
    shared = _shared(size)
    cells = _grids(size)
    shared["neck"] |= dict(in_channels=channels[:2], out_channels=channels)
    del shared["neck"]["extra_channels"]
    shared["bbox_head"] |= dict(type="SSDHead", in_channels=channels, use_depthwise=True)
    shared["bbox_head"]["anchor_generator"]["strides"] = [round(size / grid) for grid in cells]
    shared["bbox_head"]["anchor_generator"]["input_size"] = size
    shared["train_cfg"]["smoothl1_beta"] = 1.0
    return MODELS.build(dict(type="SingleStageDetector", backbone=backbone, **shared))


def our_model(name: str, size: int) -> nn.Module:
    """The same as an `SSDLite` of ours; arguments as for `peer_model`."""
    shared = _shared(size)
    shared["bbox_head"] |= dict(type="MixConvSSDHead", kernel_sizes=3)
    backbone = NETWORKS[name].ours
    return MODELS.build(dict(type="SSDLite", backbone=backbone, input_size=size, **shared))


def share_weights(peer: nn.Module, ours: nn.Module) -> None:
    """Copy the peer's weights: the two name their parts differently, but in the same order."""
    values, names = peer.state_dict().values(), list(ours.state_dict())
    ours.load_state_dict(dict(zip(names, values, strict=True)))


def _grids(size: int) -> list[int]:
    """Cells along a side of the six levels."""
    grids = [-(-size // 16), -(-size // 32)]
    while len(grids) < 6:
        grids.append(-(-grids[-1] // 2))
    return grids


def _shared(size: int) -> dict:
    """Data preprocessor, neck, head, and how they train and test."""
    sides = [0.15, 0.33, 0.48, 0.63, 0.79, 0.95, 1.0]  # of the anchors, a share of the picture's
    pixels = [round(size * side) for side in sides]
    return dict(
        data_preprocessor=dict(
            type="DetDataPreprocessor",
            mean=[123.675, 116.28, 103.53],
            std=[58.395, 57.12, 57.375],
            bgr_to_rgb=True,
            pad_size_divisor=1,
        ),
        neck=dict(
            type="SSDNeck",
            extra_channels=EXTRA_CHANNELS,
            level_strides=(2,) * 4,
            level_paddings=(1,) * 4,
            l2_norm_scale=None,
            use_depthwise=True,
            norm_cfg=NORM,
            act_cfg=RELU6,
        ),
        bbox_head=dict(
            num_classes=80,
            norm_cfg=NORM,
            act_cfg=RELU6,
            anchor_generator=dict(
                type="SSDAnchorGenerator",
                scale_major=False,
                min_sizes=pixels[:-1],
                max_sizes=pixels[1:],
                ratios=[[2, 3]] * 6,
            ),
            bbox_coder=dict(
                type="DeltaXYWHBBoxCoder",
                target_means=[0.0, 0.0, 0.0, 0.0],
                target_stds=[0.1, 0.1, 0.2, 0.2],
            ),
        ),
        train_cfg=dict(
            assigner=dict(
                type="MaxIoUAssigner",
                pos_iou_thr=0.5,
                neg_iou_thr=0.5,
                min_pos_iou=0.0,
                ignore_iof_thr=-1,
                gt_max_assign_all=False,
            ),
            sampler=dict(type="PseudoSampler"),
            allowed_border=-1,
            pos_weight=-1,
            neg_pos_ratio=3,
            debug=False,
        ),
        test_cfg=dict(
            nms_pre=1000,
            nms=dict(type="nms", iou_threshold=0.45),
            min_bbox_size=0,
            score_thr=0.02,
            max_per_img=200,
        ),
    )
