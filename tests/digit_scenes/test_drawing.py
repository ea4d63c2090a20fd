"""Digit scenes depend only on their arguments, and their boxes fit the digits tightly."""

from __future__ import annotations

import socket

import cv2
import numpy as np
import pytest

from mixdet.digit_scenes import Scene, make_scene
from mixdet.digit_scenes import drawing as digit_drawing
from mixdet.digit_scenes.drawing import (
    INK_THRESHOLD,
    MIN_CONTRAST,
    PHOTOGRAPHS,
    SIZE,
    SPLITS,
    contrast,
    digit_indices,
    load_photographs,
    load_samples,
    photo_regions,
)


def test_a_scene_depends_on_its_arguments_only():
    first = make_scene("train", 5).image
    make_scene("val", 2)
    assert np.array_equal(first, make_scene("train", 5).image)
    assert not np.array_equal(first, make_scene("val", 5).image)


@pytest.mark.parametrize(("split", "other"), [SPLITS, SPLITS[::-1]])
def test_a_split_ignores_the_other_splits_pixels(monkeypatch, split, other):
    """A change of all digits and photographs of the other split changes no pixel of this one."""
    before = [make_scene(split, index).image for index in range(30)]
    samples, labels = load_samples()
    changed_samples = samples.copy()
    changed_samples[digit_indices(other)] = 1 - changed_samples[digit_indices(other)]
    photographs = {name: photo.copy() for name, photo in load_photographs().items()}
    for name, (x1, y1, x2, y2) in photo_regions(other).items():
        photographs[name][y1:y2, x1:x2] ^= 255
    monkeypatch.setattr(digit_drawing, "load_samples", lambda: (changed_samples, labels))
    monkeypatch.setattr(digit_drawing, "load_photographs", lambda: photographs)
    for index, image in enumerate(before):
        assert np.array_equal(image, make_scene(split, index).image)
    differ = [
        not np.array_equal(make_scene(other, index).image, image)
        for index, image in enumerate(before)
    ]
    assert all(differ)


def background_of(scene: Scene) -> np.ndarray:
    """The crop of the photograph behind a scene, (160, 160, 3). It may be mirrored."""
    x1, y1, x2, y2 = scene.crop
    crop = load_photographs()[scene.photograph][y1:y2, x1:x2]
    method = cv2.INTER_AREA if x2 - x1 > SIZE else cv2.INTER_CUBIC
    resized = [
        cv2.resize(side, (SIZE, SIZE), interpolation=method).astype(int)
        for side in (crop, crop[:, ::-1])
    ]
    return min(resized, key=lambda image: np.abs(scene.image - image).sum())


def test_boxes_enclose_the_ink_tightly():
    """Ink touches all four sides of each box. Outside the boxes the photograph is unchanged."""
    for index in range(40):
        scene = make_scene("train", index)
        background = background_of(scene)
        changed = np.abs(scene.image.astype(int) - background).max(-1)
        for box, digit in zip(scene.boxes, scene.digits, strict=True):
            x1, y1, x2, y2 = box
            ink = digit.mask > INK_THRESHOLD
            assert ink.shape == (y2 - y1, x2 - x1)
            for edge in (ink[0], ink[-1], ink[:, 0], ink[:, -1]):
                assert edge.any()
            # The mask is above 0.5 and the opacity at least 0.7, so most ink differs visibly.
            assert (changed[y1:y2, x1:x2][ink] > 5).mean() > 0.85
            changed[y1:y2, x1:x2] = 0
        assert changed.max() == 0


def test_digits_do_not_overlap():
    for index in range(100):
        scene = make_scene("train", index)
        ink = np.zeros((SIZE, SIZE), int)
        for (x1, y1, x2, y2), digit in zip(scene.boxes, scene.digits, strict=True):
            ink[y1:y2, x1:x2] += digit.mask > INK_THRESHOLD
        assert ink.max(initial=0) <= 1


def test_contrast_equals_values_computed_by_hand():
    gray = cv2.cvtColor(np.full((8, 8, 3), 0.5, np.float32), cv2.COLOR_RGB2LAB)
    assert contrast(gray, np.array([128, 128, 128]), 1) < 1
    black = cv2.cvtColor(np.zeros((8, 8, 3), np.float32), cv2.COLOR_RGB2LAB)
    assert contrast(black, np.array([255, 255, 255]), 1) == pytest.approx(100, abs=0.1)
    half = np.concatenate([black, gray])  # gray ink vanishes on half of the pixels
    assert contrast(half, np.array([128, 128, 128]), 1) < MIN_CONTRAST


def test_photographs_load_without_a_network(monkeypatch):
    def refuse(*_args, **_kwargs):
        raise AssertionError("the network was touched")

    monkeypatch.setattr(socket, "socket", refuse)
    photographs = load_photographs.__wrapped__()
    assert list(photographs) == list(PHOTOGRAPHS)
    for photo in photographs.values():
        assert photo.dtype == np.uint8
        assert photo.shape[2] == 3
