"""Read YOLO's layout with `data.yaml`, Darknet's `obj.data` or `classes.txt`."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import yaml

from mixdet.errors import MixDetError, one_line
from mixdet.own_data.labeled_data import (
    SPLIT_WORDS,
    Box,
    CocoContent,
    LabeledData,
    Tally,
    check_class_list,
    list_files,
    list_images,
    read_sizes,
    read_text,
    split_by_folder,
)

# A coordinate of this value or more is most likely in pixels, not a fraction of the image's side.
MAX_FRACTION = 2.0
UNLABELED = "images without a label file, used as images without objects"


@dataclass
class YoloDescription:
    """The content of the file that names the classes.

    Attributes:
        file: The file.
        classes: The names in the order of their ids.
        base: The folder that the sources are relative to.
        sources: For each split, the entries that name its images, and their line in the file.
        has_keypoints: Whether the lines of labels have keypoints after the box.
    """

    file: Path
    classes: list[str]
    base: Path
    sources: dict[str, tuple[list[str], int]] = field(default_factory=dict)
    has_keypoints: bool = False


def find_yolo(root: Path) -> Path | None:
    """Return the file of a folder that names YOLO's classes, or None.

    Raises:
        MixDetError: Several files name different classes.
    """
    for pattern in ("*.y*ml", "*.data"):
        files = [file for file in sorted(root.glob(pattern)) if _names_classes(file)]
        named = [file for file in files if file.stem == "data"]
        if len(files) > 1 and len(named) != 1:
            listed = ", ".join(file.name for file in files)
            raise MixDetError(f"{root}: several files name classes ({listed}): name one as DATA")
        if files:
            return (named or files)[0]
    files = [file for pattern in ("classes.txt", "*.names") for file in list_files(root, pattern)]
    if len({read_text(file).strip() for file in files}) > 1:
        raise MixDetError(f"{files[0]} and {files[1]} name different classes: remove one of them")
    # Data of other formats have a classes.txt too.
    has_labels = files and any(_label_file(image).is_file() for image in list_images(root))
    return files[0] if has_labels else None


def read_yolo(file: Path, root: Path) -> LabeledData:
    """Read the images and labels of YOLO's layout.

    Polygons become the boxes around them. Keypoints, and a sixth number that some tools write as a
    confidence or the number of a track, are left out. An image without a label file is an image
    without objects, as in Ultralytics' training.

    Args:
        file: The file that names the classes.
        root: The folder of the data.

    Raises:
        MixDetError: A file is missing or malformed. The message states the file and the line.
    """
    described = _read_description(file, root)
    data = LabeledData("YOLO", file, described.classes, f"the order of {file.name}", {})
    if described.sources:
        paths = {
            split: sorted(set(_images_of(described, split, root, data)))
            for split in described.sources
        }
    else:
        paths = split_by_folder(list_images(root), root)
    paths = {split: images for split, images in paths.items() if images}
    if "train" not in paths and "all" not in paths:
        raise MixDetError(f"{file}: it names no training images: add `train: images/train`")
    all_images = sorted({image for images in paths.values() for image in images})
    labels = {image: _label_file(image) for image in all_images}
    _refuse_shared_labels(labels)
    if not any(label.is_file() for label in labels.values()):
        raise MixDetError(
            f"{labels[all_images[0]]}: no such label file, and none for the other "
            f"{len(all_images) - 1} images: put YOLO's labels into a folder `labels` beside the "
            "folder `images`, or beside the images"
        )
    sizes = read_sizes(all_images, data.tally)
    for split, images in paths.items():
        content = CocoContent(data.classes, data.tally)
        for image in images:
            if image in sizes:
                boxes = _read_labels(labels[image], sizes[image], described, data.tally)
                if not labels[image].is_file():
                    data.tally.add(UNLABELED, str(image))
                content.add(image, sizes[image], boxes)
        data.splits[split] = content.content
    _count_labels_without_image(labels, data.tally)
    return data


def _names_classes(file: Path) -> bool:
    """Tell whether a YAML or `.data` file describes YOLO data. A malformed data.yaml also does."""
    try:
        text = read_text(file)
        if file.suffix == ".data":
            return "names" in text
        content = yaml.load(text, Loader=yaml.BaseLoader)
    except (MixDetError, yaml.YAMLError):
        return file.stem == "data" and file.suffix != ".data"
    return isinstance(content, dict) and bool({"names", "nc"} & content.keys())


def _read_description(file: Path, root: Path) -> YoloDescription:
    if file.suffix in (".yaml", ".yml"):
        return _read_yaml(file)
    if file.suffix == ".data":
        return _read_darknet(file, root)
    names = [line for line in read_text(file).splitlines() if line.strip()]
    return YoloDescription(file, check_class_list(names, str(file)), root)


def _read_yaml(file: Path) -> YoloDescription:
    text = read_text(file)
    try:
        # Only BaseLoader leaves names such as `no`, `on` and `1.0` as they are written.
        content = yaml.load(text, Loader=yaml.BaseLoader)
        node = yaml.compose(text, Loader=yaml.BaseLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise MixDetError(f"{file}{line}: not a YAML file ({one_line(error)})") from error
    if not isinstance(content, dict):
        raise MixDetError(f"{file}: it has no `names`: list the names of the classes")
    lines = {key.value: key.start_mark.line + 1 for key, _ in node.value}
    where = f"{file}:{lines.get('names', lines.get('nc', 1))}"
    classes = check_class_list(_yaml_names(content, where), where)
    count = content.get("nc")
    if count not in (None, str(len(classes))):
        raise MixDetError(f"{file}:{lines['nc']}: nc is {count}, but `names` has {len(classes)}")
    base = Path(os.path.normpath(file.parent / str(content.get("path") or "")))
    described = YoloDescription(file, classes, base if base.is_dir() else file.parent)
    described.has_keypoints = "kpt_shape" in content
    for key, split in SPLIT_WORDS.items():
        value = content.get(key)
        if value:
            entries = value if isinstance(value, list) else [value]
            if not all(isinstance(entry, str) for entry in entries):
                raise MixDetError(f"{file}:{lines[key]}: {key} is neither a path nor a list")
            described.sources[split] = entries, lines[key]
    return described


def _yaml_names(content: dict, where: str) -> list[str]:
    names = content.get("names")
    if names is None and str(content.get("nc", "")).isdecimal():
        return [f"class_{index}" for index in range(int(content["nc"]))]
    if isinstance(names, dict):
        wanted = [str(index) for index in range(len(names))]
        if set(names) != set(wanted):
            raise MixDetError(
                f"{where}: the ids of `names` are {', '.join(names)}: number them from 0 to "
                f"{len(names) - 1}"
            )
        names = [names[index] for index in wanted]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise MixDetError(f"{where}: `names` is neither a list of names nor ids with names")
    return names


def _read_darknet(file: Path, root: Path) -> YoloDescription:
    """Read `obj.data`, whose lines are `names = obj.names` and `train = train.txt`."""
    values = {}
    for number, line in enumerate(read_text(file).splitlines(), start=1):
        key, equals, value = line.partition("=")
        if equals:
            values[key.strip()] = value.strip(), number
    written, number = values.get("names", ("", 1))
    names_file = _locate(written, [file.parent], root) if written else None
    if names_file is None:
        raise MixDetError(f"{file}:{number}: names = {written}: no such file")
    names = [line for line in read_text(names_file).splitlines() if line.strip()]
    described = YoloDescription(file, check_class_list(names, str(names_file)), file.parent)
    for key, split in SPLIT_WORDS.items():
        if values.get(key, ("", 0))[0]:
            described.sources[split] = [values[key][0]], values[key][1]
    return described


def _images_of(
    described: YoloDescription, split: str, root: Path, data: LabeledData
) -> Iterator[Path]:
    """Yield the images of a split. A test split whose folder is missing is left out."""
    entries, line = described.sources[split]
    for entry in entries:
        source = _locate(entry, [described.base, described.file.parent], root)
        if source is None and split == "test":  # Roboflow names one even if it exports no test data
            data.notes.append(f"{described.file}:{line}: {entry} does not exist: no test images")
        elif source is None:
            raise MixDetError(
                f"{described.file}:{line}: {entry} does not exist: correct the path"
                + ", or remove the line to split off validation images" * (split == "val")
            )
        elif source.is_dir():
            yield from list_images(source)
        else:
            yield from _listed_images(source, described.base, root)


def _listed_images(file: Path, base: Path, root: Path) -> Iterator[Path]:
    """Yield the images that a text file lists, one in each line."""
    for number, line in enumerate(read_text(file).splitlines(), start=1):
        if line.strip():
            image = _locate(line.strip(), [file.parent, base], root)
            if image is None or not image.is_file():
                raise MixDetError(f"{file}:{number}: {line.strip()}: no such image")
            yield image


def _locate(written: str, bases: list[Path], root: Path) -> Path | None:
    """Find the file or folder for a path that an export names.

    Exports name paths of another machine (`/content/data/train`), of another working folder
    (`../train/images`, Roboflow) or of an archive (`data/obj_train_data`, CVAT). So if the path
    does not exist, leading folders are left out, up to the first folder that names a split.
    """
    path = PurePosixPath(written.replace("\\", "/"))
    candidates = [base / path for base in (*bases, root)]
    parts = [part for part in path.parts if part not in ("..", path.anchor)]
    is_foreign = path.is_absolute() or ".." in path.parts
    for start in range(len(parts) if is_foreign else min(2, len(parts))):
        if any(part.lower() in SPLIT_WORDS for part in parts[:start]):
            break
        candidates += [base.joinpath(*parts[start:]) for base in (*bases, root)]
    existing = (Path(os.path.normpath(path)) for path in candidates if path.exists())
    return next(existing, None)


def _label_file(image: Path) -> Path:
    """Return the label file: in `labels` instead of the last `images`, or beside the image."""
    parts = list(image.with_suffix(".txt").parts)
    for index in range(len(parts) - 2, -1, -1):
        if parts[index].lower() == "images":
            parts[index] = "labels"
            label = Path(*parts)
            beside = image.with_suffix(".txt")
            return beside if beside.is_file() and not label.is_file() else label
    return image.with_suffix(".txt")


def _refuse_shared_labels(labels: dict[Path, Path]) -> None:
    images: dict[Path, Path] = {}
    for image, label in labels.items():
        if label in images:
            raise MixDetError(
                f"{images[label]} and {image} share the labels {label}: rename one of the images"
            )
        images[label] = image


def _count_labels_without_image(labels: dict[Path, Path], tally: Tally) -> None:
    used = set(labels.values())
    for folder in sorted({label.parent for label in used}):
        if folder.name == "images" or "labels" not in folder.parts:
            continue
        for file in sorted(folder.glob("*.txt")):
            if file not in used and file.name != "classes.txt":
                tally.add("label files without an image, left out", str(file))


def _read_labels(
    file: Path, size: tuple[int, int], described: YoloDescription, tally: Tally
) -> list[Box]:
    """Return the boxes of an image. `size` is (width, height) in pixels."""
    if not file.is_file():
        return []
    boxes = []
    for number, line in enumerate(read_text(file).splitlines(), start=1):
        if line.strip():
            boxes.append(_read_line(line, f"{file}:{number}", size, described, tally))
    return boxes


def _read_line(
    line: str, where: str, size: tuple[int, int], described: YoloDescription, tally: Tally
) -> Box:
    try:
        label, *values = map(float, line.split())
    except ValueError as error:
        raise MixDetError(f"{where}: {line.strip()!r} is not a line of numbers") from error
    classes = described.classes
    if not (label.is_integer() and 0 <= label < len(classes)):
        raise MixDetError(
            f"{where}: class id {line.split()[0]}, but {described.file} has the {len(classes)} "
            f"classes 0 to {len(classes) - 1}: correct the id, or add the class"
        )
    if described.has_keypoints and len(values) > 4:
        tally.add("boxes with keypoints, of which only the box is used", where)
        values = values[:4]
    for position, value in enumerate(values, start=2):
        if not (math.isfinite(value) and abs(value) < MAX_FRACTION):
            remedy = "divide pixels by the width and the height of the image"
            if len(values) > 5:
                remedy += ", or, if the lines have keypoints, state `kpt_shape` in data.yaml"
            raise MixDetError(
                f"{where}: number {position} is {line.split()[position - 1]}, which is no fraction "
                f"of the image size: {remedy}"
            )
    if len(values) == 5:
        tally.add("boxes with a sixth number (a confidence or a track), which is left out", where)
        values = values[:4]
    if len(values) == 4:
        x, y, width, height = values
        if width < 0 or height < 0:
            raise MixDetError(f"{where}: the width or the height is below 0")
        corners = x - width / 2, y - height / 2, x + width / 2, y + height / 2
    elif len(values) >= 6 and len(values) % 2 == 0:
        tally.add("polygons, replaced by the boxes around them", where)
        xs, ys = values[::2], values[1::2]
        corners = min(xs), min(ys), max(xs), max(ys)
    else:
        raise MixDetError(
            f"{where}: {len(values) + 1} numbers: give `class x y width height`, or a class and a "
            "polygon of at least 3 points"
        )
    return Box(
        int(label), tuple(a * b for a, b in zip(corners, (*size, *size), strict=True)), where
    )
