"""Checks of an annotation file: classes, ids, and file names of the images."""

from __future__ import annotations

import os
from array import array
from collections import Counter
from pathlib import Path

import numpy as np

from mixdet.annotations.rules import is_id, unusable_ids
from mixdet.annotations.table import has_repeated
from mixdet.data_check.data_problems import ERROR, NOTE, WARNING, Example, Problem, problem_list
from mixdet.data_check.data_splits import Split
from mixdet.errors import MixDetError, did_you_mean
from mixdet.images import refuse_foreign_name, resolve_inside


def check_not_empty(split: Split) -> list[Problem]:
    """Report an annotation file that has no image, or no box of the config's classes.

    If the test data have no boxes, this is only a note: their images may be meant for prediction.
    """
    if not split.images:
        text = f"no image in {split.ann_file}: add images, or name another ann_file"
        return problem_list("no_images", ERROR, split.name, text, 1)
    if split.classes and not (split.labels >= 0).any():
        text = "no box of any class of the config; there is nothing to score"
        level = NOTE if split.name == "test" else ERROR
        return problem_list("no_boxes", level, split.name, text, 1)
    return []


def check_classes(split: Split) -> list[Problem]:
    """Compare the classes of the config with the categories of the annotation file.

    mmdet selects the categories whose names are classes of the config, and numbers them in the
    order of the file. The labels are wrong, and mmdet raises no error, if the file lacks a name of
    the config or has it twice, or if the config has another order.
    """
    names = split.category_names
    if not split.classes:
        text = "the config names no classes; add metainfo=dict(classes=(...)) to the data set"
        return problem_list("no_classes", ERROR, split.name, text, 1)
    missing = [name for name in split.classes if name not in names]
    unused = [name for name in names if name not in split.classes]
    counts = Counter(names)
    twice = [name for name, count in counts.items() if count > 1 and name in split.classes]
    problems = problem_list(
        "missing_classes",
        ERROR,
        split.name,
        "classes of the config that are not in the annotations; the labels would be wrong; "
        f"the file has {', '.join(names) or 'no categories'}",
        len(missing),
        (Example(_with_suggestion(name, unused or names)) for name in missing),
    )
    problems += problem_list(
        "category_names_twice",
        ERROR,
        split.name,
        "category names that occur more than once; the labels would be wrong",
        len(twice),
        map(Example, twice),
    )
    problems += problem_list(
        "unused_categories",
        NOTE,
        split.name,
        "categories of the annotations that the config leaves out",
        len(unused),
        map(Example, unused),
    )
    order = [name for name in names if name in split.classes]
    if not missing and not twice and order != list(split.classes):
        pairs = [(a, b) for a, b in zip(split.classes, order, strict=True) if a != b]
        problems += problem_list(
            "classes_in_another_order",
            ERROR,
            split.name,
            "classes that have another order in the config than in the annotations; list the "
            "classes in the order of the annotation file",
            len(pairs),
            (Example(f"boxes of {b} would get the label {a}") for a, b in pairs),
        )
    return problems + _classes_without_boxes(split)


