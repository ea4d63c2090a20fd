"""Digit scenes: a small detection data set in COCO's format, made on the spot.

Real handwritten digits of different sizes, colors and contrasts on crops of real photographs, all
of them shipped inside scikit-learn and scikit-image (`mixdet.digit_scenes.drawing` draws them).
Neither torch nor mmdet is needed. Which digits and which regions of the photographs a split may
use stands in its annotation file, under `info`; which ones it did use, in each annotation and
image. `area` is the box's area.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from PIL import Image

from mixdet.digit_scenes.drawing import (
    CLASSES,
    PHOTOGRAPHS,
    SIZE,
    SPLITS,
    Digit,
    Scene,
    digit_indices,
    make_scene,
    photo_regions,
)
from mixdet.errors import MixDetError

VERSION = 1  # Raise it whenever the same arguments would give other images.

LICENSES = [
    {"id": 1, "name": "CC0 1.0", "url": "https://creativecommons.org/publicdomain/zero/1.0/"},
    {"id": 2, "name": "CC BY 2.0", "url": "https://creativecommons.org/licenses/by/2.0/"},
    {"id": 3, "name": "Public domain or no known copyright restrictions", "url": ""},
]


def make_digit_scenes(
    root: str | os.PathLike,
    *,
    train: int = 2000,
    val: int = 400,
    seed: int = 0,
    progress: bool = True,
) -> Path:
    """Write the data set to a folder; do nothing where the same data set is there already.

    The files are written to the side and renamed, so an interrupted run leaves nothing half made.
    Digit scenes made with other arguments, or by an older version, are replaced.

    Args:
        root: The folder: `annotations/instances_{train,val}.json`, `train/` and `val/`.
        train: Number of training images.
        val: Number of validation images.
        seed: The same seed gives the same bytes (on one machine, with one version of the packages).
        progress: Show a progress bar.

    Returns:
        The folder.

    Raises:
        MixDetError: The folder holds something that is not digit scenes, or cannot be written; or a
            split would be empty, or the seed is below 0.
    """
    for name, value, least in (("train", train, 1), ("val", val, 1), ("seed", seed, 0)):
        if value < least:
            raise MixDetError(f"digit scenes: {name} is {value}: give {least} or more")
    target = Path(root).resolve()
    wanted = {"version": VERSION, "train": train, "val": val, "seed": seed}
    if read_parameters(target) == wanted:
        return Path(root)
    _refuse_foreign(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _sweep(target)
        with tempfile.TemporaryDirectory(prefix=_aside(target), dir=target.parent) as part:
            made = Path(part, "made")
            _write(made, wanted, progress)
            if target.exists():
                target.rename(Path(part, "old"))
            made.rename(target)
    except OSError as error:
        # Where another process was faster, its folder is as good as this one.
        if read_parameters(target) != wanted:
            raise MixDetError(f"cannot write the digit scenes to {root}: {error}") from error
    return Path(root)


def ensure_digit_scenes(root: str | os.PathLike, progress: bool = True) -> Path:
    """Digit scenes at `root`: the ones that are there, whatever their number, or the default ones.

    Only an older version's are made anew, with the arguments that they were made with.

    Raises:
        MixDetError: The folder holds something that is not digit scenes.
    """
    found = read_parameters(Path(root))
    if found and found["version"] == VERSION:
        return Path(root)
    arguments = {key: found[key] for key in ("train", "val", "seed")} if found else {}
    return make_digit_scenes(root, progress=progress, **arguments)


def read_parameters(root: Path) -> dict[str, int] | None:
    """What the digit scenes in a folder were made with; None if there are none."""
    found = []
    for split in SPLITS:
        try:
            info = json.loads(_annotation_file(root, split).read_text())["info"]
            found.append(info["digit_scenes"]["parameters"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
    return found[0] if found[0] == found[1] else None


def _annotation_file(root: Path, split: str) -> Path:
    return root / "annotations" / f"instances_{split}.json"


def _aside(root: Path) -> str:
    return f".{root.name}.part-"


def _sweep(root: Path) -> None:
    """Remove what killed runs left beside the folder more than an hour ago."""
    for part in root.parent.glob(_aside(root) + "*"):
        if time.time() - part.stat().st_mtime > 3600:
            shutil.rmtree(part, ignore_errors=True)


def _refuse_foreign(root: Path) -> None:
    """Raise unless every file in the folder was written by this module."""
    ours = set()
    if read_parameters(root):
        for split in SPLITS:
            annotations = _annotation_file(root, split)
            names = [image["file_name"] for image in json.loads(annotations.read_text())["images"]]
            ours |= {annotations, *(root / split / name for name in names)}
    files = [root] if root.is_file() else root.rglob("*")
    foreign = next((file for file in files if not file.is_dir() and file not in ours), None)
    if foreign:
        raise MixDetError(
            f"{root} holds {foreign.name}, which is not part of digit scenes: "
            "move that folder away, or name another one"
        )


def _write(root: Path, parameters: dict[str, int], progress: bool) -> None:
    from tqdm import tqdm

    (root / "annotations").mkdir(parents=True)
    total = sum(parameters[split] for split in SPLITS)
    with tqdm(total=total, desc="making digit scenes", unit="img", disable=not progress) as bar:
        for split in SPLITS:
            (root / split).mkdir()
            images, annotations = [], []
            for index in range(parameters[split]):
                scene = make_scene(split, index, parameters["seed"])
                name = f"{index + 1:06d}.jpg"
                Image.fromarray(scene.image).save(root / split / name, quality=95, subsampling=0)
                images.append(_image_entry(scene, index + 1, name))
                for box, digit in zip(scene.boxes, scene.digits, strict=True):
                    annotations.append(_annotation(box, digit, index + 1, len(annotations) + 1))
                bar.update()
            content = {
                "info": _info(split, parameters),
                "licenses": LICENSES,
                "images": images,
                "annotations": annotations,
                "categories": [
                    {"id": label + 1, "name": name, "supercategory": "digit"}
                    for label, name in enumerate(CLASSES)
                ],
            }
            _annotation_file(root, split).write_text(json.dumps(content))


def _info(split: str, parameters: dict[str, int]) -> dict[str, Any]:
    return {
        "description": "Digit scenes: handwritten digits (sklearn.datasets.load_digits) on crops "
        "of photographs that scikit-learn and scikit-image ship. `area` is the box's area.",
        "version": str(parameters["version"]),
        "year": 2026,
        "contributor": "MixDet",
        "url": "",
        "date_created": "",
        "digit_scenes": {
            "parameters": parameters,
            "split": split,
            "digits": digit_indices(split).tolist(),
            "photo_regions": photo_regions(split),
        },
    }


def _image_entry(scene: Scene, image_id: int, name: str) -> dict[str, Any]:
    return {
        "id": image_id,
        "file_name": name,
        "width": SIZE,
        "height": SIZE,
        "license": PHOTOGRAPHS[scene.photograph],
        "photograph": scene.photograph,
        "crop": scene.crop,
    }


def _annotation(box: tuple, digit: Digit, image_id: int, annotation_id: int) -> dict[str, Any]:
    x1, y1, x2, y2 = box
    return {
        "id": annotation_id,
        "image_id": image_id,
        "category_id": digit.label + 1,
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "area": (x2 - x1) * (y2 - y1),
        "iscrowd": 0,
        "digit": digit.index,
    }
