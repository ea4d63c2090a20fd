"""Split images into training and validation. Similar images are never in both."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from mixdet.errors import MixDetError
from mixdet.images import decode

VAL_FRACTION = 0.2
# Images are similar if their difference hashes differ in at most this many of 64 bits. If more than
# half of the images are then in one group, as with a fixed camera, the next number is tried.
MAX_BITS = (10, 6, 3, 0)
CHUNK = 2048  # at most this many images are compared with all others at once


@dataclass(frozen=True)
class ImageSplit:
    """Which images are for validation.

    Attributes:
        is_val: (n,) whether each image is for validation.
        groups: Number of groups of similar images.
        largest: Number of images of the largest group.
        max_bits: Images whose hashes differ in at most this many bits are similar. None if only
            equal files are in one group.
        by_hash: Whether only a hash of the content decides between training and validation. If not,
            groups were chosen until about a fifth of the images was reached.
    """

    is_val: np.ndarray
    groups: int
    largest: int
    max_bits: int | None
    by_hash: bool

    def note(self) -> str:
        """Return how the images were split, in one line."""
        count, total = int(self.is_val.sum()), len(self.is_val)
        similar = (
            "equal files are on one side; their 64-bit difference hashes are too similar to tell "
            "scenes apart"
            if self.max_bits is None
            else f"images whose 64-bit difference hashes differ in at most {self.max_bits} bits "
            "are on one side"
        )
        rule = "by a hash of their content"
        if not self.by_hash:
            rule += f", adjusted to come near {100 * VAL_FRACTION:.0f} %"
        return (
            f"the data have no validation images, so {count:,} of {total:,} are split off {rule}: "
            f"{similar} ({self.groups:,} groups, the largest with {self.largest:,} images)"
        )


def split_images(paths: Sequence[Path]) -> ImageSplit:
    """Choose about a fifth of the images for validation.

    Similar images, such as neighboring frames of a video and the copies that Roboflow makes of one
    image, form a group. A hash of the group's content decides whether the whole group is for
    training or for validation. So added images move no earlier image, unless they join its group.

    Args:
        paths: The images.

    Raises:
        MixDetError: There are fewer than two different images.
    """
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        hashed = list(pool.map(_hashes, paths))
    digests = [digest for digest, _ in hashed]
    bits = np.array([row for _, row in hashed], bool).reshape(-1, 64)
    equal = _pairs_of_equal([*digests], [_source_name(path) for path in paths])
    groups, max_bits = _group(bits, equal)
    if groups.max(initial=-1) < 1:
        raise MixDetError(
            f"{len(paths)} images, all equal: training and validation need different images: add "
            "images"
        )
    position = _positions(groups, digests)
    is_val = position[groups] < VAL_FRACTION
    by_hash = VAL_FRACTION / 2 <= is_val.mean() <= VAL_FRACTION * 1.5
    if not by_hash:
        is_val = _nearest_to_fraction(groups, position)
    sizes = np.bincount(groups)
    return ImageSplit(is_val, len(sizes), int(sizes.max()), max_bits, by_hash)


def difference_hash(gray: np.ndarray) -> np.ndarray:
    """Return 64 bits that say where an image of 9 x 8 pixels is brighter than its left neighbor.

    Args:
        gray: (H, W) uint8.

    Returns:
        (64,) bool. Similar images differ in few bits.
    """
    small = cv2.resize(gray, (9, 8), interpolation=cv2.INTER_AREA)
    return (small[:, 1:] > small[:, :-1]).ravel()


def _hashes(path: Path) -> tuple[bytes, np.ndarray]:
    content = path.read_bytes()
    gray = decode(content, path, cv2.IMREAD_GRAYSCALE)
    bits = np.zeros(64, bool) if gray is None else difference_hash(gray)
    return hashlib.blake2b(content, digest_size=16).digest(), bits


def _source_name(path: Path) -> str | None:
    """Return the part of a name that Roboflow's copies share: `a_jpg` of `a_jpg.rf.0f3c.jpg`."""
    before, mark, _ = path.name.partition(".rf.")
    return before if mark else None


def _pairs_of_equal(*keys: Sequence) -> list[tuple[int, int]]:
    """Return pairs of indices that have an equal key. A key of None equals no other."""
    pairs = []
    for column in keys:
        first: dict = {}
        for index, key in enumerate(column):
            if key is not None:
                pairs.append((first.setdefault(key, index), index))
    return pairs


def _group(bits: np.ndarray, equal: list[tuple[int, int]]) -> tuple[np.ndarray, int | None]:
    """Return the group of each image, and the number of bits that similar images may differ in.

    Args:
        bits: (n, 64) difference hashes.
        equal: Pairs of images that are in one group in any case.
    """
    near = _near_pairs(bits, MAX_BITS[0])
    for max_bits in (*MAX_BITS, None):
        chosen = near[:0] if max_bits is None else near[near[:, 2] <= max_bits]
        pairs = np.concatenate([np.array(equal, int).reshape(-1, 2), chosen[:, :2]])
        graph = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=[len(bits)] * 2)
        _, groups = connected_components(graph, directed=False)
        if np.bincount(groups).max() <= max(1, len(bits) // 2):
            break
    return groups, max_bits


def _near_pairs(bits: np.ndarray, max_bits: int) -> np.ndarray:
    """Return (k, 3): the indices of two images, and the number of bits that they differ in."""
    signs = np.where(bits, 1, -1).astype(np.float32)
    near = [np.empty((0, 3), int)]
    for start in range(0, len(bits), CHUNK):
        distance = (bits.shape[1] - signs[start : start + CHUNK] @ signs.T) / 2
        rows, columns = np.nonzero(distance <= max_bits)
        later = columns > rows + start
        rows, columns = rows[later], columns[later]
        near.append(np.stack([rows + start, columns, distance[rows, columns].astype(int)], 1))
    return np.concatenate(near)


def _positions(groups: np.ndarray, digests: Sequence[bytes]) -> np.ndarray:
    """Return for each group a number from 0 to 1, computed from its lowest digest."""
    members = defaultdict(list)
    for group, digest in zip(groups.tolist(), digests, strict=True):
        members[group].append(digest)
    hashes = (
        hashlib.blake2b(min(members[group]), digest_size=8).digest() for group in sorted(members)
    )
    return np.array([int.from_bytes(value) / 2**64 for value in hashes])


def _nearest_to_fraction(groups: np.ndarray, position: np.ndarray) -> np.ndarray:
    """Choose groups in the order of their positions, up to a fifth of the images."""
    sizes, wanted = np.bincount(groups), max(1, round(VAL_FRACTION * len(groups)))
    chosen: list[int] = []
    for group in np.argsort(position, kind="stable").tolist():
        count = sizes[chosen].sum() if chosen else 0
        if count < wanted and (not chosen or count + sizes[group] <= 1.5 * wanted):
            chosen.append(group)
    if len(chosen) == 1 and sizes[chosen[0]] > 1.5 * wanted:
        chosen = [int(sizes.argmin())]
    return np.isin(groups, chosen)
