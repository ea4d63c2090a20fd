"""Checks for images that show the same scene: near-duplicates of each other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from mixdet.data_check.data_problems import NOTE, WARNING, Example, Problem, problem_list
from mixdet.data_check.image_file_checks import ImageFiles
from mixdet.images.near_duplicates import near_duplicate_groups, near_duplicates_in

SAMPLE = 32  # smallest number of images that are compared with the rest of a large set


def check_near_duplicates(training: ImageFiles, other: ImageFiles) -> list[Problem]:
    """Report images of another split that are near-duplicates of training images.

    Images that equal a training image byte for byte are left out, since `check_shared_images`
    reports them.
    """
    equal = {
        path
        for digest, paths in other.paths_by_hash.items()
        if digest in training.paths_by_hash
        for path in paths
    }
    paths = [path for path in other.thumbnails if path not in equal]
    if not paths or not training.thumbnails:
        return []
    training_paths = list(training.thumbnails)
    nearest = near_duplicates_in(
        np.stack([other.thumbnails[path] for path in paths]),
        np.stack(list(training.thumbnails.values())),
    )
    pairs = [
        (path, training_paths[index])
        for path, index in zip(paths, nearest, strict=True)
        if index >= 0
    ]
    return problem_list(
        "near_duplicate_images",
        WARNING,
        other.split.name,
        "images that are near-duplicates of training images, such as resized or recompressed "
        "copies, or neighboring frames of a video; they make the scores too high: move each with "
        "its near-duplicates to one side of the split",
        len(pairs),
        (Example(f"{path} is nearly {training_path}", path) for path, training_path in pairs),
    )


def check_single_scenes(all_files: Sequence[ImageFiles]) -> list[Problem]:
    """Report classes whose objects are all in one image or in near-duplicates of it.

    Args:
        all_files: The image files of all splits that a detector is trained on, or those of one
            other split.
    """
    thumbnails = {
        path: thumbnail for files in all_files for path, thumbnail in files.thumbnails.items()
    }
    images: dict[str, dict[str, np.ndarray]] = {}
    for files in all_files:
        for name, path in _objects(files):
            if path in thumbnails:
                images.setdefault(name, {})[path] = thumbnails[path]
    single = {
        name: list(shown)
        for name, shown in images.items()
        if _is_one_scene(np.stack(list(shown.values())))
    }
    if not single:
        return []
    is_training = all_files[0].split.is_training
    consequence = (
        "a detector learns the scene in place of the object: add images of other scenes"
        if is_training
        else "the AP of these classes says little: add images of other scenes"
    )
    return problem_list(
        "classes_of_one_scene",
        WARNING if is_training else NOTE,
        all_files[0].split.name,
        "classes whose objects are all in one scene, which is one image or its near-duplicates; "
        + consequence,
        len(single),
        (
            Example(
                f"{name}: {len(shown)} image{'s' * (len(shown) > 1)}, such as {shown[0]}", shown[0]
            )
            for name, shown in single.items()
        ),
    )


def _is_one_scene(thumbnails: np.ndarray) -> bool:
    """Tell whether thumbnails (n, 16, 18) are one group, in which near-duplicates link all images.

    In a large set, a sample is first compared with the rest. If an image of the sample has no
    near-duplicate in the rest, the answer is no, without the slow grouping.
    """
    count = len(thumbnails)
    if count >= 2 * SAMPLE:  # otherwise the rest may be empty
        chosen = np.zeros(count, bool)
        chosen[:: count // SAMPLE] = True
        if (near_duplicates_in(thumbnails[chosen], thumbnails[~chosen]) < 0).any():
            return False
    return len(np.unique(near_duplicate_groups(thumbnails))) == 1


def _objects(files: ImageFiles) -> Iterator[tuple[str, str]]:
    """Yield the name of each class and the path of each image that has an object of it."""
    split = files.split
    objects = np.flatnonzero((split.labels >= 0) & (split.table.image >= 0) & ~split.crowd)
    pairs = np.unique(np.stack([split.labels[objects], split.table.image[objects]]), axis=1)
    for label, image in pairs.T.tolist():
        path = split.path(image)
        if path is not None:
            yield split.classes[label], path
