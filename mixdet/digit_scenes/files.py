"""Write the digit scenes: a small detection data set in COCO's format.

`mixdet.digit_scenes.drawing` draws the scenes. The `info` of an annotation file lists the digits
and the regions of the photographs that its split may use. Each annotation names its digit. Each
image names its photograph and its crop. The `area` of an annotation is the area of its box.
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

VERSION = 1  # Increase it whenever a change of the code changes the images.

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
    """Write the data set to a folder, unless the folder already contains the same data set.

    The files are written to a temporary folder, which is then renamed. An interrupted run therefore
    leaves no incomplete data set. Existing digit scenes with other arguments, or of an older
    version, are replaced.

    Args:
        root: The folder for `annotations/instances_{train,val}.json`, `train/` and `val/`.
        train: Number of training images.
        val: Number of validation images.
        seed: Seed of the scenes. The same seed gives the same bytes on one machine with the same
            versions of the packages.
        progress: Show a progress bar.

    Returns:
        The folder.

    Raises:
        MixDetError: The folder contains files other than digit scenes, or cannot be written. The
            error is also raised if `train` or `val` is below 1, or `seed` is below 0.
    """
    for name, value, minimum in (("train", train, 1), ("val", val, 1), ("seed", seed, 0)):
        if value < minimum:
            raise MixDetError(f"digit scenes: {name} is {value}: give {minimum} or more")
    target = Path(root).resolve()
    parameters = {"version": VERSION, "train": train, "val": val, "seed": seed}
    if read_parameters(target) == parameters:
        return Path(root)
    _refuse_other_files(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_old_temporary_folders(target)
        prefix = _temporary_prefix(target)
        with tempfile.TemporaryDirectory(prefix=prefix, dir=target.parent) as temporary:
            complete = Path(temporary, "complete")
            _write(complete, parameters, progress)
            if target.exists():
                target.rename(Path(temporary, "old"))
            complete.rename(target)
    except OSError as error:
        # Another process may have written the same data set at the same time.
        if read_parameters(target) != parameters:
            raise MixDetError(f"cannot write the digit scenes to {root}: {error}") from error
    return Path(root)


def ensure_digit_scenes(root: str | os.PathLike, progress: bool = True) -> Path:
    """Write the default digit scenes to a folder, unless it already contains digit scenes.

    Digit scenes of an older version are replaced by new ones with the same arguments.

    Args:
        root: The folder.
        progress: Show a progress bar.

    Returns:
        The folder.

    Raises:
        MixDetError: The folder contains files other than digit scenes.
    """
    existing = read_parameters(Path(root))
    if existing and existing["version"] == VERSION:
        return Path(root)
    arguments = {key: existing[key] for key in ("train", "val", "seed")} if existing else {}
    return make_digit_scenes(root, progress=progress, **arguments)


def read_parameters(root: Path) -> dict[str, int] | None:
    """Return the version and arguments of a folder's digit scenes, or None if there are none."""
    parameters = []
    for split in SPLITS:
        try:
            info = json.loads(_annotation_file(root, split).read_text())["info"]
            parameters.append(info["digit_scenes"]["parameters"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
    train, val = parameters
    return train if train == val else None


def _annotation_file(root: Path, split: str) -> Path:
    return root / "annotations" / f"instances_{split}.json"


def _temporary_prefix(root: Path) -> str:
    return f".{root.name}.part-"


def _remove_old_temporary_folders(root: Path) -> None:
    """Remove the temporary folders that killed runs left more than an hour ago."""
    for temporary in root.parent.glob(_temporary_prefix(root) + "*"):
        if time.time() - temporary.stat().st_mtime > 3600:
            shutil.rmtree(temporary, ignore_errors=True)


def _refuse_other_files(root: Path) -> None:
    """Raise a `MixDetError` unless this module wrote every file in the folder."""
    own_files = set()
    if read_parameters(root):
        for split in SPLITS:
            annotations = _annotation_file(root, split)
            names = [image["file_name"] for image in json.loads(annotations.read_text())["images"]]
            own_files |= {annotations, *(root / split / name for name in names)}
    files = [root] if root.is_file() else root.rglob("*")
    other = next((file for file in files if not file.is_dir() and file not in own_files), None)
    if other:
        raise MixDetError(
            f"{root} contains {other.name}, which is not a file of the digit scenes: move the "
            "folder away, or give another folder"
        )


def _write(root: Path, parameters: dict[str, int], progress: bool) -> None:
    from tqdm import tqdm

    (root / "annotations").mkdir(parents=True)
    total = sum(parameters[split] for split in SPLITS)
    with tqdm(total=total, desc="drawing digit scenes", unit="img", disable=not progress) as bar:
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
