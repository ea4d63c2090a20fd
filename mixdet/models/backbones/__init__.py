"""Backbones, registered in mmdet's MODELS."""

from mixdet.models.backbones.mixnet import MixNet
from mixdet.models.backbones.mobilenet import MixMobileNetV1, MixMobileNetV2

__all__ = ["MixMobileNetV1", "MixMobileNetV2", "MixNet"]
