"""`fused_twin` returns a fused copy of a detector with equal outputs, or refuses the detector."""

from __future__ import annotations

from itertools import chain

import mixdet.plugin

import pytest
import torch
from mmdet.registry import MODELS
from torch import Tensor, nn

from mixdet.config.read import read_config
from mixdet.config.shipped import find_config
from mixdet.errors import MixDetError
from mixdet.models.detectors import fused_twin
from tests.synthetic import random_batch, randomize_norms


@pytest.fixture
def detector() -> nn.Module:
    model = MODELS.build(read_config(find_config("ssdlite_mixnet_s_digits")).model)
    return randomize_norms(model)


def test_a_fused_copy_gives_the_outputs_of_the_detector(detector):
    batch = random_batch(2, 160)
    twin = fused_twin(detector, batch)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in twin.modules())
    inputs = detector.data_preprocessor(batch)["inputs"]
    with torch.no_grad():
        outputs, expected = twin(inputs, mode="tensor"), detector(inputs, mode="tensor")
    for level, reference in zip(chain(*outputs), chain(*expected), strict=True):
        torch.testing.assert_close(level, reference, rtol=1e-3, atol=1e-3)


class NormFirst(nn.Module):
    """Defines a convolution and then a norm, but calls the norm first."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 1)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, levels: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return self.conv(self.bn(levels[0])), *levels[1:]


def test_a_detector_that_fusing_would_change_is_refused(detector):
    channels = detector.bbox_head.in_channels[0]
    detector.neck = nn.Sequential(detector.neck, NormFirst(channels))
    randomize_norms(detector)
    with pytest.raises(MixDetError, match="outputs of the fused network differ"):
        fused_twin(detector, random_batch(1, 160))
