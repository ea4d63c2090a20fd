"""Copies of an image are found in a large set without comparing every pair."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import skimage.data

from mixdet.images.near_duplicates import (
    MAX_BITS,
    MIN_CORRELATION,
    difference_hashes,
    near_duplicate_groups,
    near_duplicate_pairs,
    near_duplicates_in,
    thumbnail,
)
from tests.conftest import ROOT


def photographs() -> list[np.ndarray]:
    names = ("astronaut", "camera", "chelsea", "coffee", "page", "text")
    return [getattr(skimage.data, name)() for name in names]


def thumbnails(images) -> np.ndarray:
    return np.stack([thumbnail(image) for image in images])


def crop(image, fraction):
    """Cut off a fraction of the width and the height, most of it at the lower right."""
    height, width = (int(side * fraction) for side in image.shape[:2])
    return image[height // 4 : image.shape[0] - height * 3 // 4, width // 4 : -width * 3 // 4]


def jpeg(image, quality):
    return cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], 1)


COPIES = {
    "recompressed": lambda image: jpeg(image, 20),
    "smaller": lambda image: cv2.resize(image, None, fx=0.3, fy=0.3),
    "larger": lambda image: cv2.resize(image, None, fx=1.7, fy=1.7),
    "square": lambda image: cv2.resize(image, (320, 320)),
    "cropped": lambda image: crop(image, 0.03),
    "brighter": lambda image: np.clip(image * 1.2 + 10, 0, 255).astype(np.uint8),
    "darker": lambda image: (image * 0.5).astype(np.uint8),
    "gray": lambda image: image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_BGR2GRAY),
    "mirrored": lambda image: image[:, ::-1],
    "blurred": lambda image: cv2.GaussianBlur(image, (0, 0), 3),
}


@pytest.mark.parametrize("change", COPIES.values(), ids=COPIES)
def test_a_changed_copy_is_a_near_duplicate_of_its_image_only(change):
    images = photographs()
    copies = [change(image) for image in images]
    matches = near_duplicates_in(thumbnails(copies), thumbnails(images))
    np.testing.assert_array_equal(matches, np.arange(len(images)))


def test_the_hash_compares_each_of_8_by_9_cells_with_its_right_neighbor():
    cells = np.zeros((8, 9), np.uint8)
    cells[0, 1] = 200  # brighter than the cell to its left, which sets the first bit
    cells[7, 8] = 100  # brighter than the cell to its left, which sets the last bit
    image = np.kron(cells, np.ones((10, 10), np.uint8))
    assert difference_hashes(thumbnail(image)[None])[0] == (1 << 63) + 1


def test_images_with_only_a_plain_background_in_common_are_no_near_duplicates():
    rng = np.random.default_rng(0)
    images = []
    for background in (0, 12, 128, 250):
        for _ in range(40):
            image = np.full((240, 320), background, np.uint8)
            center = rng.integers((20, 20), (300, 220)).tolist()
            cv2.circle(image, center, 18, int(rng.integers(60, 200)), -1)
            images.append(image)
    noise = rng.normal(0, 2, (len(images), 240, 320))
    images = np.clip(np.stack(images) + noise, 0, 255).astype(np.uint8)
    groups = near_duplicate_groups(thumbnails(images))
    assert len(np.unique(groups)) >= 0.95 * len(images)  # some circles are at nearly equal places


def test_images_with_only_the_shading_of_a_lens_in_common_are_no_near_duplicates():
    rng = np.random.default_rng(0)
    y, x = np.mgrid[-1:1:240j, -1:1:320j]
    shading = (220 - 60 * (x * x + y * y)).astype(np.uint8)
    images = []
    for _ in range(100):
        image = shading.copy()
        for center in rng.integers((0, 0), (320, 240), (10, 2)).tolist():
            cv2.circle(image, center, 14, int(rng.integers(90, 150)), -1)
        images.append(image)
    assert len(near_duplicate_pairs(thumbnails(images))) == 0


def test_plain_images_are_no_near_duplicates():
    rng = np.random.default_rng(0)
    images = [np.full((60, 80, 3), 7, np.uint8) for _ in range(3)]
    images += list(rng.integers(0, 3, (3, 60, 80, 3), dtype=np.uint8))
    assert len(near_duplicate_pairs(thumbnails(images))) == 0
    assert near_duplicates_in(thumbnails(images[:2]), thumbnails(images[2:])).tolist() == [-1, -1]


def smooth_images(count: int, rng: np.random.Generator) -> np.ndarray:
    """Return random thumbnails that vary as slowly as those of photographs."""
    coarse = rng.integers(0, 256, (count, 6, 7), dtype=np.uint8)
    return np.stack(
        [cv2.resize(image, (18, 16), interpolation=cv2.INTER_CUBIC) for image in coarse]
    )


def edges(images: np.ndarray) -> np.ndarray:
    """Subtract a fitted quadratic; return the differences of neighboring pixels, (N, 558)."""
    y, x = np.mgrid[0:16, 0:18]
    terms = np.stack([x**0, x, y, x * x, x * y, y * y], axis=-1).reshape(288, 6).astype(float)
    values = images.reshape(-1, 288).T.astype(float)
    values -= terms @ np.linalg.lstsq(terms, values)[0]
    values = values.T.reshape(images.shape)
    return np.hstack([np.diff(values, axis=axis).reshape(len(images), -1) for axis in (1, 2)])


def test_the_search_finds_the_pairs_that_a_comparison_of_all_pairs_finds():
    rng = np.random.default_rng(0)
    base = smooth_images(150, rng)
    # Each image has three copies with more and more noise. Some pairs are within the limits
    # `MAX_BITS` and `MIN_CORRELATION`, and some are not
    images = [np.clip(base + rng.normal(0, level, base.shape), 0, 255) for level in (0, 3, 8, 20)]
    images = np.concatenate(images).astype(np.uint8)
    mirrored = np.ascontiguousarray(images[:, :, ::-1])
    hashes = [list(map(int, difference_hashes(version))) for version in (images, mirrored)]
    correlations = np.corrcoef(edges(np.concatenate([images, mirrored])))
    count = len(images)
    expected = [
        (i, j)
        for i in range(count)
        for j in range(i + 1, count)
        if any(
            (hashes[a][i] ^ hashes[b][j]).bit_count() <= MAX_BITS
            and correlations[a * count + i, b * count + j] >= MIN_CORRELATION
            for a, b in ((0, 0), (0, 1), (1, 0))
        )
    ]
    assert 100 < len(expected) < 150 * 6
    assert list(map(tuple, near_duplicate_pairs(images).tolist())) == expected


def test_near_duplicates_of_near_duplicates_are_in_one_group():
    rng = np.random.default_rng(0)
    large = cv2.resize(rng.integers(0, 256, (12, 24), dtype=np.uint8), (1200, 600))
    video = [large[:, left : left + 600] for left in range(0, 600, 6)]  # a camera that turns
    others = smooth_images(50, rng)
    groups = near_duplicate_groups(np.concatenate([thumbnails(video), others]))
    assert len(set(groups[:100])) == 1
    assert len(set(groups)) == 51


def test_ten_thousand_frames_of_a_still_camera_are_one_group():
    """There are 50 million pairs of frames, so this also shows that not all are compared."""
    rng = np.random.default_rng(0)
    (scene,) = smooth_images(1, rng)
    noise = rng.integers(-4, 5, (10_000, *scene.shape))
    groups = near_duplicate_groups(np.clip(scene + noise, 0, 255).astype(np.uint8))
    assert len(np.unique(groups)) == 1


REAL = ROOT.parent / "shared" / "real"


@pytest.mark.skipif(not REAL.is_dir(), reason="the real data sets are not at ../shared/real")
@pytest.mark.parametrize("name", ["aquarium", "cards", "soccer", "thermal"])
def test_real_images_split_by_scene_have_no_pair_and_their_copies_are_found(name):
    """The hash alone finds pairs across the split of each set."""
    train, val = (
        [cv2.imread(str(file)) for file in sorted((REAL / name / split).iterdir())]
        for split in ("train2017", "val2017")
    )
    small_train, small_val = thumbnails(train), thumbnails(val)
    assert (near_duplicates_in(small_val, small_train) == -1).all()
    bits = difference_hashes(small_val)[:, None] ^ difference_hashes(small_train)
    assert (np.bitwise_count(bits) <= MAX_BITS).any()
    for change, least in (("recompressed", 0.96), ("smaller", 0.96), ("brighter", 0.96)):
        copies = thumbnails([COPIES[change](image) for image in val])
        assert (near_duplicates_in(copies, small_val) >= 0).mean() >= least, change
