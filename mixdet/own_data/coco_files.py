"""Find COCO files and their images, in the layouts of COCO, Roboflow, CVAT and Label Studio."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from mixdet.annotations.content import read_content
from mixdet.errors import MixDetError
from mixdet.own_data.labeled_data import (
    LabeledData,
    check_class_list,
    list_files,
    list_images,
    split_of_name,
)

MANY_FILES = 20  # a folder with more JSON files than this has one for each image, as labelme writes


def find_coco(root: Path) -> list[Path]:
    """Return the JSON files of a folder that are COCO files with boxes."""
    by_folder = defaultdict(list)
    for file in list_files(root, "*.json"):
        by_folder[file.parent].append(file)
    files = [file for group in by_folder.values() if len(group) <= MANY_FILES for file in group]
    return [file for file in files if _is_coco(file)]


def _is_coco(file: Path) -> bool:
    try:
        content = read_content(file)
    except MixDetError:
        return False
    # Captions have no categories, and panoptic annotations have no boxes.
    is_panoptic = any("segments_info" in entry for entry in content["annotations"][:1])
    return bool(content["images"]) and not is_panoptic


def read_coco(files: Sequence[Path], root: Path) -> LabeledData:
    """Read COCO files. If training can use the data as they are, `ready` is set.

    Boxes and all other fields of annotations stay as they are: the data check reports what is wrong
    with them.

    Args:
        files: The COCO files.
        root: The folder of the data.

    Raises:
        MixDetError: It is unclear which split a file belongs to, or an image does not exist.
    """
    by_split = _by_split(files, root)
    contents = {split: read_content(file) for split, file in by_split.items()}
    root_category = _take_root_category(contents)
    classes = _classes(contents, by_split)
    first = next(iter(by_split.values()))
    data = LabeledData("COCO", first, classes, f"the order of {first.name}", {})
    if root_category is not None:
        data.notes.append(
            f"the category {root_category!r} is left out: it has no box, and it is the parent of "
            "all other categories"
        )
    # mmdet finds categories by their names, so it would find the left out one as well.
    is_clear = root_category not in classes
    files_of_names = ImagesByName(list_images(root))
    ready: dict[str, tuple[Path, Path]] = {}
    for split, content in contents.items():
        file = by_split[split]
        try:
            folder, paths = files_of_names.find(content["images"], file, split)
        except MixDetError as error:
            if split != "test":
                raise
            data.notes.append(f"the test images are left out: {error}")
            continue
        names = [category.get("name") for category in content["categories"]]
        # mmdet compares the names as they are written: it finds neither the number 5 nor " saw".
        plain_names = names == _names(content) == _names(contents[next(iter(contents))])
        is_inside = folder is not None and folder.is_relative_to(root)
        can_stay = is_inside and is_clear and plain_names
        if can_stay and _is_as_written(content["images"], paths, folder):
            ready[split] = file, folder
        data.splits[split] = _with_classes(content, paths, classes, file)
    if {"train", "val"} <= ready.keys() and ready.keys() == data.splits.keys():
        data.ready = ready
    return data


def _by_split(files: Sequence[Path], root: Path) -> dict[str, Path]:
    """Return the file of each split. The name of the file or of its folder states the split."""
    by_split = defaultdict(list)
    for file in files:
        inner = file.relative_to(root).parts[:-1]
        stated = [split_of_name(name) for name in (file.stem, *reversed(inner))]
        by_split[next(filter(None, stated), "all")].append(file)
    if "all" in by_split and len(by_split) > 1:
        raise MixDetError(
            f"{by_split['all'][0]}: its name states no split, but the names of other COCO files "
            "do: put train, val or test into its name, or move it out of the folder"
        )
    chosen = {}
    for split in ("all", "train", "val", "test"):
        group = by_split.get(split, [])
        # Beside instances_train2017.json, COCO has person_keypoints_ and stuff_train2017.json.
        named = [file for file in group if file.stem.startswith("instances")]
        if len(group) > 1 and len(named) != 1:
            which = "of no split" if split == "all" else f"of the split {split}"
            raise MixDetError(
                f"{group[0]} and {group[1]} are COCO files {which}: name one of them as DATA, or "
                "put train, val or test into their names"
            )
        if group:
            chosen[split] = (named or group)[0]
    return chosen


def _names(content: dict) -> list[str]:
    return [str(category.get("name")).strip() for category in content["categories"]]


def _classes(contents: dict[str, dict], files: dict[str, Path]) -> list[str]:
    """Return the classes of the first file, then the classes that only other files have."""
    classes: list[str] = []
    for split, content in contents.items():
        names = check_class_list(_names(content), str(files[split]))
        classes += [name for name in names if name not in classes]
    return classes


def _take_root_category(contents: dict[str, dict]) -> str | None:
    """Take out the category that Roboflow adds as the parent of all others, if it has no box.

    The category is left out by its id, since one of the others may have the same name.

    Args:
        contents: The content of each split's COCO file. The categories are changed in place.

    Returns:
        The name of the category, or None if there is none.
    """
    roots = {split: _root_category(content) for split, content in contents.items()}
    names = {str(root.get("name")).strip() if root else None for root in roots.values()}
    if len(names) != 1 or None in names:
        return None
    for split, content in contents.items():
        content["categories"] = [c for c in content["categories"] if c is not roots[split]]
    return names.pop()


def _root_category(content: dict) -> dict | None:
    """Return the category without a box that all others name as their `supercategory`."""
    used = {entry.get("category_id") for entry in content["annotations"]}
    for category in content["categories"]:
        name = category.get("name")
        parents = {c.get("supercategory") for c in content["categories"] if c is not category}
        if name is not None and category.get("id") not in used and parents == {name}:
            return category
    return None


def _ids(content: dict) -> list:
    return [category.get("id") for category in content["categories"]]


def _is_as_written(entries: Sequence[dict], paths: Sequence[Path], folder: Path) -> bool:
    """Tell whether the names, relative to a folder, lead to images within it, also by links."""
    real = os.path.realpath(folder)
    return all(
        not PurePosixPath(entry["file_name"]).is_absolute()
        and Path(folder, entry["file_name"]) == path
        and os.path.commonpath([real, os.path.realpath(path)]) == real
        for entry, path in zip(entries, paths, strict=True)
    )


def _with_classes(content: dict, paths: Sequence[Path], classes: list[str], file: Path) -> dict:
    """Return the content with the classes of all files as categories, and with image paths."""
    name_by_id = dict(zip(_ids(content), _names(content), strict=True))
    id_by_name = {name: number for number, name in enumerate(classes, start=1)}
    images = [
        {**entry, "file_name": str(path)}
        for entry, path in zip(content["images"], paths, strict=True)
    ]
    annotations = []
    for entry in content["annotations"]:
        category = entry.get("category_id")
        if category not in name_by_id:
            raise MixDetError(
                f"{file}: annotation {entry.get('id')} has the category_id {category!r}, which is "
                "not in `categories`: add it"
            )
        annotations.append({**entry, "category_id": id_by_name[name_by_id[category]]})
    categories = [{"id": number, "name": name} for name, number in id_by_name.items()]
    return {"images": images, "annotations": annotations, "categories": categories}


class ImagesByName:
    """Finds the image files for the `file_name`s of COCO files.

    Args:
        paths: All image files of the data.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.by_name = defaultdict(list)
        for path in paths:
            self.by_name[path.name].append(path)

    def find(
        self, entries: Sequence[dict], file: Path, split: str
    ) -> tuple[Path | None, list[Path]]:
        """Return the folder that most names are relative to, and the path of each image.

        A name that is not relative to this folder may contain folders of another machine, so its
        image is found by the last part of the name. Folders of another split are not searched,
        since train/ and val/ may have different images of equal names.

        Args:
            entries: The image entries of a COCO file.
            file: The COCO file.
            split: The split of the file.

        Raises:
            MixDetError: An image does not exist, or several files have its name.
        """
        names = [_parts(entry, file) for entry in entries]
        folders: Counter[Path] = Counter()
        for parts in names:
            for path in self.by_name[parts[-1]]:
                if path.parts[-len(parts) :] == parts:
                    folders[Path(*path.parts[: -len(parts)])] += 1
        candidates = [folder for folder in folders if not _is_of_other(folder, file, split)]

        def rank(folder: Path) -> tuple:
            """Rank folders. The split decides if train/ and val/ have images of equal names."""
            states_split = split in _stated_splits(folder, file)
            return -folders[folder], folder != file.parent, not states_split, len(folder.parts)

        folder = min(candidates, key=rank, default=None)
        paths = []
        for parts in names:
            path = Path(folder, *parts) if folder else None
            paths.append(path if path and path.is_file() else self._only_file(parts, file, split))
        return folder, paths

    def _only_file(self, parts: tuple[str, ...], file: Path, split: str) -> Path:
        """Return the only image with the last part of a name, in no folder of another split.

        A name that states a split itself, such as `/data/train/x.jpg` in val.json, decides.
        """
        named = next(filter(None, map(split_of_name, reversed(parts[:-1]))), split)
        found = self.by_name[parts[-1]]
        paths = [path for path in found if not _is_of_other(path.parent, file, named)]
        if len(paths) == 1:
            return paths[0]
        if paths:
            reason = f"{paths[0]} and {paths[1]} have this name: correct it"
        elif found:
            reason = (
                f"no such image, and {found[0]} is in the folder of another split than {named}: "
                "add the image, or write its folder into the file_name"
            )
        else:
            reason = "no such image: correct it"
        raise MixDetError(f"{file}: file_name {'/'.join(parts)}: {reason}")


def _stated_splits(folder: Path, file: Path) -> set[str]:
    """Return the splits that a folder's path states, below the folder that it shares with a file.

    For `train2017/` and `annotations/instances_val2017.json`, this is `train`.
    """
    inner = folder.relative_to(os.path.commonpath([folder, file.parent])).parts
    return {*filter(None, map(split_of_name, inner))}


def _is_of_other(folder: Path, file: Path, split: str) -> bool:
    """Tell whether a folder states another split than that of a COCO file."""
    stated = _stated_splits(folder, file)
    return split != "all" and bool(stated) and split not in stated


def _parts(entry: dict, file: Path) -> tuple[str, ...]:
    """Return the parts of a `file_name`, without those that lead out of the folder."""
    name = entry.get("file_name")
    path = PurePosixPath(name.replace("\\", "/") if isinstance(name, str) else "")
    parts = tuple(part for part in path.parts if part not in ("..", path.anchor))
    if not parts:
        raise MixDetError(
            f"{file}: image {entry.get('id')} has the file_name {name!r}: name a file"
        )
    return parts
