"""Building blocks: the MixConv operator and the blocks made of it."""

from mixdet.models.layers.blocks import (
    DepthwiseSeparable,
    Expansion,
    InvertedResidual,
    SqueezeExcite,
)
from mixdet.models.layers.mixconv import Conv2dSame, MixConv2d, pad_same, split_channels

__all__ = [
    "Conv2dSame",
    "DepthwiseSeparable",
    "Expansion",
    "InvertedResidual",
    "MixConv2d",
    "SqueezeExcite",
    "pad_same",
    "split_channels",
]
