"""What the entries of an annotation file say of each other: classes, ids, names of images."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

from mixdet.data_check.problems import ERROR, NOTE, WARNING, Example, Problem, problem
from mixdet.data_check.splits import Split
from mixdet.errors import MixDetError, did_you_mean
from mixdet.images import refuse_foreign_name, resolve_inside


def check_classes(split: Split) -> list[Problem]:
    """Classes of the config against categories of the file.

    mmdet takes the categories whose names the config has, in the file's order, and numbers them: a
    name that is missing, twice there, or elsewhere in the order shifts the labels without a word.
    """
    names = [category.get("name") for category in split.categories]
    if not split.classes:
        text = "the config names no classes: metainfo=dict(classes=(...)) in the data set"
        return problem("no_classes", ERROR, split.name, text, 1)
    missing = [name for name in split.classes if name not in names]
    unused = [name for name in names if name not in split.classes]
    twice = [name for name, times in Counter(names).items() if times > 1 and name in split.classes]
    found = problem(
        "missing_classes",
        ERROR,
        split.name,
        "classes of the config that the annotations lack, so that the labels after them shift",
        len(missing),
        (Example(_suggest(name, unused or names)) for name in missing),
    )
    found += problem(
        "category_names_twice",
        ERROR,
        split.name,
        "names that several categories of the annotations have, so that the labels shift",
        len(twice),
        map(Example, twice),
    )
    found += problem(
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
        found += problem(
            "classes_in_another_order",
            ERROR,
            split.name,
            "classes in another order than the annotations', so that they get each other's names: "
            "give them in the file's order",
            len(pairs),
            (Example(f"{a} would stand for {b}") for a, b in pairs),
        )
    return found + _without_examples(split)


def _without_examples(split: Split) -> list[Problem]:
    used = {split.name_of.get(annotation.get("category_id")) for annotation in split.annotations}
    empty = [name for name in split.classes if name not in used and name in split.name_of.values()]
    return problem(
        "classes_without_examples",
        WARNING if split.trains else NOTE,
        split.name,
        "classes without a single box",
        len(empty),
        map(Example, empty),
    )


def _suggest(name: str, others: list) -> str:
    hint = did_you_mean(name, map(str, others))
    return f"{name}, {hint}" if hint else name


def check_ids(split: Split) -> list[Problem]:
    """Ids that are not unique, missing fields, boxes of unknown images or categories."""
    found = []
    for kind, entries in (
        ("image", split.images),
        ("annotation", split.annotations),
        ("category", split.categories),
    ):
        times = Counter(entry.get("id") for entry in entries)
        twice = [number for number, count in times.items() if count > 1]
        found += problem(
            f"{kind}_ids_twice",
            ERROR,
            split.name,
            f"{kind} ids that several entries have",
            len(twice),
            (Example(f"{kind} id {number}") for number in twice),
        )
    for kind, fields, entries in (
        ("images", ("file_name", "width", "height"), split.images),
        ("annotations", ("image_id", "category_id", "bbox", "area"), split.annotations),
    ):
        bare = [entry for entry in entries if any(field not in entry for field in fields)]
        found += problem(
            f"incomplete_{kind}",
            ERROR,
            split.name,
            f"{kind} that lack one of {', '.join(fields)}",
            len(bare),
            (Example(f"id {entry.get('id')}") for entry in bare),
        )
    for code, key, known in (
        ("unknown_images", "image_id", split.image_of),
        ("unknown_categories", "category_id", split.name_of),
    ):
        lost = [entry for entry in split.annotations if entry.get(key) not in known]
        found += problem(
            code,
            WARNING,
            split.name,
            f"boxes whose {key} the file does not know, which are left out",
            len(lost),
            (Example(f"annotation {entry.get('id')}: {key} {entry.get(key)}") for entry in lost),
        )
    return found


def check_usable(split: Split) -> list[Problem]:
    """A file without images, or without a box of a class of the config."""
    if not split.images:
        return problem("no_images", ERROR, split.name, "no image in the annotations", 1)
    used = (split.name_of.get(annotation.get("category_id")) for annotation in split.annotations)
    if split.classes and not any(name in split.classes for name in used):
        text = "no box of any class of the config"
        return problem("no_boxes", ERROR, split.name, text, 1)
    return []


def check_names(split: Split) -> list[Problem]:
    """Names that lead out of the images' root, stand twice, or have no file; none is opened."""
    outside, missing = [], []
    folders: dict[str, dict[str, bool]] = {}
    for image in split.images:
        name = image.get("file_name")
        try:
            refuse_foreign_name(name, split.root or "")
            if split.root is not None and not _is_there(split.root, name, folders):
                missing.append(split.path(image))
        except MixDetError as error:
            outside.append(str(error))
    times = Counter(str(image.get("file_name")) for image in split.images)
    twice = [name for name, count in times.items() if count > 1]
    found = problem(
        "names_outside_the_root",
        ERROR,
        split.name,
        "images that do not lie under the data set's folder, which are refused",
        len(outside),
        map(Example, outside),
    )
    found += problem(
        "names_twice",
        WARNING,
        split.name,
        "file names that several images have",
        len(twice),
        map(Example, twice),
    )
    found += problem(
        "missing_images",
        ERROR if len(missing) == len(split.images) else WARNING,
        split.name,
        "images that are not there",
        len(missing),
        map(Example, missing),
    )
    return found


def _is_there(root: str, name: str, folders: dict[str, dict[str, bool]]) -> bool:
    """Look an image up in its folder's listing, which says for each entry if it is a link.

    Raises:
        MixDetError: It lies behind a link that leads out of the root.
    """
    folder, file = os.path.split(name)
    if folder not in folders:
        folders[folder] = _listing(resolve_inside(root, folder or "."))
    link = folders[folder].get(file)
    return resolve_inside(root, name).exists() if link else link is not None


def _listing(folder: Path) -> dict[str, bool]:
    """Names in a folder, and which are links; nothing where there is no such folder."""
    try:
        with os.scandir(folder) as entries:
            return {entry.name: entry.is_symlink() for entry in entries}
    except OSError:
        return {}
