"""RoI pooling equals torchvision's where the two agree, and calculations by hand elsewhere."""

from __future__ import annotations

from functools import partial
from itertools import product

import mixdet.compat.prepared

import pytest
import torch
import torchvision
from mmcv.ops import DeformRoIPool, RoIAlign, RoIPool, deform_roi_pool, roi_align, roi_pool

# The fast mode compares a random projection of the Jacobian instead of each of its entries
gradcheck = partial(torch.autograd.gradcheck, fast_mode=True)


def features_and_rois(dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    """Return features (2, 3, 12, 10) and RoIs inside, across the border, outside, and empty."""
    random = torch.Generator().manual_seed(0)
    features = torch.randn(2, 3, 12, 10, generator=random, dtype=dtype)
    rois = [
        (0, 3.2, 4.1, 14.7, 21.3),
        (1, -6.0, -3.0, 9.0, 8.0),
        (1, 2.0, 2.0, 2.5, 2.6),
        (0, 0.0, 0.0, 20.0, 24.0),
        (1, 15.0, 18.0, 40.0, 37.0),
        (0, 90.0, 90.0, 99.0, 99.0),
        (1, 5.0, 5.0, 5.0, 5.0),
    ]
    return features, torch.tensor(rois, dtype=dtype)


@pytest.mark.parametrize(
    ("aligned", "ratio", "size"), list(product([True, False], [0, 2, 3], [(2, 3), (7, 7)]))
)
def test_roi_align_equals_torchvision(aligned: bool, ratio: int, size: tuple[int, int]) -> None:
    features, rois = features_and_rois()
    results = []
    for use_torchvision in (False, True):
        x = features.clone().requires_grad_()
        layer = RoIAlign(size, 0.5, ratio, "avg", aligned, use_torchvision=use_torchvision)
        output = layer(x, rois)
        (output * torch.linspace(-1, 1, output.numel()).view_as(output)).sum().backward()
        results.append((output.detach(), x.grad))
    torch.testing.assert_close(results[0], results[1], rtol=1e-12, atol=1e-12)


def sample(plane: torch.Tensor, y: float, x: float) -> float:
    """Interpolate bilinearly, as in section 3 of the Mask R-CNN paper."""
    height, width = plane.shape
    if not (-1 <= y <= height and -1 <= x <= width):
        return 0.0
    y, x = min(max(y, 0.0), height - 1.0), min(max(x, 0.0), width - 1.0)
    total = 0.0
    for row, column in product(range(height), range(width)):
        total += max(0, 1 - abs(y - row)) * max(0, 1 - abs(x - column)) * plane[row, column].item()
    return total


@pytest.mark.parametrize(("aligned", "ratio"), [(True, 2), (False, 2), (True, 0), (False, 0)])
def test_the_maximum_of_roi_align_is_the_largest_sample_of_a_bin(aligned: bool, ratio: int) -> None:
    features, rois = features_and_rois()
    output = roi_align(features, rois, (2, 3), 0.5, ratio, "max", aligned)
    for n, (image, *corners) in enumerate(rois.tolist()):
        x1, y1, x2, y2 = (corner * 0.5 - 0.5 * aligned for corner in corners)
        height, width = (y2 - y1, x2 - x1) if aligned else (max(y2 - y1, 1), max(x2 - x1, 1))
        rows = ratio or -int(-height / 2 // 1)
        columns = ratio or -int(-width / 3 // 1)
        for channel, i, j in product(range(3), range(2), range(3)):
            samples = [
                sample(
                    features[int(image), channel],
                    y1 + (i + (a + 0.5) / rows) * height / 2,
                    x1 + (j + (b + 0.5) / columns) * width / 3,
                )
                for a, b in product(range(rows), range(columns))
            ]
            expected = max(samples, default=0.0)
            assert output[n, channel, i, j].item() == pytest.approx(expected, abs=1e-9), (n, i, j)


@pytest.mark.parametrize(
    ("mode", "aligned", "ratio"), list(product(["avg", "max"], [True, False], [0, 2]))
)
def test_roi_align_passes_gradcheck(mode: str, aligned: bool, ratio: int) -> None:
    features, rois = features_and_rois()

    def pool(x: torch.Tensor) -> torch.Tensor:
        return roi_align(x, rois, (2, 3), 0.5, ratio, mode, aligned)

    assert gradcheck(pool, features.requires_grad_())


def test_roi_pool_equals_torchvision_for_whole_pixels() -> None:
    features, _ = features_and_rois()
    rois = torch.tensor([(0, 1, 2, 8, 9), (1, 0, 0, 9, 11), (1, 3, 3, 3, 3), (0, 7, 8, 14, 16)])
    results = []
    for pool in (
        lambda x: RoIPool((3, 2), 1.0)(x, rois.double()),
        lambda x: torchvision.ops.roi_pool(x, rois.double(), (3, 2), 1.0),
    ):
        x = features.clone().requires_grad_()
        output = pool(x)
        (output * torch.linspace(-1, 1, output.numel()).view_as(output)).sum().backward()
        results.append((output.detach(), x.grad))
    torch.testing.assert_close(results[0], results[1])


def test_a_bin_of_roi_pool_contains_each_pixel_that_it_touches() -> None:
    plane = torch.arange(36.0, dtype=torch.float64).view(1, 1, 6, 6).requires_grad_()
    # With scale 0.5 the RoI ends at (4 + 1) / 2 = 2.5. Its bins are 0 to 1.25 and 1.25 to 2.5.
    rois = torch.tensor([[0.0, 0, 0, 4, 4], [0, 4, 4, 2, 2]], dtype=torch.float64)
    output = roi_pool(plane, rois, (2, 2), 0.5)
    # They touch the pixels 0 to 1 and 1 to 2. The second RoI has no extent.
    assert output[0, 0].tolist() == [[7, 8], [13, 14]]
    assert output[1].abs().sum() == 0
    output.sum().backward()
    assert plane.grad.nonzero()[:, 2:].tolist() == [[1, 1], [1, 2], [2, 1], [2, 2]]
    assert gradcheck(lambda x: roi_pool(x, rois, (2, 2), 0.5), plane)


@pytest.mark.parametrize("ratio", [0, 2])
def test_deformable_pooling_without_offsets_is_an_aligned_roi_align(ratio: int) -> None:
    features, rois = features_and_rois()
    expected = torchvision.ops.roi_align(features, rois, (3, 2), 0.5, ratio, aligned=True)
    for offset in (None, torch.zeros(len(rois), 2, 3, 2, dtype=torch.float64)):
        output = deform_roi_pool(features, rois, offset, (3, 2), 0.5, ratio, 0.1)
        torch.testing.assert_close(output, expected)


def test_an_offset_moves_a_bin_by_a_part_of_the_roi() -> None:
    features, rois = features_and_rois()
    rois = rois[:2]
    offset = torch.tensor([[3.0, -2.0], [-4.0, 1.5]], dtype=torch.float64).view(2, 2, 1, 1)
    output = deform_roi_pool(features, rois, offset, (1, 1), 0.5, 2, 0.1)
    sides = rois[:, 3:] - rois[:, 1:3]
    moved = rois.clone()
    moved[:, 1:] += (0.1 * offset[:, :, 0, 0] * sides).repeat(1, 2)
    expected = torchvision.ops.roi_align(features, moved, (1, 1), 0.5, 2, aligned=True)
    torch.testing.assert_close(output, expected)


@pytest.mark.parametrize("ratio", [0, 2])
def test_deformable_pooling_passes_gradcheck(ratio: int) -> None:
    features, rois = features_and_rois()
    random = torch.Generator().manual_seed(1)
    offset = torch.rand(len(rois), 2, 2, 2, generator=random, dtype=torch.float64)
    layer = DeformRoIPool((2, 2), 0.5, ratio, 0.1)
    inputs = (features.requires_grad_(), offset.requires_grad_())
    assert gradcheck(lambda x, o: layer(x, rois, o), inputs)
    assert gradcheck(lambda x: deform_roi_pool(x, rois, None, 2), features)


POOLS = {
    "align": lambda x, rois: roi_align(x, rois, 2, 0.5),
    "maximum": lambda x, rois: roi_align(x, rois, 2, 0.5, 0, "max"),
    "pool": lambda x, rois: roi_pool(x, rois, 2, 0.5),
    "deformable": lambda x, rois: deform_roi_pool(x, rois, None, 2, 0.5),
}


@pytest.mark.parametrize("pool", POOLS.values(), ids=POOLS)
def test_no_roi_gives_no_output_and_no_gradient(pool) -> None:
    features, rois = features_and_rois()
    features.requires_grad_()
    output = pool(features, rois[:0])
    assert output.shape == (0, 3, 2, 2)
    output.sum().backward()
    assert features.grad.abs().sum() == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("pool", POOLS.values(), ids=POOLS)
def test_half_precision_differs_from_float32_by_rounding(pool, dtype: torch.dtype) -> None:
    features, rois = features_and_rois(torch.float32)
    rois = rois[:4].round()
    results = []
    for kind in (dtype, torch.float32):
        x = features.to(dtype).to(kind).requires_grad_()
        output = pool(x, rois.to(kind))
        output.sum().backward()
        assert output.dtype == x.grad.dtype == kind
        results.append((output.detach().float(), x.grad.float()))
    torch.testing.assert_close(results[0], results[1], rtol=1e-2, atol=1e-2)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("pool", POOLS.values(), ids=POOLS)
def test_pooling_on_a_gpu_equals_pooling_on_the_cpu(pool) -> None:
    features, rois = features_and_rois()
    results = []
    for device in ("cpu", "cuda"):
        x = features.to(device).requires_grad_()
        output = pool(x, rois.to(device))
        output.sum().backward()
        results.append((output.detach().cpu(), x.grad.cpu()))
    torch.testing.assert_close(results[0], results[1])
