"""Read PASCAL VOC's layout: XML files with ImageSets, or XML files beside the images."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path, PurePath
from xml.etree.ElementTree import Element

from mixdet.errors import MixDetError
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
    split_of_name,
)
from mixdet.own_data.xml_lines import LINE, parse_with_lines

FLAGS = {"0": False, "false": False, "unspecified": False, "1": True, "true": True}
MAX_FRACTIONS = 0.01  # if more boxes have a fraction, coordinates are continuous
SPLITS_OF_LISTS = ("train", "val", "trainval", "test")  # other lists are of the images of a class


@dataclass(frozen=True)
class VocObject:
    """An object of an XML file: its class, the four numbers of its box, and its place in the file.

    `difficult` is VOC's flag for an object that is ignored.
    """

    name: str
    numbers: tuple[float, float, float, float]
    difficult: bool
    where: str


@dataclass(eq=False)
class VocFile:
    """An XML file and its image."""

    path: Path
    image: Path
    objects: list[VocObject]
    stated_size: tuple[int, int]
    size_line: str


def find_voc(root: Path) -> Path | None:
    """Return the first XML file of a folder that annotates an image as VOC does, or None.

    If no file does, return the first malformed XML file, which `read_voc` refuses.
    """
    malformed = None
    for file in list_files(root, "*.xml"):
        try:
            if parse_with_lines(file).tag == "annotation":
                return file
        except MixDetError:
            malformed = malformed or file
    return malformed


def read_voc(root: Path, first_pixel: int | None = None) -> LabeledData:
    """Read the images and objects of VOC's layout.

    VOC counts pixels from 1, and a box includes its last pixel. Many tools write VOC's files with
    continuous coordinates from 0. `first_pixel=None` takes VOC's definition, unless an `xmin` or
    `ymin` in the data is at least 0 and below 1, or more than 1 % of the boxes have a coordinate
    with a fraction.

    An image without an XML file is left out, since a tool that writes XML files writes one for each
    image that a person has looked at.

    Args:
        root: The folder of the data.
        first_pixel: 1 or 0, the number of the first pixel. None decides by the coordinates.

    Raises:
        MixDetError: A file is missing or malformed. The message states the file and the line.
    """
    tally = Tally()
    folder = _annotation_folder(root)
    # The images are beside the folder of the annotations in VOC's own layout.
    base = folder.parent if folder else root
    xml_files = list_files(folder or root, "*.xml")
    files = list(_read_files(xml_files, base, tally))
    classes = sorted({obj.name for file in files for obj in file.objects})
    if not classes:
        raise MixDetError(f"{root}: the XML files have no <object>: label some objects")
    data = LabeledData(
        "VOC", root, classes, "alphabetical order, since VOC lists no classes", {}, tally
    )
    check_class_list(classes, str(root))
    if first_pixel is None:
        first_pixel, note = _guess_first_pixel(files)
        data.notes.append(note)
    sizes = read_sizes([file.image for file in files], tally)
    for file in files:
        if file.image in sizes:
            _check_size(file, sizes[file.image])
    for split, members in _splits(files, folder, base, data).items():
        content = CocoContent(classes, tally)
        for file in members:
            if file.image in sizes:
                boxes = (_box(obj, classes, first_pixel) for obj in file.objects)
                content.add(file.image, sizes[file.image], boxes)
        data.splits[split] = content.content
    for obj in (obj for file in files for obj in file.objects):
        if obj.difficult:
            what = 'objects marked `difficult`, neither objects nor background ("ignore": 1)'
            tally.add(what, obj.where)
    with_xml = {file.image for file in files}
    for image in list_images(base):
        if image not in with_xml:
            tally.add("images without an XML file, left out", str(image))
    return data


def _annotation_folder(root: Path) -> Path | None:
    """Return the folder `Annotations`, or None if the XML files are elsewhere.

    Raises:
        MixDetError: There are several such folders, as in VOCdevkit with VOC2007 and VOC2012.
    """
    if root.name.lower() == "annotations":
        return root
    folders = {
        parent
        for file in list_files(root, "*.xml")
        for parent in file.relative_to(root).parents
        if parent.name.lower() == "annotations"
    }
    if len(folders) > 1 and all(split_of_name(str(folder.parent.name)) for folder in folders):
        return None  # train/annotations, valid/annotations
    if len(folders) > 1:
        first, second = sorted(map(str, folders))[:2]
        raise MixDetError(f"{root}: it has {first} and {second}: name the folder of one of them")
    return root / folders.pop() if folders else None


def _read_files(files: Sequence[Path], base: Path, tally: Tally) -> Iterator[VocFile]:
    """Read the XML files and find the image of each.

    The name of the XML file decides, since `<filename>` is often outdated. If `<filename>` is
    another existing image, the file is counted.

    Args:
        files: The XML files.
        base: The folder of their images, which may be in subfolders.
        tally: Where files are counted that are not in VOC's format or state another image.
    """
    by_stem, by_name, owners = defaultdict(list), defaultdict(list), {}
    for image in list_images(base):
        by_stem[image.stem].append(image)
        by_name[image.name].append(image)
    for path in files:
        root = parse_with_lines(path)
        if root.tag != "annotation":
            tally.add("XML files that annotate no image in VOC's format, left out", str(path))
            continue
        name = root.find("filename")
        written = PurePath((_text(name)).replace("\\", "/")).name
        candidates = by_stem[path.stem] or by_name[path.stem] or by_name[written]
        image = _nearest(path, candidates, written)
        if image is None:
            where = f"{path}:{(root if name is None else name).get(LINE)}"
            raise MixDetError(
                f"{where}: no image {written or path.stem} in {base}: add the image, or remove "
                "the XML file"
            )
        if image in owners:
            raise MixDetError(f"{owners[image]} and {path} annotate {image}: remove one of them")
        owners[image] = path
        stated = by_name[written] or by_stem[written] or by_stem[PurePath(written).stem]
        if stated and image not in stated:
            what = (
                "XML files with another existing image as <filename>, read for that of their name"
            )
            tally.add(what, f"{path}:{name.get(LINE)}")
        yield _read_file(path, image, root)


def _nearest(path: Path, candidates: Sequence[Path], written: str) -> Path | None:
    """Return the candidate whose folder is most similar to the folder of the XML file.

    So `train/x.xml` belongs to `train/x.jpg`, and `Annotations/a/x.xml` to `JPEGImages/a/x.jpg`.

    Raises:
        MixDetError: Two candidates fit equally well.
    """

    def likeness(image: Path) -> tuple[int, int, bool]:
        xml_folders, image_folders = path.parent.parts, image.parent.parts
        return (
            _equal_parts(xml_folders, image_folders),
            _equal_parts(xml_folders[::-1], image_folders[::-1]),
            image.name == written,
        )

    ranked = sorted(candidates, key=likeness, reverse=True)
    if len(ranked) > 1 and likeness(ranked[0]) == likeness(ranked[1]):
        raise MixDetError(
            f"{path}: {ranked[0]} and {ranked[1]} could be its image: rename one of them"
        )
    return ranked[0] if ranked else None


def _equal_parts(first: Sequence[str], second: Sequence[str]) -> int:
    """Return how many parts two paths have in common, from the first one on."""
    pairs = zip(first, second, strict=False)
    return len(list(takewhile(lambda pair: pair[0] == pair[1], pairs)))


def _read_file(path: Path, image: Path, root: Element) -> VocFile:
    size = root.find("size")
    where = f"{path}:{(root if size is None else size).get(LINE)}"
    stated = (0, 0)
    if size is not None:
        stated = tuple(int(_number(size, key, path, optional=True)) for key in ("width", "height"))
    return VocFile(
        path, image, [_read_object(e, path) for e in root.findall("object")], stated, where
    )


def _read_object(element: Element, path: Path) -> VocObject:
    where = f"{path}:{element.get(LINE)}"
    name = _text(element.find("name"))
    if not name:
        raise MixDetError(f"{where}: the object has no <name>")
    box = element.find("bndbox")
    if box is None:
        raise MixDetError(f"{where}: the object {name} has no <bndbox>: give it one, or remove it")
    numbers = tuple(_number(box, key, path) for key in ("xmin", "ymin", "xmax", "ymax"))
    difficult = element.find("difficult")
    flag = _text(difficult).lower() or "0"
    if flag not in FLAGS:
        raise MixDetError(f"{path}:{difficult.get(LINE)}: <difficult> is {flag}: give 0 or 1")
    return VocObject(name, numbers, FLAGS[flag], f"{path}:{box.get(LINE)}")


def _text(element: Element | None) -> str:
    return "" if element is None else (element.text or "").strip()


def _number(element: Element, key: str, path: Path, optional: bool = False) -> float:
    child = element.find(key)
    text = _text(child)
    if optional and not text:
        return 0.0
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        line = (element if child is None else child).get(LINE)
        raise MixDetError(f"{path}:{line}: <{key}> is {text or 'missing'}: give a number of pixels")
    return number


def _guess_first_pixel(files: Sequence[VocFile]) -> tuple[int, str]:
    """Return the number of the first pixel, and a note that says why.

    A few boxes with fractions decide nothing: VOC2012, which counts from 1, has some.
    """
    objects = [obj for file in files for obj in file.objects]
    zeros = [obj for obj in objects if any(0 <= value < 1 for value in obj.numbers[:2])]
    fractions = [obj for obj in objects if not all(value.is_integer() for value in obj.numbers)]
    if zeros or len(fractions) > MAX_FRACTIONS * len(objects):
        where = (zeros or fractions)[0].where
        reason = "a coordinate below 1" if zeros else "a coordinate with a fraction"
        return 0, (
            f"coordinates are taken as continuous from 0, since {where} has {reason}; "
            "--first-pixel 1 takes VOC's definition"
        )
    few = ""
    if fractions:
        few = f", and only {len(fractions):,} of {len(objects):,} boxes have a fraction"
    return 1, (
        "pixels are counted from 1 and boxes include their last pixel, as VOC defines (no "
        f"coordinate is below 1{few}); if your tool counts from 0, give --first-pixel 0"
    )


def _box(obj: VocObject, classes: list[str], first_pixel: int) -> Box:
    x1, y1, x2, y2 = obj.numbers
    # A box with equal corners counts as a box without an area, though VOC defines it as one pixel.
    if x2 > x1 and y2 > y1:
        x1, y1 = x1 - first_pixel, y1 - first_pixel
    return Box(classes.index(obj.name), (x1, y1, x2, y2), obj.where, obj.difficult)


def _check_size(file: VocFile, size: tuple[int, int]) -> None:
    """Refuse a stated size that differs from the upright image, since boxes would be misplaced.

    A size of 0 x 0, which some tools write, is accepted.
    """
    if all(file.stated_size) and file.stated_size != size:
        stated, real = (f"{width} x {height}" for width, height in (file.stated_size, size))
        turned = file.stated_size == size[::-1]
        remedy = (
            "the image has an EXIF orientation that its boxes ignore: store the image without it"
            if turned
            else "the boxes belong to an image of another size: export images and boxes together"
        )
        raise MixDetError(
            f"{file.size_line}: <size> is {stated}, but {file.image} has {real}: {remedy}"
        )


def _splits(
    files: list[VocFile], folder: Path | None, base: Path, data: LabeledData
) -> dict[str, list[VocFile]]:
    lists = _split_lists(base / "ImageSets" / "Main")
    if not lists:
        by_image = {file.image: file for file in files}
        paths = split_by_folder(by_image, base)
        return {split: [by_image[image] for image in images] for split, images in paths.items()}
    by_id = {
        file.path.relative_to(folder or base).with_suffix("").as_posix(): file for file in files
    }
    for file in files:
        by_id.setdefault(file.path.stem, file)
    members = {}
    for split, file in lists.items():
        listed = list(dict.fromkeys(_listed(file, by_id, data, required=split != "test")))
        if listed:
            members[split] = listed
    whole = members.pop("trainval", [])
    if "train" not in members and whole:
        val = set(members.get("val", ()))
        rest = [file for file in whole if file not in val]
        members = {"train" if val else "all": rest, **members}
    listed = {file for group in members.values() for file in group}
    for file in files:
        if file not in listed:
            data.tally.add(
                "XML files that no list in ImageSets/Main names, left out", str(file.path)
            )
    return members


def _split_lists(folder: Path) -> dict[str, Path]:
    """Return the list of each split, such as `valid.txt` for `val`. `trainval` is a split too.

    Raises:
        MixDetError: Two lists are of one split.
    """
    lists: dict[str, Path] = {}
    for file in sorted(folder.glob("*.txt")):
        name = file.stem.lower()
        split = SPLIT_WORDS.get(name, name)
        if split in lists and split in SPLITS_OF_LISTS:
            raise MixDetError(
                f"{lists[split]} and {file} are lists of the same split: remove one of them"
            )
        lists[split] = file
    return {split: lists[split] for split in SPLITS_OF_LISTS if split in lists}


def _listed(
    file: Path, by_id: dict[str, VocFile], data: LabeledData, required: bool
) -> Iterator[VocFile]:
    """Yield the files that a list of ImageSets names. A line is an id, or an id and a flag."""
    for number, line in enumerate(read_text(file).splitlines(), start=1):
        name = line.strip()
        if name and name not in by_id:
            words = name.rsplit(None, 1)
            if len(words) == 2 and words[1] in ("-1", "0", "1"):
                name = words[0]
        if not name:
            continue
        if name in by_id:
            yield by_id[name]
        elif required:
            raise MixDetError(f"{file}:{number}: no XML file of {name}: add it, or remove the line")
        else:
            data.tally.add("test images without an XML file, left out", f"{file}:{number}")
