"""The distortion is mmdet's, value by value; its draws are distributed as mmdet's."""

from __future__ import annotations

from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmdet.datasets.transforms import PhotoMetricDistortion
from scipy.stats import ks_2samp

from mixdet.datasets.transforms import photometric
from mixdet.datasets.transforms.photometric import (
    ORDERS,
    PhotometricDistortion,
    PhotometricDraw,
    distort,
    distort_batch,
)


@pytest.fixture(autouse=True, scope="module")
def bands():
    """Images as small as these are distorted in bands too, the last of them not full."""
    with mock.patch.object(photometric, "BAND_PIXELS", 5 * 37):
        yield


def image(seed: int = 0) -> np.ndarray:
    """Dark, bright, gray and colored values, at a width that no vector length divides."""
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 256, (24, 37, 3), dtype=np.uint8)
    values[:6] //= 8  # brightness takes these below zero
    values[6:9] = values[6:9, :, :1]
    return values


def by_mmdet(pixels: np.ndarray, flags: tuple) -> np.ndarray:
    transform = PhotoMetricDistortion()
    transform._random_flags = lambda: flags
    return transform({"img": pixels})["img"]


@settings(deadline=None)
@given(
    flags=st.tuples(*[st.integers(0, 1)] * 6),
    values=st.tuples(
        st.floats(-32, 32), st.floats(0.5, 1.5), st.floats(0.5, 1.5), st.floats(-18, 18)
    ),
    order=st.permutations(range(3)),
)
def test_every_draw_gives_mmdets_values(flags, values, order):
    """Whether contrast comes first or last, the first flag, changes nothing."""
    drawn = dict(zip(PhotometricDraw._fields, [*values, order], strict=True))
    done = dict(zip(PhotometricDraw._fields, flags[1:], strict=True))
    ours = distort(image(), PhotometricDraw(**{k: v for k, v in drawn.items() if done[k]}))
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


@settings(deadline=None)
@given(st.lists(draws, min_size=1, max_size=4))
def test_a_batch_gets_what_each_image_gets(drawn):
    images = [image(seed) for seed in range(len(drawn))]
    batch = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
    found = distort_batch(batch, drawn).permute(0, 2, 3, 1).numpy()
    for one, pixels, draw in zip(found, images, drawn, strict=True):
        np.testing.assert_allclose(one, distort(pixels, draw), atol=0.02)


@pytest.mark.parametrize("order", ORDERS)
def test_the_channels_are_put_in_order_exactly(order):
    distorted = distort(image(), PhotometricDraw(order=order))
    np.testing.assert_array_equal(distorted, image()[..., list(order)])


def features(images) -> dict[str, np.ndarray]:
    """What each part of the distortion leaves on a plain color.

    Rounded: what was not changed is to be one value, whatever the arithmetic made of it.
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
