"""Random training batches, COCO annotations, random detections and batch norms."""

from __future__ import annotations

from collections.abc import Iterable

import mixdet.compat.prepared

import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from pycocotools.coco import COCO
from torch import nn

BOXES_PER_IMAGE = 7  # images of COCO have 7.3 on average
CLASSES = 80


def random_batch(batch_size: int, size: int, seed: int = 0) -> dict[str, list]:
    """Draw a batch of noise images with random boxes, as a data loader of mmdet returns it.

    Args:
        batch_size: Number of images.
        size: Side of the square images in pixels.
        seed: Seed of the random numbers.

    Returns:
        `inputs` has the uint8 images (3, size, size). `data_samples` has their boxes
        (x1, y1, x2, y2) in pixels and their labels below 80.
    """
    generator = torch.Generator().manual_seed(seed)
    shape = (batch_size, 3, size, size)
    inputs = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    samples = []
    for _ in range(batch_size):
        top_left = torch.rand(BOXES_PER_IMAGE, 2, generator=generator) * size * 0.6
        box_wh = (0.05 + 0.35 * torch.rand(BOXES_PER_IMAGE, 2, generator=generator)) * size
        sample = DetDataSample(
            metainfo=dict(img_shape=(size, size), ori_shape=(size, size), scale_factor=(1.0, 1.0))
        )
        sample.gt_instances = InstanceData(
            bboxes=torch.cat([top_left, top_left + box_wh], 1),
            labels=torch.randint(0, CLASSES, (BOXES_PER_IMAGE,), generator=generator),
        )
        sample.ignored_instances = InstanceData(
            bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long)
        )
        samples.append(sample)
    return {"inputs": list(inputs), "data_samples": samples}


def random_coco_detections(
    images: int, classes: int = CLASSES, seed: int = 0, per_image: int = 0
) -> tuple[COCO, list[dict]]:
    """Draw true boxes, detections near them, and false detections.

    Args:
        images: Number of images of 640 x 480 pixels.
        classes: Number of categories.
        seed: Seed of the random numbers.
        per_image: Fill up the detections of each image to this number with false ones.

    Returns:
        The ground truth, and the detections as COCO results: boxes are (x, y, width, height). The
        detections of an image follow each other.
    """
    rng = np.random.default_rng(seed)
    annotations, detections = [], []
    for image in range(images):
        first = len(detections)
        for _ in range(rng.integers(0, 15)):
            box_wh = np.exp(rng.uniform(2, 5.5, 2))
            box = np.concatenate([rng.random(2) * [560, 400], box_wh])
            category = int(rng.integers(classes))
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": category,
                    "bbox": box.tolist(),
                    "area": float(box_wh.prod()),
                    "iscrowd": int(rng.random() < 0.01),
                }
            )
            for _ in range(rng.integers(1, 4)):
                moved = box + rng.normal(0, 0.1, 4) * np.tile(box_wh, 2)
                moved[2:] = np.maximum(moved[2:], 1)
                detections.append(_coco_result(image, category, moved, rng.random()))
        false = rng.integers(0, 20)
        for _ in range(max(false, per_image - len(detections) + first)):
            box = np.concatenate([rng.random(2) * 400, 5 + rng.random(2) * 200])
            category, score = int(rng.integers(classes)), rng.random() / 2
            detections.append(_coco_result(image, category, box, score))
    truth = COCO()
    truth.dataset = {
        "images": [{"id": image, "width": 640, "height": 480} for image in range(images)],
        "annotations": annotations,
        "categories": [{"id": number, "name": f"class {number}"} for number in range(classes)],
    }
    truth.createIndex()
    return truth, detections


def _coco_result(image: int, category: int, box: np.ndarray, score: float) -> dict:
    return {"image_id": image, "category_id": category, "bbox": box.tolist(), "score": score}


def coco_annotations(boxes: Iterable[tuple[int, int, list[float]]]) -> list[dict]:
    """Return COCO annotations with ids from 1.

    Args:
        boxes: An image id, a category id and (x, y, width, height) for each annotation.
    """
    return [
        {
            "id": number,
            "image_id": image,
            "category_id": category,
            "bbox": box,
            "area": box[2] * box[3],
            "iscrowd": 0,
        }
        for number, (image, category, box) in enumerate(boxes, start=1)
    ]


def randomize_norms(model: nn.Module) -> nn.Module:
    """Draw weights and statistics of all batch norms; return the model in evaluation mode."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    model.eval()  # mmdet's backbones return None from this call
    return model
