"""Validation images are split off by a hash. Similar images stay on one side of the split."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from mixdet.errors import MixDetError
from mixdet.own_data.image_split import split_images


def write_scene(path, seed, noise=0, brightness=0):
    """Write a picture of random blocks. The seed decides the blocks."""
    blocks = np.random.default_rng(seed).integers(30, 200, (8, 9, 3), dtype=np.uint8)
    image = cv2.resize(blocks, (90, 80), interpolation=cv2.INTER_NEAREST).astype(int)
    image += brightness + np.random.default_rng(noise).integers(0, 5, image.shape)
    cv2.imwrite(str(path), image.clip(0, 255).astype(np.uint8))
    return path


def test_frames_of_a_scene_are_on_one_side(tmp_path):
    paths = [
        write_scene(tmp_path / f"{scene:02}_{frame}.png", scene, noise=frame, brightness=2 * frame)
        for scene in range(40)
        for frame in range(3)
    ]
    split = split_images(paths)
    sides = split.is_val.reshape(40, 3)
    assert (sides == sides[:, :1]).all()
    assert (split.groups, split.largest) == (40, 3)
    assert 0.1 <= split.is_val.mean() <= 0.3
    assert "near-duplicate images are on one side" in split.note()


def test_an_image_keeps_its_side_when_others_are_added(tmp_path):
    paths = [write_scene(tmp_path / f"{scene:03}.png", scene) for scene in range(100)]
    before = split_images(paths[:60])
    after = split_images([*reversed(paths[60:]), *paths[:60]])
    assert before.by_hash
    assert after.by_hash
    assert np.array_equal(after.is_val[40:], before.is_val)
    renamed = [path.rename(path.with_stem(f"x{path.stem}")) for path in paths]
    assert np.array_equal(split_images(renamed[:60]).is_val, before.is_val)


def test_copies_that_roboflow_makes_of_an_image_are_on_one_side(tmp_path):
    paths = [
        write_scene(tmp_path / f"a{number // 2}_jpg.rf.{number:04}.jpg", number)
        for number in range(20)
    ]
    sides = split_images(paths).is_val.reshape(10, 2)
    assert (sides[:, 0] == sides[:, 1]).all()


def test_images_of_a_fixed_camera_are_still_split(tmp_path):
    paths = [write_scene(tmp_path / f"{noise}.png", 0, noise=noise) for noise in range(10)]
    split = split_images(paths)
    assert 1 <= split.is_val.sum() <= 3
    assert not split.by_content
    assert "from one camera" in split.note()
    assert "adjusted" in split.note() or split.by_hash


def test_a_long_video_is_divided_into_blocks_and_other_scenes_stay_whole(tmp_path):
    video = [write_scene(tmp_path / f"a{frame:02}.png", 0, noise=frame) for frame in range(60)]
    scenes = [
        write_scene(tmp_path / f"b{scene}{copy}.png", 1 + scene, noise=copy)
        for scene in range(10)
        for copy in range(4)
    ]
    split = split_images([*reversed(scenes), *video])
    assert not split.by_content
    sides = split.is_val[:40].reshape(10, 4)
    assert (sides == sides[:, :1]).all()
    frames = split.is_val[40:].reshape(10, 6)
    assert (frames == frames[:, :1]).all()
    assert 0.1 <= split.is_val.mean() <= 0.3


def test_a_large_scene_does_not_shrink_the_validation_to_one_image(tmp_path):
    """The large scene may be the first in the order of the hashes."""
    for seed in range(6):
        folder = tmp_path / str(seed)
        folder.mkdir()
        paths = [write_scene(folder / f"a{frame}.png", seed, noise=frame) for frame in range(9)]
        paths += [write_scene(folder / f"b{i}.png", 100 * (seed + 1) + i) for i in range(11)]
        assert 2 <= split_images(paths).is_val.sum() <= 6


@pytest.mark.parametrize("count", [2, 3, 5])
def test_few_images_leave_one_on_each_side(tmp_path, count):
    paths = [write_scene(tmp_path / f"{scene}.png", scene) for scene in range(count)]
    assert 1 <= split_images(paths).is_val.sum() < count


def test_equal_images_cannot_be_split(tmp_path):
    paths = [write_scene(tmp_path / f"{number}.png", 0) for number in range(3)]
    with pytest.raises(MixDetError, match="3 images, all equal"):
        split_images(paths)
