"""Find near-duplicate images: copies that were resized, recompressed, mirrored or cropped a little.

Every image is reduced to a gray thumbnail. Two images are near-duplicates if

- the 64-bit difference hashes (dHash) of their thumbnails differ in at most `MAX_BITS` bits, and
- the edges of their thumbnails correlate by at least `MIN_CORRELATION`. An edge is the difference
  of two neighboring pixels, to the right and downward. Smooth shading is subtracted first.

The hash is not sufficient. In a region of nearly one gray value, its bits depend on noise or are
all 0. So images that have only a uniform or dark background in common have similar hashes. An image
of nearly one gray value (see `MIN_CONTRAST`) is called plain and has no near-duplicates.

The search does not compare every image with every other. It divides a hash into four bands of 16
bits. If two hashes differ in at most 11 bits, at least one band differs in at most two bits. So the
search looks up each band with every choice of at most two flipped bits. A lookup compares an image
with at most `WINDOW` images. An image with `ENOUGH` near-duplicates is not looked up any more. The
time therefore grows about linearly with the number of images, even if all of them are alike.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import cv2
import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

HEIGHT, WIDTH = 16, 18  # twice the grid of 8 x 9 cells that dHash compares
# Chosen on four sets of real images that are split by scene: the hash alone finds pairs across each
# split, and these limits find none. tests/images/test_near_duplicates.py also states which part of
# changed copies is found there.
MAX_BITS = 11
MIN_CORRELATION = 0.7
MIN_CONTRAST = 3.0  # standard deviation of the gray values (0 to 255) of an image that is not plain
WINDOW = 64
ENOUGH = 32
BANDS, BAND_BITS = 4, 16
# The bits that a lookup flips in a band: all 16-bit numbers with at most two bits set, 0 first
FLIPS = [sum(1 << bit for bit in bits) for n in range(3) for bits in combinations(range(16), n)]
BIT_COUNTS = np.array([number.bit_count() for number in range(1 << 16)], np.uint8)
HASHES_AT_ONCE, EDGES_AT_ONCE = 1 << 18, 1 << 13  # comparisons


def thumbnail(image: np.ndarray) -> np.ndarray:
    """Reduce an image to the thumbnail that the search compares.

    Args:
        image: (H, W, 3) uint8, BGR or RGB, or (H, W) uint8.

    Returns:
        (16, 18) uint8, gray. The other functions take the stacked thumbnails of all images.
    """
    small = cv2.resize(image, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
    return small if small.ndim == 2 else cv2.cvtColor(small, cv2.COLOR_BGR2GRAY)


def near_duplicate_pairs(thumbnails: np.ndarray) -> np.ndarray:
    """Find near-duplicates within a set of images.

    Args:
        thumbnails: (N, 16, 18) uint8, see `thumbnail`.

    Returns:
        (P, 2) int64, pairs of indices with the lower one first, sorted. In a group of more than
        about 30 images not every pair is listed.
    """
    pairs = [
        _search(images, thumbnails, ENOUGH, within=True)
        for images in (thumbnails, _mirrored(thumbnails))
    ]
    return np.unique(np.sort(np.concatenate(pairs), axis=1), axis=0)


def near_duplicates_in(thumbnails: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Find a near-duplicate for each image of a set in another set, such as the training images.

    Args:
        thumbnails: (N, 16, 18) uint8, see `thumbnail`.
        others: (M, 16, 18) uint8.

    Returns:
        (N,) int64. The index in `others` of a near-duplicate of each image, or -1 if it has none.
    """
    neighbors = np.full(len(thumbnails), -1)
    for images in (_mirrored(thumbnails), thumbnails):
        pairs = _search(images, others, enough=1)
        neighbors[pairs[::-1, 0]] = pairs[::-1, 1]  # the first pair of an image is its nearest one
    return neighbors


def near_duplicate_groups(thumbnails: np.ndarray) -> np.ndarray:
    """Return the group of each image. Near-duplicates, and their near-duplicates, are in one group.

    Args:
        thumbnails: (N, 16, 18) uint8, see `thumbnail`.

    Returns:
        (N,) int32, numbers of groups. An image without a near-duplicate is the only one of a group.
    """
    pairs = near_duplicate_pairs(thumbnails)
    shape = (len(thumbnails), len(thumbnails))
    graph = coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=shape)
    return connected_components(graph, directed=False)[1]


