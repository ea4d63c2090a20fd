"""The values of the distortion equal mmdet's, and its draws are distributed as mmdet's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmdet.datasets.transforms import PhotoMetricDistortion
from scipy.stats import ks_2samp

from mixdet.datasets.transforms.photometric import (
    BAND_PIXELS,
    ORDERS,
    PhotometricDistortion,
    PhotometricDraw,
    distort,
    distort_batch,
)


def image(seed: int = 0) -> np.ndarray:
    """Dark, bright, gray and colored values. `distort` computes them in three bands of rows.

    No vector length divides the width, and the last band is not full.
    """
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 256, (241, 211, 3), dtype=np.uint8)
    assert 2 * BAND_PIXELS < 241 * 211 < 3 * BAND_PIXELS
    values[:6] //= 8  # brightness takes these below zero
    values[6:9] = values[6:9, :, :1]
    return values


def by_mmdet(pixels: np.ndarray, flags: tuple) -> np.ndarray:
    transform = PhotoMetricDistortion()
    transform._random_flags = lambda: flags
    return transform({"img": pixels})["img"]


@settings(deadline=None, max_examples=60)
@given(
    flags=st.tuples(*[st.integers(0, 1)] * 6),
    values=st.tuples(
        st.floats(-32, 32), st.floats(0.5, 1.5), st.floats(0.5, 1.5), st.floats(-18, 18)
    ),
    order=st.permutations(range(3)),
)
def test_a_draw_gives_the_values_of_mmdet(flags, values, order):
    """Whether contrast comes first or last, the first flag, changes nothing."""
    names = ("brightness", "contrast", "saturation", "hue", "order")
    parts = zip(names, [*values, order], flags[1:], strict=True)
    draw = PhotometricDraw(**{name: value for name, value, is_drawn in parts if is_drawn})
    ours = distort(image(), draw)
    expected = by_mmdet(image(), (*flags, *values, order))
    np.testing.assert_allclose(ours, expected, atol=0.02)


draws = st.builds(
    PhotometricDraw,
    brightness=st.sampled_from([0.0]) | st.floats(-32, 32),
    contrast=st.sampled_from([1.0]) | st.floats(0.5, 1.5),
    saturation=st.sampled_from([1.0]) | st.floats(0.5, 1.5),
    hue=st.sampled_from([0.0]) | st.floats(-18, 18),
    order=st.permutations(range(3)),
)


@settings(deadline=None, max_examples=60)
@given(st.lists(draws, min_size=1, max_size=4))
def test_a_batch_is_distorted_as_its_images_are(drawn):
    images = [image(seed) for seed in range(len(drawn))]
    batch = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
    distorted = distort_batch(batch, drawn).permute(0, 2, 3, 1).numpy()
    for one, pixels, draw in zip(distorted, images, drawn, strict=True):
        np.testing.assert_allclose(one, distort(pixels, draw), atol=0.02)


@pytest.mark.parametrize("order", ORDERS)
def test_reordering_the_channels_is_exact(order):
    distorted = distort(image(), PhotometricDraw(order=order))
    np.testing.assert_array_equal(distorted, image()[..., list(order)])


def features(images) -> dict[str, np.ndarray]:
    """Measure what each part of the distortion changes in a plain color.

    The values are rounded, so that unchanged ones are equal in spite of rounding errors.
    """
    values = np.array([p[0, 0] for p in images]).round(1)
    low, middle, high = np.sort(values).T
    return {
        "blue": values[:, 0],  # tells the order
        "high": high,
        "saturation": ((high - low) / high).round(2),
        "hue": ((middle - low) / (high - low)).round(2),  # the one that only hue changes
    }


def compare(plain: np.ndarray, distortion: PhotometricDistortion, number: int = 4000) -> float:
    """The smallest p of all features, ours against mmdet's."""
    np.random.seed(1)
    mmdet = PhotoMetricDistortion()
    expected = features([mmdet({"img": plain})["img"] for _ in range(number)])
    ours = features([distort(plain, distortion.draw()) for _ in range(number)])
    return min(ks_2samp(ours[name], expected[name]).pvalue for name in ours)


PLAIN = np.full((2, 8, 3), (40, 90, 200), np.uint8)


def test_draws_are_distributed_as_mmdets():
    assert compare(PLAIN, PhotometricDistortion()) > 1e-3


@pytest.mark.parametrize(
    "wrong",
    [
        {"brightness_delta": 20},
        {"contrast_range": (0.6, 1.5)},
        {"saturation_range": (0.5, 1.3)},
        {"hue_delta": 14},
    ],
)
def test_a_wrong_range_is_caught(wrong):
    assert compare(PLAIN, PhotometricDistortion(**wrong)) < 1e-3
