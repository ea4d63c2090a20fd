"""Distorted pixels equal mmdet's, and random settings have the same distribution as mmdet's."""

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
    """Return an image with dark, bright, gray and colored pixels.

    `distort` splits the image into three bands of rows, and the last band is smaller. The width is
    a prime number, so it is not a multiple of the length of SIMD vectors.
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
    """mmdet's first flag sets whether contrast precedes hue. It does not change the values."""
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
def test_a_batch_is_distorted_like_its_single_images(drawn):
    images = [image(seed) for seed in range(len(drawn))]
    batch = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
    distorted = distort_batch(batch, drawn).permute(0, 2, 3, 1).numpy()
    for result, pixels, draw in zip(distorted, images, drawn, strict=True):
        np.testing.assert_allclose(result, distort(pixels, draw), atol=0.02)


@pytest.mark.parametrize("order", ORDERS)
def test_reordering_the_channels_is_exact(order):
    distorted = distort(image(), PhotometricDraw(order=order))
    np.testing.assert_array_equal(distorted, image()[..., list(order)])


def features(images) -> dict[str, np.ndarray]:
    """Return values that tell how each step of the distortion changed images of one color.

    The values are rounded, since a step that changes nothing still causes rounding errors.
    """
    values = np.array([p[0, 0] for p in images]).round(1)
    low, middle, high = np.sort(values).T
    return {
        "blue": values[:, 0],  # depends on the order of the channels
        "high": high,
        "saturation": ((high - low) / high).round(2),
        "hue": ((middle - low) / (high - low)).round(2),  # only the hue step changes this
    }


def compare(plain: np.ndarray, distortion: PhotometricDistortion, number: int = 4000) -> float:
    """Compare our distorted images with mmdet's; return the smallest p value of all features."""
    np.random.seed(1)
    mmdet = PhotoMetricDistortion()
    expected = features([mmdet({"img": plain})["img"] for _ in range(number)])
    ours = features([distort(plain, distortion.draw()) for _ in range(number)])
    return min(ks_2samp(ours[name], expected[name]).pvalue for name in ours)


PLAIN = np.full((2, 8, 3), (40, 90, 200), np.uint8)


def test_draws_are_distributed_as_in_mmdet():
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
def test_the_comparison_detects_a_wrong_range(wrong):
    assert compare(PLAIN, PhotometricDistortion(**wrong)) < 1e-3