def check_ids(split: Split) -> list[Problem]:
    """Find unusable ids, missing fields of images, and boxes of unknown images or categories."""
    problems = []
    table, images = split.table, split.images
    category_ids = [category.get("id") for category in table.categories]
    for kind, level, consequence, ids in (
        ("image", ERROR, "", images.ids),
        ("annotation", WARNING, "; they are numbered anew", table.ids),
        ("category", ERROR, "", category_ids),
    ):
        if isinstance(ids, array) and not has_repeated(ids) and min(ids, default=1) > 0:
            continue
        counts = Counter(ids)
        twice = [number for number, count in counts.items() if count > 1]
        problems += problem_list(
            f"{kind}_ids_twice",
            level,
            split.name,
            f"{kind} ids that occur more than once{consequence}",
            len(twice),
            (Example(f"{kind} id {number!r}") for number in twice),
        )
        if kind == "annotation":
            unusable = [number for number in unusable_ids(ids) if counts[number] == 1]
            level, wrong = NOTE, f"are not whole numbers above 0{consequence}"
        else:
            unusable = [number for number in counts if not is_id(number)]
            wrong = "are neither numbers nor text; training and evaluation refuse them"
        problems += problem_list(
            f"unusable_{kind}_ids",
            level,
            split.name,
            f"{kind} ids that {wrong}",
            len(unusable),
            (Example(f"{kind} id {number!r}") for number in unusable),
        )
    fields = {"file_name": images.names, "width": images.widths, "height": images.heights}
    incomplete = sorted(
        {
            image
            for values in fields.values()
            if isinstance(values, list)  # an array of whole numbers lacks none
            for image, value in enumerate(values)
            if value is None
        }
    )
    problems += problem_list(
        "incomplete_images",
        ERROR,
        split.name,
        f"images that lack one of {', '.join(fields)}",
        len(incomplete),
        (Example(f"id {images.ids[image]}") for image in incomplete),
    )
    for code, key, ids, found in (
        ("unknown_images", "image_id", table.image_ids, table.image),
        ("unknown_categories", "category_id", table.category_ids, table.category),
    ):
        unknown = np.flatnonzero(found < 0)
        problems += problem_list(
            code,
            WARNING,
            split.name,
            f"boxes whose {key} is not in the file; training and evaluation leave them out",
            len(unknown),
            (Example(f"annotation {table.ids[index]}: {key} {ids[index]!r}") for index in unknown),
        )
    return problems


def check_file_names(split: Split) -> list[Problem]:
    """Report file names that lead outside the data set's folder, occur twice, or do not exist.

    No image is opened.
    """
    outside, missing = [], []
    listings: dict[str, dict[str, bool]] = {}
    for image, name in enumerate(split.images.names):
        try:
            refuse_foreign_name(name, split.root or "")
            if split.root is not None and not _exists(split.root, name, listings):
                missing.append(split.path(image))
        except MixDetError as error:
            outside.append(str(error))
    counts = Counter(map(str, split.images.names))
    twice = [name for name, count in counts.items() if count > 1]
    problems = problem_list(
        "names_outside_the_root",
        ERROR,
        split.name,
        "images that are not inside the data set's folder; training refuses them",
        len(outside),
        map(Example, outside),
    )
    problems += problem_list(
        "names_twice",
        WARNING,
        split.name,
        "file names that occur more than once",
        len(twice),
        map(Example, twice),
    )
    problems += problem_list(
        "missing_images",
        ERROR if len(missing) == len(split.images) else WARNING,
        split.name,
        "image files that do not exist",
        len(missing),
        map(Example, missing),
    )
    return problems


def _classes_without_boxes(split: Split) -> list[Problem]:
    used = set(np.unique(split.labels).tolist())
    empty = [
        name
        for label, name in enumerate(split.classes)
        if label not in used and name in split.category_names
    ]
    return problem_list(
        "classes_without_examples",
        WARNING if split.is_training else NOTE,
        split.name,
        "classes without a single box",
        len(empty),
        map(Example, empty),
    )


def _with_suggestion(name: str, others: list) -> str:
    hint = did_you_mean(name, map(str, others))
    return f"{name}, {hint}" if hint else name


def _exists(root: str, name: str, listings: dict[str, dict[str, bool]]) -> bool:
    """Return whether an image is in the listing of its folder. Links are followed.

    Args:
        root: Folder of the data set.
        name: Path of the image relative to the root.
        listings: Listings by folder. If the listing of the image's folder is missing, it is added.

    Raises:
        MixDetError: The image is behind a link that leads outside the root.
    """
    folder, file = os.path.split(name)
    if folder not in listings:
        listings[folder] = _list_folder(resolve_inside(root, folder or "."))
    is_link = listings[folder].get(file)
    return resolve_inside(root, name).exists() if is_link else is_link is not None


def _list_folder(folder: Path) -> dict[str, bool]:
    """Return the names in a folder, and whether each is a link. A missing folder has no names."""
    try:
        with os.scandir(folder) as entries:
            return {entry.name: entry.is_symlink() for entry in entries}
    except OSError:
        return {}
