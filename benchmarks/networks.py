"""The two sides of a benchmark: MixDet's SSDLite and the peer.

The peer is what a user would run without MixDet: mmdet's SSDLite with a timm backbone. With the
same weights, both sides compute the same outputs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import mixdet.plugin

from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.model import BaseModule
from timm.models._efficientnet_builder import decode_arch_def
from timm.models.efficientnet import EfficientNetFeatures
from torch import Tensor, nn

from mixdet.config.shipped import shipped_folder
from mixdet.errors import MixDetError
from mixdet.models.backbones.timm_features import drop_unused_stages


class Network(NamedTuple):
    """Configs of a backbone on both sides, with the same two outputs at strides 16 and 32."""

    peer: dict
    ours: dict


NETWORKS = {
    "MixNet-S": Network(
        dict(type="TimmFeatures", name="mixnet_s"),
        dict(type="MixNet", arch="s", taps=("stage5", "stage6")),
    ),
    "MixNet-M": Network(
        dict(type="TimmFeatures", name="mixnet_m"),
        dict(type="MixNet", arch="m", taps=("stage5", "stage6")),
    ),
    "MobileNetV2 {3,5,7}": Network(
        dict(type="TimmMixMobileNetV2"),
        dict(type="MixMobileNetV2", kernel_sizes=(3, 5, 7), taps=("stage5", "stage7")),
    ),
}
# MobileNetV2 in timm's notation, with mixed depthwise kernels
MOBILENET_V2_357 = [
    ["ds_r1_k3.5.7_s1_c16"],
    ["ir_r2_k3.5.7_s2_e6_c24"],
    ["ir_r3_k3.5.7_s2_e6_c32"],
    ["ir_r4_k3.5.7_s2_e6_c64"],
    ["ir_r3_k3.5.7_s1_e6_c96"],
    ["ir_r3_k3.5.7_s2_e6_c160"],
    ["ir_r1_k3.5.7_s1_e6_c320"],
]


@MODELS.register_module()
class TimmMixMobileNetV2(BaseModule):
    """MobileNetV2 {3,5,7} made of timm's blocks. `timm.create_model` does not offer this network.

    The outputs have the strides 16 and 32.
    """

    def __init__(self, init_cfg: dict | list | None = None) -> None:
        super().__init__(init_cfg)
        blocks = decode_arch_def(MOBILENET_V2_357)
        net = EfficientNetFeatures(blocks, out_indices=(3, 4), act_layer=nn.ReLU6)
        self.net = drop_unused_stages(net)
        self.channels: Sequence[int] = net.feature_info.channels()

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map images (N, 3, H, W) to a feature map (N, C, H / stride, W / stride) per stride."""
        return self.net(x)


def check_known(option: str, names: Iterable[str], known: Iterable[str]) -> None:
    """Refuse unknown names on the command line.

    Args:
        option: The option, such as '--networks'.
        names: The names that were given to the option.
        known: All names that the option takes.

    Raises:
        MixDetError: A name is unknown.
    """
    if unknown := sorted(set(names) - set(known)):
        choices = ", ".join(known)
        raise MixDetError(f"{option} {', '.join(unknown)}: unknown name: choose from {choices}")


def peer_model(name: str, size: int) -> nn.Module:
    """Build mmdet's `SingleStageDetector`, `SSDNeck` and `SSDHead` with a backbone of timm.

    Args:
        name: A key of `NETWORKS`.
        size: Side of the square images in pixels.
    """
    backbone = NETWORKS[name].peer
    model = _common_config(size)
    neck, head = model["neck"], model["bbox_head"]
    channels = (*MODELS.build(backbone).channels, *neck.pop("extra_channels"))
    neck |= dict(in_channels=channels[:2], out_channels=channels)
    model["data_preprocessor"]["type"] = "DetDataPreprocessor"
    del head["kernel_sizes"]
    head |= dict(type="SSDHead", in_channels=channels, use_depthwise=True)
    head["anchor_generator"] |= dict(
        input_size=model.pop("input_size"), strides=[round(size / cells) for cells in _grids(size)]
    )
    model["train_cfg"]["smoothl1_beta"] = 1.0
    return MODELS.build(dict(type="SingleStageDetector", backbone=backbone, **model))


def our_model(name: str, size: int) -> nn.Module:
    """Build MixDet's `SSDLite`. See `peer_model` for the arguments."""
    return MODELS.build(our_config(name, size))


def our_config(name: str, size: int) -> dict:
    """Return the config of `our_model`."""
    return dict(type="SSDLite", backbone=NETWORKS[name].ours, **_common_config(size))


def _grids(size: int) -> list[int]:
    """Return the number of cells along a side of the feature map, for each of the six levels."""
    grids = [-(-size // 16), -(-size // 32)]
    while len(grids) < 6:
        grids.append(-(-grids[-1] // 2))
    return grids


def _common_config(size: int) -> dict:
    """Return the config that both sides share: the model of our COCO configs without the backbone.

    The anchors are scaled to the image size.
    """
    model = Config.fromfile(shipped_folder("configs") / "_base_/models/ssdlite_320.py").model
    del model["type"]
    anchors = model.bbox_head.anchor_generator
    for key in ("min_sizes", "max_sizes"):
        anchors[key] = [round(pixels * size / model.input_size) for pixels in anchors[key]]
    model.input_size = size
    return model.to_dict()
