"""Write a config, and COCO files where they are needed, for a folder of labeled images."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from mixdet.annotations.rules import fault_of, is_crowd
from mixdet.config.data_paths import LOADERS
from mixdet.config.input_size import input_wh
from mixdet.config.read import load_config, read_config
from mixdet.data_check import DataReport, quick_report
from mixdet.errors import MixDetError
from mixdet.image_size import width_x_height
from mixdet.outputs import writable_folder, write_atomically
from mixdet.own_data.coco_files import find_coco, read_coco
from mixdet.own_data.config_text import base_config, render_config
from mixdet.own_data.image_split import split_images
from mixdet.own_data.labeled_data import LabeledData, alike_names
from mixdet.own_data.training_plan import BATCH, TrainingPlan, plan_training
from mixdet.own_data.voc_files import find_voc, read_voc
from mixdet.own_data.yolo_files import find_yolo, read_yolo

SPLITS = {"train": "training", "val": "validation", "test": "test"}
DATA_OUT_END = "_annotations"  # own.py has its COCO files in own_annotations/
SMALL = 16  # pixels; the finest level of the base config has a stride of 8
LARGE = 64  # pixels
SIZE_OF_LARGE = (224, 224)  # twice as many images in the same time as with 320 x 320


@dataclass(frozen=True)
class OwnConfig:
    """What `write_own_config` wrote.

    Attributes:
        config: The config.
        annotations: The COCO files that were written, if any.
        lines: What was chosen and why, in lines of text.
        report: The quick check of the data.
    """

    config: Path
    annotations: list[Path]
    lines: list[str]
    report: DataReport


def write_own_config(
    data: str | os.PathLike,
    out: str | os.PathLike | None = None,
    *,
    data_format: str = "auto",
    data_out: str | os.PathLike | None = None,
    first_pixel: int | None = None,
    skip_empty: bool = False,
    size: tuple[int, int] | None = None,
    force: bool = False,
) -> OwnConfig:
    """Read a folder of labeled images, write a config for it, and make the quick data check.

    If training can use the given COCO files, the config names these files. For all other data, COCO
    files are written. Images are neither copied nor changed.

    Args:
        data: A folder with COCO, YOLO or VOC annotations, or a COCO file, or the file that names
            the classes of YOLO data.
        out: The config. By default it is named after the folder, in the working folder.
        data_format: `auto`, `coco`, `yolo` or `voc`.
        data_out: Folder for the COCO files. By default it is beside the config, with the config's
            name and `_annotations`.
        first_pixel: 1 if VOC's pixels are counted from 1 and boxes include their last pixel, 0 if
            coordinates are continuous. None decides by the coordinates.
        skip_empty: Whether training leaves out images without boxes.
        size: (width, height) in pixels of the network's input. None takes the size of the base
            config, or a smaller one if nearly all boxes are large.
        force: Whether existing files are replaced.

    Raises:
        MixDetError: The data cannot be read, or a file exists already.
    """
    source = Path(data)
    root = _root_of(source)
    out = Path(out) if out is not None else Path(f"{_stem(source)}.py")
    if out.suffix != ".py":
        raise MixDetError(f"--out {out}: a config is a Python file: name it {out.stem}.py")
    data_out = Path(data_out) if data_out is not None else out.with_name(out.stem + DATA_OUT_END)
    _refuse_existing([out], force)
    labeled = _read(source, root, data_format, first_pixel, data_out)
    _complete_splits(labeled)
    lines = [*_describe(labeled, skip_empty)]
    train = labeled.splits["train"]
    boxes = {annotation.get("image_id") for annotation in train["annotations"]}
    plan = plan_training(len(boxes) if skip_empty else len(train["images"]))
    size, reason = _choose_size(train, size)
    written = {}
    if labeled.ready:
        data_root = _folder(root)
        files = {
            split: (
                _inside(file, root),
                _folder(folder.relative_to(root)) if folder != root else "",
            )
            for split, (file, folder) in labeled.ready.items()
        }
    else:
        data_root = ""
        written = {data_out / f"{split}.json": part for split, part in labeled.splits.items()}
        _refuse_existing(written, force)
        folder = _folder(_shorten_names(labeled, root))
        files = {
            split: (file.as_posix(), folder)
            for split, file in zip(labeled.splits, written, strict=True)
        }
    title = f"SSDLite with MixNet-S for {_count(labeled.classes, 'class')} of {root.as_posix()}."
    text = render_config(out, title, labeled.classes, data_root, files, plan, skip_empty, size)
    if written:
        writable_folder("--data-out", data_out)
    writable_folder("--out", out.parent)
    for file, content in written.items():
        write_atomically(file, json.dumps(content).encode())
    write_atomically(out, text.encode())
    cfg = load_config(str(out))
    lines += _describe_training(train, plan, input_wh(cfg), reason)
    return OwnConfig(out, [*written], lines, quick_report(cfg, LOADERS))


def _root_of(source: Path) -> Path:
    if not source.exists():
        raise MixDetError(f"{source}: no such folder")
    if source.is_dir():
        return source
    if source.suffix.lower() in (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar"):
        raise MixDetError(f"{source}: an archive: unpack it, and name the folder")
    is_nested = source.suffix == ".json" and source.parent.name.lower() == "annotations"
    return source.parent.parent if is_nested else source.parent


def _stem(source: Path) -> str:
    """Return the name of the config for a folder, or for the folder of a file."""
    name = re.sub(r"\W+", "_", _root_of(source).resolve().name).strip("_")
    return name or "own_data"


def _refuse_existing(files: Iterable[Path], force: bool) -> None:
    existing = next((file for file in files if file.exists()), None)
    if existing is not None and (existing.is_dir() or not force):
        remedy = "name another one" if existing.is_dir() else "pass --force to replace it"
        raise MixDetError(f"{existing} exists already: {remedy}")


def _read(
    source: Path, root: Path, data_format: str, first_pixel: int | None, data_out: Path
) -> LabeledData:
    """Read the data in the stated format, or in the only format that the folder has.

    COCO files in `data_out`, and in a folder such as `own_annotations` beside `own.py`, are
    ignored, since earlier calls wrote them.
    """
    coco: list[Path] = []
    yolo = voc = None
    if source.is_file():
        coco = [source] if source.suffix == ".json" else []
        yolo = None if coco else source
        if source.suffix == ".xml":
            raise MixDetError(f"{source}: name the folder of the XML files, not one of them")
    else:
        if data_format in ("auto", "coco"):
            own = data_out.resolve()
            coco = [
                file
                for file in find_coco(root)
                if file.resolve().parent != own and not _is_beside_its_config(file.parent)
            ]
        if data_format in ("auto", "yolo"):
            yolo = find_yolo(root)
        if data_format in ("auto", "voc"):
            voc = find_voc(root)
    formats = [name for name, value in (("coco", coco), ("yolo", yolo), ("voc", voc)) if value]
    if not formats:
        kind = "COCO, YOLO or VOC" if data_format == "auto" else data_format.upper()
        raise MixDetError(
            f"{root}: no annotations in the format of {kind}: it needs a COCO file (.json), "
            "data.yaml or classes.txt (YOLO), or XML files (VOC): export the data in one of these "
            "formats"
        )
    if len(formats) > 1:
        places = {"coco": coco[:1], "yolo": [yolo], "voc": [voc]}
        listed = ", ".join(f"{name} ({places[name][0]})" for name in formats)
        raise MixDetError(f"{root}: annotations in several formats: {listed}: choose by --format")
    if coco:
        return read_coco(coco, root)
    return read_yolo(yolo, root) if yolo else read_voc(root, first_pixel)


def _is_beside_its_config(folder: Path) -> bool:
    """Tell whether a folder such as `own_annotations` is beside the config `own.py`."""
    stem = folder.name.removesuffix(DATA_OUT_END)
    return stem != folder.name and folder.with_name(f"{stem}.py").is_file()


def _complete_splits(data: LabeledData) -> None:
    """Split validation images off if there are none, and drop test images without annotations."""
    splits, notes = data.splits, data.notes
    names = {split: _file_names(content) for split, content in splits.items()}
    if "test" in splits and not splits["test"]["annotations"]:
        notes.append(f"the {len(names['test']):,} test images have no boxes and are left out")
        del splits["test"]
        if data.ready:
            del data.ready["test"]
    if "train" in splits and "val" in splits and names["train"] == names["val"]:
        notes.append("training and validation name the same images")
        splits["all"] = splits.pop("train")
        del splits["val"]
    for other in ("val", "test"):
        shared = sorted(names.get("train", set()) & names.get(other, set()))
        if shared and "train" in splits:
            notes.append(
                f"{len(shared):,} images are in training and in {SPLITS[other]}, which makes the "
                f"scores too high (first: {shared[0]})"
            )
    if {"train", "val"} <= splits.keys():
        return
    whole = splits.pop("all", None) or splits.pop("train", None)
    if whole is None:
        raise MixDetError(f"{data.source}: it names no training images: add them")
    data.ready = None
    split = split_images([Path(image["file_name"]) for image in whole["images"]])
    notes.append(split.note())
    rest = dict(splits)
    splits.clear()
    splits |= {"train": _part(whole, ~split.is_val), "val": _part(whole, split.is_val), **rest}


def _file_names(content: dict) -> set[str]:
    return {os.path.realpath(image["file_name"]) for image in content["images"]}


def _part(content: dict, chosen: Iterable[bool]) -> dict:
    """Return the content of a COCO file with some of its images."""
    images = [image for image, keep in zip(content["images"], chosen, strict=True) if keep]
    ids = {image["id"] for image in images}
    annotations = [entry for entry in content["annotations"] if entry.get("image_id") in ids]
    return {**content, "images": images, "annotations": annotations}


def _shorten_names(data: LabeledData, root: Path) -> Path:
    """Make the names of images relative to one folder, in place, and return this folder."""
    paths = [Path(entry["file_name"]) for part in data.splits.values() for entry in part["images"]]
    real_root, real_paths = os.path.realpath(root), [os.path.realpath(path) for path in paths]
    is_inside = os.path.commonpath([real_root, *real_paths]) == real_root
    if is_inside and all(path.is_relative_to(root) for path in paths):
        image_root, name = root, {str(path): _inside(path, root) for path in paths}
    else:  # a path in data.yaml, or a link, leads out of the folder
        image_root = Path(os.path.commonpath([Path(path).parent for path in real_paths]))
        pairs = zip(paths, real_paths, strict=True)
        name = {str(path): _inside(Path(real), image_root) for path, real in pairs}
    for content in data.splits.values():
        for entry in content["images"]:
            entry["file_name"] = name[entry["file_name"]]
    return image_root


def _inside(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()


def _folder(path: Path) -> str:
    return f"{path.as_posix().rstrip('/')}/"


def _count(items: Iterable, word: str) -> str:
    number = len([*items])
    plural = {"class": "classes"}.get(word, f"{word}s")
    return f"{number:,} {word if number == 1 else plural}"


def _describe(data: LabeledData, skip_empty: bool) -> Iterable[str]:
    """Yield what the data are and what was decided about them."""
    images = {SPLITS[split]: len(content["images"]) for split, content in data.splits.items()}
    yield f"format: {data.format} ({data.source})"
    yield "images: " + ", ".join(f"{count:,} {split}" for split, count in images.items())
    yield f"classes: {len(data.classes)}, in {data.class_order}: {', '.join(data.classes)}"
    yield from data.notes
    yield from data.tally.notes()
    yield from alike_names(data.classes)
    if data.ready:
        yield "the COCO files are used as they are"
    elif data.format == "COCO":
        yield (
            "new COCO files are written, since the given files have no split, or have file names, "
            "classes or links that training cannot use"
        )
    train = data.splits["train"]
    if not any(not is_crowd(annotation) for annotation in train["annotations"]):
        raise MixDetError(f"{data.source}: the training images have no box: label some objects")
    with_boxes = {annotation.get("image_id") for annotation in train["annotations"]}
    empty = sum(image["id"] not in with_boxes for image in train["images"])
    if empty:
        use = "left out" if skip_empty else "used; --skip-images-without-boxes leaves them out"
        yield f"{empty:,} training images without boxes: {use}"


def _describe_training(
    train: dict, plan: TrainingPlan, wh: tuple[int, int], size_reason: str
) -> Iterable[str]:
    """Yield what was chosen for the training and why."""
    line = f"input size: {width_x_height(wh)}, {size_reason}"
    sides = _box_sides(train, wh)
    if sides:
        line += f"; half of the boxes are smaller than {median(sides):.0f} pixels at this size"
        if median(sides) < SMALL:
            line += ": a larger --size finds more of them and takes longer"
    yield line
    yield (
        "anchors: as in the base config; `check_data` says for each class which part of the boxes "
        "they match"
    )
    yield f"batch size: {plan.batch_size}" + (
        ", for which the learning rate of the base config is meant"
        if plan.batch_size == BATCH
        else f", all training images; the learning rate of the base config is meant for {BATCH}: "
        "pass --auto-scale-lr to the training"
    )
    yield (
        f"schedule: {plan.max_epochs} epochs, {plan.iterations:,} iterations, with a validation "
        f"every {plan.val_interval} epochs; training from scratch takes thousands of iterations"
    )


def _choose_size(train: dict, size: tuple[int, int] | None) -> tuple[tuple[int, int] | None, str]:
    """Return the input size to write, or None for that of the base config, and the reason."""
    if size:
        return size, "as --size says"
    wh = input_wh(read_config(base_config()))
    sides = sorted(_box_sides(train, wh))
    if sides and sides[len(sides) // 20] >= LARGE:
        return SIZE_OF_LARGE, (
            f"since 95 % of the boxes have {LARGE} pixels or more a side at {width_x_height(wh)}; "
            "the smaller input takes half the time"
        )
    return None, "as in the base config"


def _box_sides(content: dict, wh: tuple[int, int]) -> list[float]:
    """Return the square roots of the boxes' areas in images that are resized to (width, height)."""
    sizes = {image["id"]: (image.get("width"), image.get("height")) for image in content["images"]}
    sides = []
    for annotation in content["annotations"]:
        stated = sizes.get(annotation.get("image_id"), (None, None))
        if fault_of(annotation) is None and all(isinstance(s, int) and s > 0 for s in stated):
            _, _, width, height = annotation["bbox"]
            fraction = max(width, 0) * max(height, 0) / (stated[0] * stated[1])
            sides.append((wh[0] * wh[1] * fraction) ** 0.5)
    return sides
