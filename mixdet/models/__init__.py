"""Backbones, heads and detectors with MixConv. Importing this package registers them in mmdet."""

import mixdet.compat.prepared

from mixdet.models.backbones import MixMobileNetV1, MixMobileNetV2, MixNet
from mixdet.models.dense_heads import MixConvSSDHead
from mixdet.models.detectors import SSDLite
from mixdet.models.layers import MixConv2d, split_channels
from mixdet.models.start_weights import load_start_weights, start_weight_files
from mixdet.models.task_modules import TFSSDAnchorGenerator
from mixdet.models.weight_init import TimmPretrained

__all__ = [
    "MixConv2d",
    "MixConvSSDHead",
    "MixMobileNetV1",
    "MixMobileNetV2",
    "MixNet",
    "SSDLite",
    "TFSSDAnchorGenerator",
    "TimmPretrained",
    "load_start_weights",
    "split_channels",
    "start_weight_files",
]
