"""Shapes of the feature maps that a backbone and a neck give."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn


class FeatureMap(NamedTuple):
    """Shape of a feature map (N, channels, rows, columns)."""

    channels: int
    rows: int
    columns: int


def backbone_maps(backbone: nn.Module, input_wh: tuple[int, int]) -> list[FeatureMap]:
    """Return the shapes of a backbone's outputs.

    They follow from its attributes `out_channels` and `out_strides`. A backbone without these
    attributes is run once on zeros.

    Args:
        backbone: The backbone.
        input_wh: (width, height) of the image in pixels.
    """
    width, height = input_wh
    if not (hasattr(backbone, "out_channels") and hasattr(backbone, "out_strides")):
        return maps_of_outputs(backbone, torch.zeros(1, 3, height, width))
    return [
        FeatureMap(channels, -(-height // stride), -(-width // stride))
        for channels, stride in zip(backbone.out_channels, backbone.out_strides, strict=True)
    ]


def neck_maps(neck: nn.Module, maps: Sequence[FeatureMap]) -> list[FeatureMap]:
    """Run a neck once on zeros, and return the shapes of its outputs.

    Args:
        neck: The neck.
        maps: Shapes of the backbone's outputs.
    """
    return maps_of_outputs(neck, [torch.zeros(1, *feature_map) for feature_map in maps])


@torch.no_grad()
def maps_of_outputs(module: nn.Module, inputs: Tensor | list[Tensor]) -> list[FeatureMap]:
    """Run a module once and return the shapes of its outputs."""
    training = module.training
    module.eval()  # keeps the batch norm statistics
    outputs = module(inputs)
    module.train(training)
    return [FeatureMap(*output.shape[1:]) for output in outputs]


def grids(maps: Sequence[FeatureMap]) -> str:
    """Return the numbers of cells along the sides, as `width x height`, for a message."""
    return ", ".join(f"{feature_map.columns}x{feature_map.rows}" for feature_map in maps)
