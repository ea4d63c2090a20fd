"""Write labeled images as annotation tools export them, in the layouts of COCO, YOLO and VOC."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np

from tests.synthetic import coco_annotations

CLASSES = ("hammer", "saw")
WIDTH, HEIGHT = 160, 120
Scene = list[tuple[int, tuple[int, int, int, int]]]  # class, (x, y, w, h) in pixels


def draw(folder: Path, numbers: Iterable[int]) -> dict[str, Scene]:
    """Write images that each show a square and a disc; return the scenes by file name."""
    folder.mkdir(parents=True, exist_ok=True)
    scenes = {}
    for number in numbers:
        rng = np.random.default_rng(number)
        image = rng.integers(100, 140, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        scene = []
        for label, left in enumerate(rng.permutation((0, WIDTH // 2)).tolist()):
            side = 2 * int(rng.integers(18, 35))
            x = left + int(rng.integers(WIDTH // 2 - side + 1))
            y = int(rng.integers(HEIGHT - side + 1))
            if label:
                center = (x + side // 2, y + side // 2)
                cv2.circle(image, center, side // 2, (250, 250, 20), -1)
            else:
                image[y : y + side, x : x + side] = 20
            scene.append((label, (x, y, side, side)))
        name = f"{number:03}.png"
        assert cv2.imwrite(str(folder / name), image)
        scenes[name] = scene
    return scenes


def write_voc(folder: Path, count: int = 32) -> dict[str, Scene]:
    """Write `JPEGImages` and `Annotations`; return the scenes."""
    scenes = draw(folder / "JPEGImages", range(count))
    for name, scene in scenes.items():
        objects = [(CLASSES[label], box) for label, box in scene]
        write_xml((folder / "Annotations" / name).with_suffix(".xml"), objects)
    return scenes


def write_xml(
    file: Path,
    objects: list[tuple[str, tuple[float, float, float, float]]],
    *,
    first_pixel: int = 1,
    difficult: int = 0,
    size: tuple[int, int] = (WIDTH, HEIGHT),
) -> None:
    """Write the names and boxes (x, y, w, h) of an image in VOC's format.

    With `first_pixel=1`, as VOC defines it, the box contains the pixel (xmax, ymax).
    """
    entries = "".join(
        f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox>\n"
        f"<xmin>{x + first_pixel}</xmin><ymin>{y + first_pixel}</ymin>\n"
        f"<xmax>{x + w}</xmax><ymax>{y + h}</ymax>\n"
        "</bndbox></object>\n"
        for name, (x, y, w, h) in objects
    )
    width, height = size
    stated = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>\n"
    file.parent.mkdir(parents=True, exist_ok=True)
    head = f"<annotation>\n<filename>{file.stem}.png</filename>\n{stated}"
    file.write_text(f"{head}{entries}</annotation>\n")


def write_yolo(folder: Path, train: int = 24, val: int = 8) -> dict[str, Scene]:
    """Write `images`, `labels` and `data.yaml`, with two splits; return the scenes."""
    scenes = {}
    for part, numbers in (("train", range(train)), ("val", range(train, train + val))):
        drawn = draw(folder / "images" / part, numbers)
        for name, scene in drawn.items():
            write_labels((folder / "labels" / part / name).with_suffix(".txt"), scene)
        scenes |= drawn
    names = "".join(f"  {number}: {name}\n" for number, name in enumerate(CLASSES))
    (folder / "data.yaml").write_text(f"train: images/train\nval: images/val\nnames:\n{names}")
    return scenes


def write_labels(file: Path, scene: Scene) -> None:
    """Write the boxes of an image to a label file of YOLO."""
    lines = (
        f"{label} {(x + w / 2) / WIDTH} {(y + h / 2) / HEIGHT} {w / WIDTH} {h / HEIGHT}\n"
        for label, (x, y, w, h) in scene
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(lines))


def coco_content(scenes: dict[str, Scene]) -> dict:
    """Return the content of a COCO file. Category ids start at 1, image ids at 1."""
    boxes = [
        (image, label + 1, [*box])
        for image, scene in enumerate(scenes.values(), start=1)
        for label, box in scene
    ]
    return {
        "images": [
            {"id": number, "file_name": name, "width": WIDTH, "height": HEIGHT}
            for number, name in enumerate(scenes, 1)
        ],
        "annotations": coco_annotations(boxes),
        "categories": [{"id": number, "name": name} for number, name in enumerate(CLASSES, 1)],
    }


def write_coco(folder: Path, train: int = 24, val: int = 8) -> dict[str, Scene]:
    """Write COCO's own layout; return the scenes."""
    scenes = {}
    for part, numbers in (("train", range(train)), ("val", range(train, train + val))):
        drawn = draw(folder / f"{part}2017", numbers)
        write_json(folder / f"annotations/instances_{part}2017.json", coco_content(drawn))
        scenes |= drawn
    return scenes


def write_json(file: Path, content: dict) -> None:
    """Write a JSON file and its folder."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))


def scenes_of(content: dict) -> dict[str, Scene]:
    """Return the boxes of a COCO file's content by image name, rounded to 0.01 pixels.

    A class is the position of its name in `CLASSES`.
    """
    names = {image["id"]: Path(image["file_name"]).name for image in content["images"]}
    labels = {entry["id"]: CLASSES.index(entry["name"]) for entry in content["categories"]}
    scenes: dict[str, Scene] = {name: [] for name in names.values()}
    for entry in content["annotations"]:
        box = tuple(round(value, 2) for value in entry["bbox"])
        scenes[names[entry["image_id"]]].append((labels[entry["category_id"]], box))
    return scenes
