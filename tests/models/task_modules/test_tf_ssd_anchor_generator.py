"""The anchors equal TensorFlow's anchors, which are computed by hand, and torchvision's anchors."""

from __future__ import annotations

import pytest
import torch
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.image_list import ImageList

from mixdet.models import TFSSDAnchorGenerator

SIZE = 320
GRIDS = (20, 10, 5, 3, 2, 1)
STRIDES = (16, 32, 64, 107, 160, 320)  # rounded, as SSDLite passes them


@pytest.fixture(scope="module")
def levels() -> list[torch.Tensor]:
    generator = TFSSDAnchorGenerator(STRIDES, SIZE)
    assert generator.num_base_priors == [3, 6, 6, 6, 6, 6]
    return generator.grid_priors([(g, g) for g in GRIDS], device="cpu")


def boxes(center: tuple[float, float], sizes: list[tuple[float, float]]) -> torch.Tensor:
    half = torch.tensor(sizes) / 2
    return torch.cat([torch.tensor(center) - half, torch.tensor(center) + half], 1)


def test_the_anchors_of_two_cells_equal_values_computed_by_hand(levels):
    """A cell of the first level has three anchors. A cell of the fourth level has six anchors."""
    first = boxes((5.5 * 16, 2.5 * 16), [(32, 32), (90.5097, 45.2548), (45.2548, 90.5097)])
    torch.testing.assert_close(levels[0].view(20, 20, 3, 4)[2, 5], first, rtol=0, atol=1e-3)

    # The fourth level has the scale 0.65, and 208 is 0.65 * 320. The fifth level has the scale 0.8.
    # The larger square of the fourth level has the side 320 * sqrt(0.65 * 0.8).
    fourth = boxes(
        (800 / 3, 160.0),
        [
            (208, 208),
            (294.1564, 147.0782),
            (147.0782, 294.1564),
            (360.2666, 120.0889),
            (120.0889, 360.2666),
            (230.7553, 230.7553),
        ],
    )
    torch.testing.assert_close(levels[3].view(3, 3, 6, 4)[1, 2], fourth, rtol=0, atol=1e-3)


def test_levels_two_to_six_equal_torchvision(levels):
    """torchvision has the same six boxes per cell, in another order."""
    scales = [0.35, 0.5, 0.65, 0.8, 0.95, 1.0]
    generator = DefaultBoxGenerator([[2, 3]] * 5, scales=scales, clip=False)
    images = ImageList(torch.zeros(1, 3, SIZE, SIZE), [(SIZE, SIZE)])
    (expected,) = generator(images, [torch.zeros(1, 1, g, g) for g in GRIDS[1:]])
    ours = torch.cat(levels[1:]).view(-1, 6, 4)
    expected = expected.view(-1, 6, 4)[:, [0, 2, 3, 4, 5, 1]]
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-3)


def test_scales_rise_from_min_scale_to_max_scale():
    """The last anchor of a level is a square of scale sqrt(s s').

    s is the scale of this level, and s' is the scale of the next level.
    """
    generator = TFSSDAnchorGenerator((8, 16, 32), 160, min_scale=0.1, max_scale=0.5)
    sides = [(level[-1, 2] - level[-1, 0]).item() for level in generator.base_anchors[1:]]
    assert sides == pytest.approx([160 * 0.15**0.5, 160 * 0.5**0.5])


def test_a_single_level_has_three_anchors_per_cell():
    assert TFSSDAnchorGenerator((16,), 320).num_base_priors == [3]


@pytest.mark.parametrize("size", [(320, 192), (192, 320)])
def test_scales_are_fractions_of_the_shorter_side(size):
    """TensorFlow divides the base anchor by the shorter side, so an anchor of ratio 1 is square."""
    (anchors,) = TFSSDAnchorGenerator(((16, 16),), size).base_anchors
    by_hand = boxes((8, 8), [(19.2, 19.2), (54.3058, 27.1529), (27.1529, 54.3058)])
    torch.testing.assert_close(anchors, by_hand, rtol=0, atol=1e-3)
