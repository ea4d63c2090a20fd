"""A made data set as large as COCO, for the benchmark `scale`."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path

import mixdet.compat.prepared

import cv2
import numpy as np
from mmdet.datasets import CocoDataset

IMAGES, ANNOTATIONS = 118_287, 860_001  # as in COCO's training set
VAL_IMAGES = 5_000
SHAPES = 4096  # different boxes with their polygons
POLYGON_POINTS = 20
WIDTH, HEIGHT = 640, 480
MAX_LINKS = 20_000  # file systems limit the number of names of one file


def large_data_set(images: int = IMAGES, annotations: int = ANNOTATIONS) -> Path:
    """Return the folder of a made data set in COCO's layout, which is written if it is missing.

    The annotations are not in the order of their images, as in COCO's own files. Each has a box, a
    polygon of 40 numbers, an area and a category. One of 100 is a crowd. A training file of COCO's
    size has 427 MB. The image files are names of a few files, so they take little space. The data
    set stays in the folder for temporary files.

    Args:
        images: Number of training images.
        annotations: Number of annotations of the training images.
    """
    folder = Path(tempfile.gettempdir(), f"mixdet_scale_{images}_{annotations}")
    if not folder.is_dir():
        unfinished = folder.with_name(f"{folder.name}_unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        val_images = min(VAL_IMAGES, images)
        _write_split(unfinished, "train2017", images, annotations)
        _write_split(unfinished, "val2017", val_images, annotations * val_images // images)
        unfinished.rename(folder)
    return folder


def _write_split(folder: Path, split: str, images: int, annotations: int) -> None:
    rng = np.random.default_rng(images)
    (folder / split).mkdir(parents=True)
    (folder / "annotations").mkdir(exist_ok=True)
    names = [f"{number:012}.jpg" for number in range(1, images + 1)]
    for index, name in enumerate(names):
        if index % MAX_LINKS == 0:
            original = folder / split / name
            noise = rng.integers(0, 256, (HEIGHT // 16, WIDTH // 16, 3), dtype=np.uint8)
            cv2.imwrite(str(original), cv2.resize(noise, (WIDTH, HEIGHT)))
        else:
            os.link(original, folder / split / name)
    with (folder / "annotations" / f"instances_{split}.json").open("w") as file:
        image_entries = [_image(number, name) for number, name in enumerate(names, 1)]
        file.write('{"info": {"year": 2017}, "licenses": [{"id": 1}], "images": ')
        file.write(json.dumps(image_entries))
        file.write(', "annotations": [')
        shapes = [_shape(rng) for _ in range(SHAPES)]
        classes = CocoDataset.METAINFO["classes"]
        chosen = zip(
            rng.integers(0, SHAPES, annotations).tolist(),
            rng.integers(1, images + 1, annotations).tolist(),
            rng.integers(1, len(classes) + 1, annotations).tolist(),
            (rng.random(annotations) < 0.01).astype(int).tolist(),
            strict=True,
        )
        for number, (shape, image, category, crowd) in enumerate(chosen, 1):
            file.write(
                f'{", " if number > 1 else ""}{{{shapes[shape]}, "iscrowd": {crowd}, "image_id": '
                f'{image}, "category_id": {category}, "id": {number}}}'
            )
        categories = [
            {"supercategory": "thing", "id": number, "name": name}
            for number, name in enumerate(classes, 1)
        ]
        file.write(f'], "categories": {json.dumps(categories)}}}')


def _image(number: int, name: str) -> dict:
    return {
        "license": 1,
        "file_name": name,
        "coco_url": f"http://images.cocodataset.org/train2017/{name}",
        "flickr_url": f"http://farm9.staticflickr.com/8186/{number:010}_z.jpg",
        "height": HEIGHT,
        "width": WIDTH,
        "date_captured": "2013-11-14 11:18:45",
        "id": number,
    }


def _shape(rng: np.random.Generator) -> str:
    """Return the fields of an ellipse of random size and position as JSON, without braces."""
    size = rng.uniform(8, 300, 2)
    start = rng.uniform(0, np.array([WIDTH, HEIGHT]) - size)
    angles = np.linspace(0, 2 * np.pi, POLYGON_POINTS, endpoint=False)
    points = start + size / 2 * (1 + np.stack([np.cos(angles), np.sin(angles)], axis=1))
    fields = {
        "segmentation": [points.round(2).flatten().tolist()],
        "area": round(float(size.prod() * np.pi / 4), 4),
        "bbox": [round(value, 2) for value in (*start.tolist(), *size.tolist())],
    }
    return json.dumps(fields)[1:-1]
