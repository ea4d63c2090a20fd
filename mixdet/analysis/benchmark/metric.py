"""The COCO metric's two backends, on made-up detections."""

from __future__ import annotations

import time
from functools import partial

import numpy as np
from pycocotools.coco import COCO

from mixdet.analysis.benchmark.timing import alternate, median_of, speedup, spread
from mixdet.analysis.tables import text_table
from mixdet.evaluation.coco_scores import BACKENDS, score_boxes

CLASSES = 80


def many_pictures(images: int, classes: int, seed: int = 0) -> tuple[COCO, list[dict]]:
    """Made-up truth and detections: objects found a little off, and some false ones.

    Args:
        images: How many pictures, of 640 x 480 pixels.
        classes: How many categories.
        seed: Of the random numbers.

    Returns:
        The truth, and the detections as COCO results.
    """
    rng = np.random.default_rng(seed)
    annotations, detections = [], []
    for image in range(images):
        for _ in range(rng.integers(0, 15)):
            size = np.exp(rng.uniform(2, 5.5, 2))
            box = np.concatenate([rng.random(2) * [560, 400], size])
            category = int(rng.integers(classes))
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": category,
                    "bbox": box.tolist(),
                    "area": float(size.prod()),
                    "iscrowd": int(rng.random() < 0.01),
                }
            )
            for _ in range(rng.integers(1, 4)):
                moved = box + rng.normal(0, 0.1, 4) * np.tile(size, 2)
                moved[2:] = np.maximum(moved[2:], 1)
                detections.append(_result(image, category, moved, rng.random()))
        for _ in range(rng.integers(0, 20)):
            box = np.concatenate([rng.random(2) * 400, 5 + rng.random(2) * 200])
            detections.append(_result(image, int(rng.integers(classes)), box, rng.random() / 2))
    truth = COCO()
    truth.dataset = {
        "images": [{"id": image, "width": 640, "height": 480} for image in range(images)],
        "annotations": annotations,
        "categories": [{"id": number, "name": f"class {number}"} for number in range(classes)],
    }
    truth.createIndex()
    return truth, detections


def _result(image: int, category: int, box: np.ndarray, score: float) -> dict:
    return {"image_id": image, "category_id": category, "bbox": box.tolist(), "score": score}


def measure_metric(rounds: int, pictures: int) -> dict[str, object]:
    """The 12 numbers by both backends, and their time.

    Args:
        rounds: How often each is timed.
        pictures: Made up, with 80 classes.
    """
    truth, detections = many_pictures(pictures, CLASSES)
    scores: dict[str, np.ndarray] = {}

    def score(backend: str, _turn: int) -> None:
        stats = score_boxes(truth, detections, backend=backend).stats
        scores[backend] = np.array(list(stats.values()))

    tasks = {backend: partial(score, backend) for backend in BACKENDS}
    seconds = alternate(tasks, rounds, time.process_time)
    return {
        "pictures": pictures,
        "detections": len(detections),
        "largest_difference": float(np.ptp(list(scores.values()), axis=0).max()),
        "seconds": {name: median_of(found) for name, found in seconds.items()},
        "speedup": speedup(*seconds.values()),
    }


def metric_table(record: dict[str, object], markdown: bool = False) -> str:
    """The record of `measure_metric` as text."""
    row = [str(record["pictures"]), str(record["detections"])]
    row += [spread(record["seconds"][name], 1) for name in BACKENDS]
    row += [spread(record["speedup"], 1), f"{record['largest_difference']:.0e}"]
    header = ["images", "detections", *(f"{name}, s" for name in BACKENDS), "times faster"]
    return text_table([*header, "largest difference"], [row], markdown)
