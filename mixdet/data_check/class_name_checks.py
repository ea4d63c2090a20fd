"""Checks of `metainfo.classes` in a config. They read no annotation file."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from mmengine.config import Config

from mixdet.config.data_paths import with_annotations
from mixdet.data_check.data_problems import ERROR, SPLIT_NAMES, Problem


def check_class_names(cfg: Config, loaders: tuple[str, ...]) -> list[Problem]:
    """Report data sets whose `metainfo.classes` is not a list of different names.

    mmdet accepts any value. If the value is a string, mmdet looks for each category name as a part
    of this string. A misspelled key such as `CLASSES` is ignored.

    Args:
        cfg: The config.
        loaders: Names of the data loaders to check.
    """
    problems = []
    for where, dataset in with_annotations(cfg, loaders):
        text = malformed_classes(dataset.get("metainfo"))
        if text:
            name = SPLIT_NAMES[where.partition(".")[0]]
            text = f"{where}.metainfo: {text}"
            problems.append(Problem("malformed_classes", ERROR, name, text, 1))
    return problems


def malformed_classes(metainfo) -> str | None:
    """Say what is wrong with the classes in a `metainfo`, and the remedy.

    Args:
        metainfo: The value of `metainfo` in the config of a data set. None is correct, since the
            data set's Python class then names the classes.

    Returns:
        One line, or None if nothing is wrong.
    """
    if metainfo is None:
        return None
    if not isinstance(metainfo, dict):
        return f"{metainfo!r} is no dict: write metainfo=dict(classes=(...))"
    if "classes" not in metainfo:
        similar = [key for key in metainfo if str(key).lower() in ("classes", "class", "names")]
        return f"{similar[0]} has no effect: name it classes" if similar else None
    classes = metainfo["classes"]
    if isinstance(classes, str):
        if "://" in classes or Path(classes).is_file():  # a file with a class name on each line
            return None
        return (
            f"classes={classes!r} is text, and no file has this name: write a tuple, with a comma "
            f"even after a single class: classes=({classes!r},)"
        )
    if not isinstance(classes, (list, tuple)):
        return f"classes is a {type(classes).__name__}, which has no order: write a tuple of names"
    wrong = [name for name in classes if not isinstance(name, str)]
    if wrong:
        return f"the class {wrong[0]!r} is not text: write every name in quotation marks"
    twice = [name for name, count in Counter(classes).items() if count > 1]
    return f"the class {twice[0]!r} occurs more than once: name it once" if twice else None
