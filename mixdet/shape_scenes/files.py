"""Write the shape scenes in COCO's layout."""

from __future__ import annotations

import json
import os
from pathlib import Path

from PIL import Image

from mixdet.errors import MixDetError
from mixdet.outputs import write_atomically
from mixdet.shape_scenes.drawing import SIZE, make_scene
from mixdet.shape_scenes.objects import CLASSES


def make_shape_scenes(
    root: str | os.PathLike, *, train: int = 8000, val: int = 400, seed: int = 0
) -> Path:
    """Write `annotations/instances_{train,val}.json`, `train/` and `val/` to a folder.

    Args:
        root: The folder. It must be empty, or not exist yet.
        train: Number of training images.
        val: Number of validation images.
        seed: Seed of the scenes.

    Returns:
        The folder.

    Raises:
        MixDetError: The folder has files, or a number is below 1 or the seed below 0.
    """
    from tqdm import tqdm

    root = Path(root)
    for name, value, minimum in (("train", train, 1), ("val", val, 1), ("seed", seed, 0)):
        if value < minimum:
            raise MixDetError(f"--{name} {value}: give {minimum} or more")
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise MixDetError(f"{root} is not an empty folder: remove it, or give another one")
    for split, count in (("train", train), ("val", val)):
        (root / split).mkdir(parents=True)
        images, annotations = [], []
        for index in tqdm(range(count), desc=f"drawing shape scenes ({split})", unit="img"):
            scene = make_scene(split, index, seed)
            name = f"{index:06d}.jpg"
            Image.fromarray(scene.image).save(root / split / name, quality=90)
            images.append({"id": index, "file_name": name, "width": SIZE, "height": SIZE})
            for (x1, y1, x2, y2), label in zip(scene.boxes, scene.labels, strict=True):
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": index,
                        "category_id": label + 1,
                        "bbox": [x1, y1, x2 - x1, y2 - y1],
                        "area": (x2 - x1) * (y2 - y1),
                        "iscrowd": 0,
                    }
                )
        content = {
            "images": images,
            "annotations": annotations,
            "categories": [{"id": i + 1, "name": name} for i, name in enumerate(CLASSES)],
        }
        file = root / "annotations" / f"instances_{split}.json"
        file.parent.mkdir(exist_ok=True)
        write_atomically(file, json.dumps(content).encode())
    return root