def difference_hashes(thumbnails: np.ndarray) -> np.ndarray:
    """Return the dHash of thumbnails (N, 16, 18) as (N,) uint64.

    A bit says whether a cell of the 8 x 9 grid is darker than its right neighbor. The first bit
    belongs to the upper left cell.
    """
    cells = thumbnails.reshape(-1, HEIGHT // 2, 2, WIDTH // 2, 2).sum((2, 4), dtype=np.int32)
    bits = (cells[:, :, :-1] < cells[:, :, 1:]).reshape(-1, 64)
    return np.packbits(bits, axis=1).view(">u8").astype(np.uint64).reshape(-1)


def _search(
    thumbnails: np.ndarray, others: np.ndarray, enough: int, within: bool = False
) -> np.ndarray:
    """Return pairs (P, 2) of indices of near-duplicates, the nearest hashes of an image first.

    Args:
        thumbnails: (N, 16, 18).
        others: (M, 16, 18).
        enough: An image with this many near-duplicates is not looked up any more.
        within: Whether both sets are the same. An image is then not compared with itself.
    """
    hashes, other_hashes = difference_hashes(thumbnails), difference_hashes(others)
    edges, other_edges = _edges(thumbnails), _edges(others)
    searched, known = (np.flatnonzero(~_is_plain(images)) for images in (thumbnails, others))
    counts = np.zeros(len(thumbnails), int)
    bands = [_Band(other_hashes, known, band) for band in range(BANDS)]
    all_pairs = [np.empty((0, 2), np.int64)]
    for flip in FLIPS:
        for band in bands:
            active = searched[counts[searched] < enough]
            for first, second in band.look_up(hashes, active, flip):
                if within:
                    first, second = (part[first != second] for part in (first, second))
                distance = _count_bits(hashes[first] ^ other_hashes[second])
                order = np.argsort(distance, kind="stable")
                order = order[: np.searchsorted(distance[order], MAX_BITS, side="right")]
                first, second = first[order], second[order]
                similar = _correlations(edges, other_edges, first, second) >= MIN_CORRELATION
                pairs = np.stack([first[similar], second[similar]], axis=1)
                np.add.at(counts, pairs[:, 0], 1)
                all_pairs.append(pairs)
    return np.concatenate(all_pairs)


class _Band:
    """The images, sorted by one band of their hashes and then by the other bands.

    Args:
        hashes: (M,) uint64.
        indices: The images to look up.
        band: The number of the band.
    """

    def __init__(self, hashes: np.ndarray, indices: np.ndarray, band: int) -> None:
        self.shift = np.uint64(band * BAND_BITS)
        keys = self._keys(hashes[indices])
        order = np.argsort(keys, kind="stable")
        self.indices, self.keys = indices[order], keys[order]
        prefixes = (self.keys >> np.uint64(64 - BAND_BITS)).astype(np.int64)
        sizes = np.bincount(prefixes, minlength=1 << BAND_BITS)
        self.starts = np.concatenate([[0], sizes.cumsum()])

    def _keys(self, hashes: np.ndarray) -> np.ndarray:
        """Rotate hashes so that the band comes first."""
        shift = self.shift
        return hashes if not shift else (hashes << shift) | (hashes >> (np.uint64(64) - shift))

    def look_up(
        self, hashes: np.ndarray, queries: np.ndarray, flip: int
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield indices of queries and of images. Their bands differ in the bits of `flip` only.

        If a query has more than `WINDOW` such images, those with the nearest keys are taken.
        """
        keys = self._keys(hashes[queries]) ^ np.uint64(flip << (64 - BAND_BITS))
        prefixes = (keys >> np.uint64(64 - BAND_BITS)).astype(np.int64)
        starts, ends = self.starts[prefixes], self.starts[prefixes + 1]
        full = np.flatnonzero(ends - starts > WINDOW)
        middle = np.searchsorted(self.keys, keys[full]) - WINDOW // 2
        starts[full] = np.clip(middle, starts[full], ends[full] - WINDOW)
        ends[full] = starts[full] + WINDOW
        some = np.flatnonzero(ends > starts)
        parts = -(-int((ends - starts).sum()) // HASHES_AT_ONCE)
        for part in np.array_split(some, parts) if parts else ():
            sizes = ends[part] - starts[part]
            offsets = np.arange(sizes.sum()) - np.repeat(sizes.cumsum() - sizes, sizes)
            yield (
                np.repeat(queries[part], sizes),
                self.indices[np.repeat(starts[part], sizes) + offsets],
            )


def _is_plain(thumbnails: np.ndarray) -> np.ndarray:
    return thumbnails.reshape(len(thumbnails), -1).std(1) < MIN_CONTRAST


def _count_bits(numbers: np.ndarray) -> np.ndarray:
    """Return the number of set bits of uint64 numbers."""
    return BIT_COUNTS[numbers.view(np.uint16).reshape(-1, BANDS)].sum(1)


def _edges(thumbnails: np.ndarray) -> np.ndarray:
    """Return the edges of thumbnails, (N, 558) float16, with mean 0 and length 1.

    First, a quadratic function of the position is subtracted. It approximates the shading by a lens
    or a lamp, which is the same in all images of a camera.
    """
    y, x = np.mgrid[-1 : 1 : HEIGHT * 1j, -1 : 1 : WIDTH * 1j]
    functions = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y]).reshape(6, -1)
    basis = np.linalg.qr(functions.T)[0].astype(np.float32)
    edges = np.empty((len(thumbnails), (HEIGHT - 1) * WIDTH + HEIGHT * (WIDTH - 1)), np.float16)
    for start in range(0, len(thumbnails), EDGES_AT_ONCE):
        chunk = slice(start, start + EDGES_AT_ONCE)
        images = thumbnails[chunk].reshape(-1, HEIGHT * WIDTH).astype(np.float32)
        images = (images - images @ basis @ basis.T).reshape(-1, HEIGHT, WIDTH)
        parts = [np.diff(images, axis=axis).reshape(len(images), -1) for axis in (1, 2)]
        rows = np.concatenate(parts, axis=1)
        rows -= rows.mean(1, keepdims=True)
        edges[chunk] = rows / np.linalg.norm(rows, axis=1, keepdims=True).clip(1e-6)
    return edges


def _correlations(
    edges: np.ndarray, other_edges: np.ndarray, first: np.ndarray, second: np.ndarray
) -> np.ndarray:
    """Return the Pearson correlation of the edges of each pair (P,) of indices."""
    parts = max(1, -(-len(first) // EDGES_AT_ONCE))
    pairs = zip(np.array_split(first, parts), np.array_split(second, parts), strict=True)
    return np.concatenate(
        [
            np.einsum("pe,pe->p", edges[a].astype(np.float32), other_edges[b].astype(np.float32))
            for a, b in pairs
        ]
    )


def _mirrored(thumbnails: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(thumbnails[:, :, ::-1])
