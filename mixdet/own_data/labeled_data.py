"""What the readers of all formats return: images and boxes in COCO's format, by split."""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mixdet.errors import MixDetError
from mixdet.images import IMAGE_SUFFIXES, ImageFileError, ImageLimits, read_image_file

SPLIT_WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}


@dataclass
class Tally:
    """Counts of what was changed or left out, with the place of each kind's first case."""

    first: dict[str, str] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, what: str, where: str) -> None:
        """Count a case.

        Args:
            what: What happened, such as `boxes without an area`.
            where: The file, and the line if there is one.
        """
        self.first.setdefault(what, where)
        self.counts[what] = self.counts.get(what, 0) + 1

    def notes(self) -> list[str]:
        """Return a line for each kind of case."""
        counts = self.counts.items()
        return [f"{what}: {count:,} (first: {self.first[what]})" for what, count in counts]


@dataclass(frozen=True)
class Box:
    """A box as a reader finds it.

    Attributes:
        label: Index of the class.
        corners: (x1, y1, x2, y2) in pixels of the upright image, continuous: a box of the whole
            image is (0, 0, width, height).
        where: The file and the line, for messages.
        ignore: Whether the box is neither an object nor background, as VOC's `difficult`.
    """

    label: int
    corners: tuple[float, float, float, float]
    where: str
    ignore: bool = False


@dataclass
class LabeledData:
    """The images and boxes of a folder.

    Attributes:
        format: `COCO`, `YOLO` or `VOC`.
        source: The file or folder to name in messages about these data.
        classes: Names of the classes, in order.
        class_order: Where the order of `classes` comes from, such as `the order of data.yaml`.
        splits: The content of a COCO file for each of `train`, `val` and `test`. The key is `all`
            if the data have no split. A `file_name` is the path of an image file.
        tally: What was changed or left out.
        notes: Decisions about the whole data.
        ready: (annotation file, image folder) of each split, if training can use the given files.
    """

    format: str
    source: Path
    classes: list[str]
    class_order: str
    splits: dict[str, dict[str, Any]]
    tally: Tally = field(default_factory=Tally)
    notes: list[str] = field(default_factory=list)
    ready: dict[str, tuple[Path, Path]] | None = None


class CocoContent:
    """The content of a COCO file, to which a reader adds images.

    Args:
        classes: Names of the classes. Their ids start at 1.
        tally: Where changed and left out boxes are counted.
    """

    def __init__(self, classes: Sequence[str], tally: Tally) -> None:
        self.tally = tally
        self.content: dict[str, Any] = {
            "images": [],
            "annotations": [],
            "categories": [
                {"id": number, "name": name} for number, name in enumerate(classes, start=1)
            ],
        }

    def add(self, path: Path, size: tuple[int, int], boxes: Iterable[Box]) -> None:
        """Add an image and its boxes.

        Boxes are clipped to the image. Boxes without an area, wholly outside the image, or equal to
        an earlier box are left out and counted.

        Args:
            path: The image file.
            size: (width, height) in pixels of the upright image.
            boxes: The boxes.
        """
        images, annotations = self.content["images"], self.content["annotations"]
        width, height = size
        image_id = len(images) + 1
        images.append({"id": image_id, "file_name": str(path), "width": width, "height": height})
        seen = set()
        for box in boxes:
            x1, y1, x2, y2 = box.corners
            if not (x2 > x1 and y2 > y1):
                self.tally.add("boxes without an area, left out", box.where)
                continue
            inside = max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height))
            if not (inside[2] > inside[0] and inside[3] > inside[1]):
                self.tally.add("boxes wholly outside of their image, left out", box.where)
                continue
            if max(abs(a - b) for a, b in zip(inside, box.corners, strict=True)) >= 0.5:
                self.tally.add("boxes that extended beyond their image, clipped to it", box.where)
            x1, y1, x2, y2 = (round(value, 3) for value in inside)
            if (box.label, x1, y1, x2, y2) in seen:
                self.tally.add("boxes that repeated a box of their image, left out", box.where)
                continue
            seen.add((box.label, x1, y1, x2, y2))
            bbox = [x1, y1, round(x2 - x1, 3), round(y2 - y1, 3)]
            annotation = {
                "id": len(annotations) + 1,
                "image_id": image_id,
                "category_id": box.label + 1,
                "bbox": bbox,
                "area": bbox[2] * bbox[3],
                "iscrowd": 0,
            }
            if box.ignore:
                annotation["ignore"] = 1
            annotations.append(annotation)


