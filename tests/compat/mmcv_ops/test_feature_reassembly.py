"""CARAFE and the masked convolution equal loops over pixels, and plain convolutions."""

from __future__ import annotations

from functools import partial
from itertools import product

import mixdet.compat.prepared

import pytest
import torch
from mmcv.ops import CARAFE, CARAFEPack, MaskedConv2d, carafe, carafe_naive
from torch.nn import functional as F

# The fast mode compares a random projection of the Jacobian instead of each of its entries
gradcheck = partial(torch.autograd.gradcheck, fast_mode=True)


@pytest.mark.parametrize(("kernel", "groups", "factor"), [(3, 1, 2), (5, 2, 2), (1, 2, 3)])
def test_carafe_weights_the_pixels_around_the_source_of_an_output_pixel(kernel, groups, factor):
    torch.manual_seed(0)
    features = torch.randn(2, 4, 3, 5, dtype=torch.float64)
    masks = torch.randn(2, groups * kernel**2, 3 * factor, 5 * factor, dtype=torch.float64)
    expected = torch.zeros(2, 4, 3 * factor, 5 * factor, dtype=torch.float64)
    for n, c, y, x in product(range(2), range(4), range(3 * factor), range(5 * factor)):
        group = c // (4 // groups)
        for i, j in product(range(kernel), range(kernel)):
            row, column = y // factor + i - kernel // 2, x // factor + j - kernel // 2
            if 0 <= row < 3 and 0 <= column < 5:
                weight = masks[n, (group * kernel + i) * kernel + j, y, x]
                expected[n, c, y, x] += weight * features[n, c, row, column]
    for function in (CARAFE(kernel, groups, factor), None):
        output = (
            function(features, masks)
            if function
            else carafe_naive(features, masks, kernel, groups, factor)
        )
        torch.testing.assert_close(output, expected)


def test_carafe_passes_gradcheck():
    torch.manual_seed(0)
    features = torch.randn(1, 4, 3, 2, dtype=torch.float64, requires_grad=True)
    masks = torch.randn(1, 18, 6, 4, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda x, m: carafe(x, m, 3, 2, 2), (features, masks))


def test_a_constant_map_stays_constant_inside():
    # The kernels of the layer sum to 1. Pixels near the border see zeros.
    output = CARAFEPack(8, 2)(torch.full((1, 8, 9, 9), 3.0))
    torch.testing.assert_close(output[..., 4:-4, 4:-4], torch.full((1, 8, 10, 10), 3.0))


@pytest.mark.parametrize("padding", [0, 1, (1, 0)])
def test_a_masked_convolution_computes_the_chosen_pixels_only(padding):
    torch.manual_seed(0)
    layer = MaskedConv2d(3, 4, 3, padding=padding)
    x = torch.randn(1, 3, 6, 7)
    dense = F.conv2d(x, layer.weight, layer.bias, padding=padding)
    mask = torch.zeros(1, 6, 7, dtype=torch.bool)
    mask[0, : dense.size(2), : dense.size(3)] = torch.rand(dense.shape[2:]) > 0.5
    inside = mask[:, : dense.size(2), : dense.size(3)]
    torch.testing.assert_close(layer(x, mask), dense * inside)
    assert layer(x, torch.zeros_like(mask)).abs().sum() == 0
