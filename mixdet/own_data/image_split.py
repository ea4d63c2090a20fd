"""Split images into training and validation. Near-duplicates are never in both."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from mixdet.errors import MixDetError
from mixdet.images import decode
from mixdet.images.near_duplicates import HEIGHT, WIDTH, near_duplicate_pairs, thumbnail

VAL_FRACTION = 0.2
BLOCKS = 10  # parts of a group of near-duplicates that has more than half of the images


@dataclass(frozen=True)
class ImageSplit:
    """Which images are for validation.

    Attributes:
        is_val: (n,) whether each image is for validation.
        groups: Number of groups of images that stay together.
        largest: Number of images of the largest group.
        by_content: Whether all near-duplicates are in one group. If not, the largest group had more
            than half of the images and was divided.
        by_hash: Whether only a hash of the content decides between training and validation. If not,
            groups were chosen until about a fifth of the images was reached.
    """

    is_val: np.ndarray
    groups: int
    largest: int
    by_content: bool
    by_hash: bool

    def note(self) -> str:
        """Return how the images were split, in one line."""
        count, total = int(self.is_val.sum()), len(self.is_val)
        together = (
            "near-duplicate images are on one side"
            if self.by_content
            else "most images are near-duplicates of each other, as from one camera. They are "
            f"divided into {BLOCKS} blocks in the order of their names, so the scores will be too "
            "high"
        )
        rule = "by a hash of their content"
        if not self.by_hash:
            rule += f", adjusted to come near {100 * VAL_FRACTION:.0f} %"
        return (
            f"the data have no validation images, so {count:,} of {total:,} are split off {rule}: "
            f"{together} ({self.groups:,} groups, the largest with {self.largest:,} images)"
        )


def split_images(paths: Sequence[Path]) -> ImageSplit:
    """Choose about a fifth of the images for validation.

    Near-duplicates, such as neighboring frames of a video, form a group. So do the copies that
    Roboflow makes of one image. A hash of the group's content decides whether the whole group is
    for training or for validation. So added images move no earlier image, unless they join its
    group. If a group has more than half of the images, as with a fixed camera, it is divided into
    blocks in the order of the names, such as the parts of a video.

    Args:
        paths: The images.

    Raises:
        MixDetError: There are fewer than two different images.
    """
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        contents = list(pool.map(_read, paths))
    digests = [digest for digest, _ in contents]
    thumbnails = np.array([image for _, image in contents]).reshape(-1, HEIGHT, WIDTH)
    equal = _pairs_of_equal([*digests], [_source_name(path) for path in paths])
    groups, by_content = _group(thumbnails, equal, paths)
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
    return ImageSplit(is_val, len(sizes), int(sizes.max()), by_content, by_hash)


def _read(path: Path) -> tuple[bytes, np.ndarray]:
    """Return a hash of the file and a thumbnail, which is black if the image is damaged."""
    content = path.read_bytes()
    image = decode(content, path)
    small = np.zeros((HEIGHT, WIDTH), np.uint8) if image is None else thumbnail(image)
    return hashlib.blake2b(content, digest_size=16).digest(), small


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


def _group(
    thumbnails: np.ndarray, equal: list[tuple[int, int]], paths: Sequence[Path]
) -> tuple[np.ndarray, bool]:
    """Return the group of each image, and whether all near-duplicates are in one group.

    Args:
        thumbnails: (n, 16, 18) uint8.
        equal: Pairs of images that are in one group in any case.
        paths: The images.
    """
    count = len(thumbnails)
    together = np.array(equal, int).reshape(-1, 2)
    near = near_duplicate_pairs(thumbnails)
    groups = _connected(np.concatenate([together, near]), count)
    sizes = np.bincount(groups)
    if sizes.max() <= max(1, count // 2):
        return groups, True
    largest = groups == sizes.argmax()
    members = sorted(np.flatnonzero(largest).tolist(), key=lambda index: paths[index])
    blocks = [np.stack([block[:-1], block[1:]], 1) for block in np.array_split(members, BLOCKS)]
    return _connected(np.concatenate([together, near[~largest[near[:, 0]]], *blocks]), count), False


def _connected(pairs: np.ndarray, count: int) -> np.ndarray:
    graph = coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=[count] * 2)
    return connected_components(graph, directed=False)[1]


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
        if count < wanted and count + sizes[group] <= max(1, 1.5 * wanted):
            chosen.append(group)
    if not chosen:  # every group is too large
        chosen = [int(sizes.argmin())]
    return np.isin(groups, chosen)