def split_of_name(name: str) -> str | None:
    """Return the split that a name states, such as `val` for `instances_val2017`, or None."""
    words = re.findall(r"[a-z]+", name.lower())
    stated = {SPLIT_WORDS[word] for word in words if word in SPLIT_WORDS}
    return stated.pop() if len(stated) == 1 else None


def split_by_folder(paths: Iterable[Path], root: Path) -> dict[str, list[Path]]:
    """Sort images into splits by the names of their folders, such as `valid/images` or `val2017`.

    Args:
        paths: The images, below the root.
        root: The folder of the data.

    Returns:
        The images of each split, or all images under the key `all` if no folder states a split.

    Raises:
        MixDetError: Only some images are in the folder of a split.
    """
    splits: dict[str, list[Path]] = {}
    outside = []
    for path in paths:
        folders = path.parent.relative_to(root).parts
        stated = [split for split in map(split_of_name, folders) if split]
        if stated:
            splits.setdefault(stated[0], []).append(path)
        else:
            outside.append(path)
    if not splits:
        return {"all": outside}
    if outside:
        raise MixDetError(
            f"{outside[0]}: this image is in no folder of a split, but others are in "
            f"{' and '.join(splits)}: move it into one of these folders, or remove it"
        )
    return splits


def list_images(folder: Path) -> list[Path]:
    """Return the image files below a folder in the order of their paths, without hidden ones."""
    return [path for path in list_files(folder) if path.suffix.lower() in IMAGE_SUFFIXES]


def list_files(folder: Path, pattern: str = "*") -> list[Path]:
    """Return the files below a folder in the order of their paths, without hidden ones.

    Links to folders are followed once.
    """
    files, visited = [], set()
    for parent, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        folders[:] = [] if real in visited else sorted(n for n in folders if n[0] != ".")
        if real not in visited:
            files += [
                Path(parent, name) for name in fnmatch.filter(names, pattern) if name[0] != "."
            ]
        visited.add(real)
    return sorted(files)


def read_sizes(paths: Sequence[Path], tally: Tally) -> dict[Path, tuple[int, int]]:
    """Return (width, height) in pixels of each upright image.

    An image that cannot be used is left out and counted.
    """

    def size(path: Path) -> tuple[int, int] | ImageFileError:
        try:
            return read_image_file(path, ImageLimits())[1]
        except ImageFileError as error:
            return error

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = dict(zip(paths, pool.map(size, paths), strict=True))
    for error in results.values():
        if isinstance(error, ImageFileError):
            tally.add("images that cannot be used, left out", str(error))
    return {path: size for path, size in results.items() if not isinstance(size, ImageFileError)}


def read_text(path: Path) -> str:
    """Return the content of a text file in UTF-8, with or without a byte order mark.

    Raises:
        MixDetError: The file cannot be read, or is not in UTF-8.
    """
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise MixDetError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise MixDetError(f"{path}:{line}: not text in UTF-8: save the file as UTF-8") from error


def check_class_list(names: Sequence[str], where: str) -> list[str]:
    """Return the names of classes without spaces around them.

    Raises:
        MixDetError: There is no name, a name is empty or repeated, or a config cannot hold it.
    """
    names = [name.strip() for name in names]
    if not names:
        raise MixDetError(f"{where}: no class: list the names of the classes")
    for index, name in enumerate(names):
        if not name:
            raise MixDetError(f"{where}: class {index} has no name: give it one")
        if "{{" in name:  # mmengine replaces {{ ... }} in the text of a config
            raise MixDetError(f"{where}: the class {name!r} contains {{{{: rename it")
        if name in names[:index]:
            raise MixDetError(
                f"{where}: the class {name!r} is listed twice, as {names.index(name)} and {index}: "
                "rename one, or merge them"
            )
    return names


def alike_names(names: Sequence[str]) -> list[str]:
    """Return a note for each class whose name differs from another only by case, space, - or _."""
    notes, plain = [], {}
    for name in names:
        key = re.sub(r"[\s_-]+", "", name.lower())
        if key in plain:
            notes.append(f"the classes {plain[key]!r} and {name!r} have nearly the same name")
        plain[key] = name
    return notes
