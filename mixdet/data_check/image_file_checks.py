"""Checks of the image files. Each file is read and decoded once."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np
from tqdm import tqdm

from mixdet.data_check.data_problems import (
    ERROR,
    WARNING,
    Example,
    Problem,
    Tally,
    problem_list,
)
from mixdet.data_check.data_splits import Split
from mixdet.errors import MixDetError
from mixdet.images import decode_fully, read_image_file, resolve_inside
from mixdet.images.near_duplicates import thumbnail

T, R = TypeVar("T"), TypeVar("R")
WAITING_PER_WORKER = 8  # images


@dataclass
class ImageFiles:
    """Facts about the image files of a split.

    Attributes:
        split: The split.
        read: How many of `names` were read or found to be missing.
        broken: Images that cannot be used.
        wrong_size: Images whose size differs from the size in the annotations.
        paths_by_hash: Paths of the images that have the same content, by hash of the content.
        thumbnails: The thumbnail of each image that can be used, by path. See
            `mixdet.images.near_duplicates`.
    """

    split: Split
    read: int = 0
    broken: Tally = field(default_factory=Tally)
    wrong_size: Tally = field(default_factory=Tally)
    paths_by_hash: dict[bytes, list[str]] = field(default_factory=lambda: defaultdict(list))
    thumbnails: dict[str, np.ndarray] = field(default_factory=dict)

    @cached_property
    def names(self) -> dict[str, tuple[float, float]]:
        """The stated width and height of each image, by file name."""
        images = self.split.images
        pairs = zip(images.names, images.sizes.tolist(), strict=True)
        return {str(name): tuple(size) for name, size in pairs if name}


def read_image_files(files: ImageFiles, workers: int | None = None) -> None:
    """Read and decode every existing image of a split, with a progress bar.

    Missing images and names outside the data set's folder are left out. `check_file_names` reports
    them.

    Args:
        files: The facts, which grow with every image. So they are of use after Ctrl-C too.
        workers: Number of threads, by default one for each processor core. The libraries that
            decode images let other threads run meanwhile.
    """
    split = files.split

    def read(name: str) -> tuple[tuple[int, int], bytes, np.ndarray] | MixDetError | None:
        try:
            path = resolve_inside(split.root, name)
        except MixDetError:
            return None
        if not path.exists():
            return None
        try:
            content, _ = read_image_file(path, split.limits)
            image = decode_fully(path, content)
        except MixDetError as error:
            return error
        digest = hashlib.blake2b(content, digest_size=16).digest()
        return (image.shape[1], image.shape[0]), digest, thumbnail(image)

    results = _map_in_threads(read, files.names, workers or os.cpu_count() or 1)
    bar = tqdm(results, f"{split.name} images", len(files.names), unit="img", leave=False)
    for (name, stated), facts in zip(files.names.items(), bar, strict=True):
        files.read += 1
        path = str(Path(split.root, name))
        if facts is None:
            continue
        if isinstance(facts, MixDetError):
            files.broken.add(Example(str(facts)))
            continue
        size, digest, files.thumbnails[path] = facts
        files.paths_by_hash[digest].append(path)
        if size != stated:
            sides = f"{size[0]} x {size[1]}, stated {stated[0]:g} x {stated[1]:g}"
            files.wrong_size.add(Example(f"{path}: {sides}", path))


def _map_in_threads(function: Callable[[T], R], items: Iterable[T], workers: int) -> Iterator[R]:
    """Yield the result of a function for each item, in order. Few results wait at any time."""
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[R]] = deque()
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > WAITING_PER_WORKER * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def check_image_files(files: ImageFiles) -> list[Problem]:
    """Report broken images, and images whose size differs from the size in the annotations."""
    problems = problem_list(
        "broken_images",
        ERROR if files.broken.count == len(files.split.images) else WARNING,
        files.split.name,
        "images that cannot be used",
        files.broken.count,
        files.broken.examples,
    )
    problems += problem_list(
        "images_of_another_size",
        WARNING,
        files.split.name,
        "images of another size than the annotations state; their boxes may be misplaced",
        files.wrong_size.count,
        files.wrong_size.examples,
    )
    return problems


def check_shared_images(training: ImageFiles, other: ImageFiles) -> list[Problem]:
    """Report images of another split that equal a training image byte for byte."""
    pairs = [
        (training.paths_by_hash[digest][0], path)
        for digest, paths in other.paths_by_hash.items()
        if digest in training.paths_by_hash
        for path in paths
    ]
    return problem_list(
        "shared_images",
        WARNING,
        other.split.name,
        "images that are training images too; they make the scores too high",
        len(pairs),
        (Example(f"{path} equals {training_path}", path) for training_path, path in pairs),
    )
