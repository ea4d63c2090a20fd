"""Checks of the image files. Each file is read and decoded once."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from mixdet.data_check.data_problems import ERROR, WARNING, Example, Problem, problem_list
from mixdet.data_check.data_splits import Split
from mixdet.errors import MixDetError
from mixdet.images import decode_fully, read_image_file, resolve_inside
from mixdet.images.near_duplicates import thumbnail


@dataclass
class ImageFiles:
    """Facts about the image files of a split.

    Attributes:
        split: The split.
        broken: The reason why an image cannot be used, by path of the image.
        wrong_size: Images whose size differs from the size in the annotations. The keys are the
            paths of the images. The values state both sizes as text.
        paths_by_hash: Paths of the images that have the same content, by hash of the content.
        thumbnails: The thumbnail of each image that can be used, by path. See
            `mixdet.images.near_duplicates`.
    """

    split: Split
    broken: dict[str, str] = field(default_factory=dict)
    wrong_size: dict[str, str] = field(default_factory=dict)
    paths_by_hash: dict[bytes, list[str]] = field(default_factory=lambda: defaultdict(list))
    thumbnails: dict[str, np.ndarray] = field(default_factory=dict)


def read_image_files(split: Split) -> ImageFiles:
    """Read and decode every existing image of a split, with a progress bar.

    Missing images and names outside the data set's folder are left out. `check_file_names` reports
    them.
    """
    files = ImageFiles(split)
    sizes = {
        str(name): tuple(size)
        for name, size in zip(split.images.names, split.images.sizes.tolist(), strict=True)
        if name
    }

    def read(name: str) -> tuple[tuple[int, int], bytes, np.ndarray] | None:
        try:
            path = resolve_inside(split.root, name)
        except MixDetError:
            return None
        if not path.exists():
            return None
        content, _ = read_image_file(path, split.limits)
        image = decode_fully(path, content)
        digest = hashlib.blake2b(content, digest_size=16).digest()
        return (image.shape[1], image.shape[0]), digest, thumbnail(image)

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # decoders release the GIL
        tasks = {name: pool.submit(read, name) for name in sizes}
        progress = tqdm(tasks.items(), desc=f"{split.name} images", unit="img", leave=False)
        for name, task in progress:
            path = str(Path(split.root, name))
            try:
                facts = task.result()
            except MixDetError as error:
                files.broken[path] = str(error)
                continue
            if facts is None:
                continue
            size, digest, files.thumbnails[path] = facts
            files.paths_by_hash[digest].append(path)
            if size != sizes[name]:
                width, height = sizes[name]
                files.wrong_size[path] = f"{size[0]} x {size[1]}, stated {width:g} x {height:g}"
    return files


def check_image_files(files: ImageFiles) -> list[Problem]:
    """Report broken images, and images whose size differs from the size in the annotations."""
    problems = problem_list(
        "broken_images",
        ERROR if len(files.broken) == len(files.split.images) else WARNING,
        files.split.name,
        "images that cannot be used",
        len(files.broken),
        map(Example, files.broken.values()),
    )
    problems += problem_list(
        "images_of_another_size",
        WARNING,
        files.split.name,
        "images of another size than the annotations state; their boxes may be misplaced",
        len(files.wrong_size),
        (Example(f"{path}: {text}", path) for path, text in files.wrong_size.items()),
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
