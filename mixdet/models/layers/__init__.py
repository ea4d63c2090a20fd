"""The MixConv operator, and the blocks of MobileNet and MixNet that use it."""

from mixdet.models.layers.blocks import (
    DepthwiseSeparable,
    Expansion,
    InvertedResidual,
    SqueezeExcite,
)
from mixdet.models.layers.mixconv import (
    Conv2dSame,
    DepthwiseConv2d,
    MixConv2d,
    MixedDepthwiseConv2d,
    pad_same,
    split_channels,
)

__all__ = [
    "Conv2dSame",
    "DepthwiseConv2d",
    "DepthwiseSeparable",
    "Expansion",
    "InvertedResidual",
    "MixConv2d",
    "MixedDepthwiseConv2d",
    "SqueezeExcite",
    "pad_same",
    "split_channels",
]
