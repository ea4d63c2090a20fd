"""What is wrong with the image files; each is read and decoded once."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from mixdet.data_check.problems import ERROR, WARNING, Example, Problem, problem
from mixdet.data_check.splits import Split
from mixdet.errors import MixDetError
from mixdet.images import decode_fully, read_image_file, resolve_inside


@dataclass
class Files:
    """What the files of a split are like.

    Attributes:
        split: The split.
        broken: Why an image cannot be used, by its path.
        resized: What was found in place of the stated size, by path.
        paths: Paths by a hash of their content.
    """

    split: Split
    broken: dict[str, str] = field(default_factory=dict)
    resized: dict[str, str] = field(default_factory=dict)
    paths: dict[bytes, list[str]] = field(default_factory=lambda: defaultdict(list))


def read_files(split: Split) -> Files:
    """Read and decode every image that `check_names` finds in order; show how far it is."""
    files = Files(split)
    stated = split.stated_sizes(split.images)
    images = {
        str(image["file_name"]): tuple(size)
        for image, size in zip(split.images, stated, strict=True)
        if image.get("file_name")
    }

    def read(name: str) -> tuple[tuple[int, int], bytes] | None:
        try:
            path = resolve_inside(split.root, name)
        except MixDetError:
            return None
        if not path.exists():
            return None
        content, size = read_image_file(path, split.limits)
        decode_fully(path, content)
        return size, hashlib.blake2b(content, digest_size=16).digest()

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # decoders release Python's lock
        tasks = {name: pool.submit(read, name) for name in images}
        shown = tqdm(tasks.items(), desc=f"{split.name} images", unit="img", leave=False)
        for name, task in shown:
            path = str(Path(split.root, name))
            try:
                found = task.result()
            except MixDetError as error:
                files.broken[path] = str(error)
                continue
            if found is None:
                continue
            size, digest = found
            files.paths[digest].append(path)
            if size != images[name]:
                width, height = images[name]
                files.resized[path] = f"{size[0]} x {size[1]}, stated {width:g} x {height:g}"
    return files


def check_files(files: Files) -> list[Problem]:
    """Broken images, and those of another size than stated."""
    found = problem(
        "broken_images",
        ERROR if len(files.broken) == len(files.split.images) else WARNING,
        files.split.name,
        "images that cannot be used",
        len(files.broken),
        map(Example, files.broken.values()),
    )
    found += problem(
        "images_of_another_size",
        WARNING,
        files.split.name,
        "images of another size than the annotations state, on which boxes may be misplaced",
        len(files.resized),
        (Example(f"{path}: {words}", path) for path, words in files.resized.items()),
    )
    return found


def check_shared(training: Files, other: Files) -> list[Problem]:
    """Images of training that another split has too, by their content whatever their name."""
    pairs = [
        (training.paths[digest][0], path)
        for digest, paths in other.paths.items()
        if digest in training.paths
        for path in paths
    ]
    return problem(
        "shared_images",
        WARNING,
        other.split.name,
        "images that are training data too, so that scores on them say little",
        len(pairs),
        (Example(f"{path} is {twin}", path) for twin, path in pairs),
    )
