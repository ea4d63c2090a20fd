"""Annotations and detections for tests of the error analysis."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest

from mixdet.evaluation import ScoredData

CLASSES = ("cat", "dog", "cow")
CATEGORY_IDS = (7, 3, 5)  # not in ascending order


@pytest.fixture
def scored(tmp_path):
    """Write an annotation file, and return its `ScoredData`."""
    numbers = itertools.count()

    def write(objects, images=(1,), **kwargs) -> ScoredData:
        """Take a list of (image, label, box) or (image, label, box, other keys)."""
        annotations = []
        for number, (image, label, box, *rest) in enumerate(objects, 1):
            keys = {"iscrowd": 0, "area": box[2] * box[3], **(rest[0] if rest else {})}
            where = {"id": number, "image_id": image, "category_id": CATEGORY_IDS[label]}
            annotations.append({**where, "bbox": list(map(float, box)), **keys})
        names = zip(CATEGORY_IDS, CLASSES, strict=True)
        content = {
            "images": [{"id": image, "file_name": f"{image}.png"} for image in images],
            "categories": [{"id": number, "name": name} for number, name in names],
            "annotations": annotations,
        }
        file = tmp_path / f"truth_{next(numbers)}.json"
        file.write_text(json.dumps(content))
        return ScoredData.read(file, **kwargs)

    return write


def detect(*detections) -> list[dict]:
    """Return COCO results of (image, label, box, score)."""
    return [
        {
            "image_id": image,
            "category_id": CATEGORY_IDS[label],
            "bbox": list(map(float, box)),
            "score": float(score),
        }
        for image, label, box, score in detections
    ]


def random_case(scored, seed: int, detections: int = 60) -> tuple[ScoredData, list[dict]]:
    """Return crowded images with equal boxes, equal scores, crowds and ignored boxes."""
    rng = np.random.default_rng(seed)
    images = (4, 9, 2)

    def boxes(count: int) -> np.ndarray:
        return np.hstack([rng.integers(0, 4, (count, 2)) * 5, rng.integers(2, 9, (count, 2)) * 5])

    objects = [
        (
            int(rng.choice(images)),
            int(rng.integers(3)),
            box.tolist(),
            [{}, {}, {"iscrowd": 1}, {"ignore": 1}][rng.integers(4)],
        )
        for box in boxes(20)
    ]
    found = [
        (int(rng.choice(images)), int(rng.integers(3)), box.tolist(), rng.integers(1, 20) / 20)
        for box in boxes(detections)
    ]
    return scored(objects, images), detect(*found)
