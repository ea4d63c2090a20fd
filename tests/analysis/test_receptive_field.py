"""Effective receptive fields of a network whose field is known, and of shipped configs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from mixdet.analysis import ReceptiveField, measure_receptive_field
from mixdet.analysis.receptive_field import center_cell_gradient
from mixdet.errors import MixDetError
from tests.conftest import ROOT


class Linear(nn.Module):
    """Two convolutions whose weights are all 1.

    An output cell depends on a square with a side of (5 - 1) + 2 * (3 - 1) + 1 = 9 pixels.
    """

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 1, 5, stride=2, padding=2, bias=False)
        self.second = nn.Conv2d(1, 1, 3, padding=1, bias=False)
        for weight in self.parameters():
            nn.init.ones_(weight)

    def data_preprocessor(self, batch):
        return batch

    def extract_feat(self, inputs):
        return (self.second(self.first(inputs)),)


def test_the_field_of_two_convolutions_follows_the_formula():
    weight, grid = center_cell_gradient(Linear(), {"inputs": torch.zeros(1, 3, 32, 40)}, 0)
    assert grid == (16, 20)
    # How often each of the 9 pixels is counted along one axis. The second convolution adds three
    # outputs of the first one. The outputs lie 2 pixels apart, and each is a sum of 5 pixels.
    times = np.convolve(np.ones(5), [1, 0, 1, 0, 1])
    want = np.zeros((32, 40))
    want[12:21, 16:25] = 3 * np.outer(times, times)  # around the middle cell (8, 10)
    np.testing.assert_array_equal(weight, want)
    field = ReceptiveField("linear", 2, weight / weight.sum(), trained=False, images=1)
    assert field.center == pytest.approx((16.5, 20.5))
    # A pixel is inside a square if its middle is. A square of side 8 around the middle of the
    # center pixel holds the middles of 9 x 9 pixels. A square of side 4 holds those of 5 x 5.
    assert field.side(0.9999) == 8
    inner = weight[14:19, 18:23].sum() / weight.sum()
    assert field.within()[1] == pytest.approx(inner)


def test_a_missing_level_is_refused():
    with pytest.raises(MixDetError, match="levels are 0 to 0"):
        center_cell_gradient(Linear(), {"inputs": torch.zeros(1, 3, 32, 32)}, 1)


@pytest.mark.heavy
def test_larger_kernels_have_larger_fields(coco_sample):
    sides = []
    for kernels in ("3x3", "mix357", "7x7"):
        config = ROOT / f"configs/table1/ssdlite_mobilenet_v2_{kernels}_coco.py"
        field = measure_receptive_field(config, images=2, data_root=str(coco_sample))
        assert (field.stride, field.weight.shape, field.trained) == (16, (320, 320), False)
        assert field.weight.sum() == pytest.approx(1)
        sides.append(field.side(0.5))
    assert sides[0] < sides[1] < sides[2]
