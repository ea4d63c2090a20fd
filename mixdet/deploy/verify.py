"""An exported folder against the checkpoint it was made from, on the config's test images."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from mixdet.deploy.labeled_images import LabeledImages, labeled_images
from mixdet.errors import MixDetError
from mixdet.inference.exported import ExportedNetwork
from mixdet.inference.trained import TrainedNetwork

# Of float32; the order in which a runtime adds is its own
BOX_TOLERANCE = 0.1  # pixels
SCORE_TOLERANCE = 1e-4
NEAR_BOX, NEAR_SCORE = 1, 0.01  # pixels; boxes farther apart are no counterparts
UNMATCHED_TOLERANCE = 0.001  # where NMS or a threshold cuts between two equals


@dataclass(frozen=True)
class Report:
    """How far an exported folder is from PyTorch.

    Attributes:
        images: How many were compared.
        boxes: Boxes of PyTorch.
        unmatched: Boxes of either that have no counterpart in the other.
        box_difference: The largest, in pixels of the image.
        score_difference: The largest.
        mAP: COCO's box mAP of the folder; -1 where the images have no objects.
        mAP_torch: The same of PyTorch.
        max_drop: How much mAP it may lose; None where it must compute the same.
    """

    images: int
    boxes: int
    unmatched: int
    box_difference: float
    score_difference: float
    mAP: float
    mAP_torch: float
    max_drop: float | None = None

    def __str__(self) -> str:
        if self.max_drop is not None:
            lost = self.mAP_torch - self.mAP
            return f"{self.images} images; mAP {self.mAP:.4f}, {lost:.4f} less than PyTorch"
        return (
            f"{self.images} images, {self.boxes} boxes, {self.unmatched} without counterpart; "
            f"largest difference {self.box_difference:.2g} pixels and {self.score_difference:.2g} "
            f"in score; mAP {self.mAP:.4f}, PyTorch {self.mAP_torch:.4f}"
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    def require(self) -> None:
        """Refuse what is beyond the tolerance of float32, or has lost more than `max_drop`.

        Raises:
            MixDetError: It is.
        """
        if self.max_drop is not None:
            if self.mAP_torch - self.mAP > self.max_drop:
                raise MixDetError(
                    f"mAP {self.mAP:.4f}, PyTorch {self.mAP_torch:.4f}: more is lost than "
                    f"--max-drop {self.max_drop}"
                )
            return
        faults = []
        if self.box_difference > BOX_TOLERANCE:
            faults.append(f"boxes by {self.box_difference:.3g} pixels (at most {BOX_TOLERANCE})")
        if self.score_difference > SCORE_TOLERANCE:
            faults.append(f"scores by {self.score_difference:.3g} (at most {SCORE_TOLERANCE})")
        if self.unmatched > UNMATCHED_TOLERANCE * 2 * self.boxes:
            faults.append(
                f"{self.unmatched} boxes of either have no counterpart within {NEAR_BOX} pixel and "
                f"{NEAR_SCORE} in score, of {self.boxes} that PyTorch finds (is it the checkpoint "
                "of this file?)"
            )
        if abs(self.mAP - self.mAP_torch) >= 0.0005:
            faults.append(f"mAP {self.mAP:.4f} in place of {self.mAP_torch:.4f}")
        if faults:
            raise MixDetError(f"the exported file differs from PyTorch: {'; '.join(faults)}")


@dataclass(frozen=True)
class Reference:
    """What a detector finds in PyTorch on its config's test images.

    Attributes:
        classes: Class names, indexed by label.
        images: The images.
        found: Boxes (n, 4), scores (n,) and labels (n,) of each.
        mAP: COCO's box mAP of that.
    """

    classes: tuple[str, ...]
    images: LabeledImages
    found: list[tuple[np.ndarray, ...]]
    mAP: float


def reference(trained: TrainedNetwork, data_root: str | None = None) -> Reference:
    """Run a detector on its config's test images.

    Args:
        trained: The detector.
        data_root: Another folder for the config's test data.

    Raises:
        MixDetError: The images are missing.
    """
    images = labeled_images(trained.cfg, "test_dataloader", data_root)
    found = images.found(trained)
    return Reference(tuple(trained.classes), images, found, images.mean_ap(found))


def verify(folder: str | os.PathLike, reference: Reference, runtime: str | None = None) -> Report:
    """Compare an exported folder with its detector in PyTorch, box for box and in mAP.

    Args:
        folder: The folder.
        reference: What the detector found.
        runtime: As for `ExportedNetwork`.

    Raises:
        MixDetError: The folder cannot be loaded, or has other classes.
    """
    exported = ExportedNetwork(folder, runtime)
    if exported.classes != reference.classes:
        raise MixDetError(f"{folder} has other classes than the checkpoint")
    found = reference.images.found(exported)
    matches = [match(a, b) for a, b in zip(reference.found, found, strict=True)]
    return Report(
        images=len(found),
        boxes=sum(len(boxes) for boxes, *_ in reference.found),
        unmatched=sum(alone for alone, *_ in matches),
        box_difference=max(boxes for _, boxes, _ in matches),
        score_difference=max(scores for *_, scores in matches),
        mAP=reference.images.mean_ap(found),
        mAP_torch=reference.mAP,
        max_drop=exported.manifest.get("max_drop"),
    )


def match(a: Sequence[np.ndarray], b: Sequence[np.ndarray]) -> tuple[int, float, float]:
    """Match the boxes of one image, best first, each to the nearest free one of its class.

    Args:
        a: Boxes (n, 4), scores (n,), labels (n,).
        b: The same of another detector; any number.

    Returns:
        Boxes of either without a counterpart (`NEAR_BOX`, `NEAR_SCORE`); the largest
        difference of boxes, in pixels, and of scores, among the matched.
    """
    free = np.ones(len(b[0]), bool)
    box_difference = score_difference = 0.0
    matched = 0
    for box, score, label in zip(*a, strict=True):
        boxes = np.abs(b[0] - box).max(1, initial=0)
        scores = np.abs(b[1] - score)
        near = free & (b[2] == label) & (boxes < NEAR_BOX) & (scores < NEAR_SCORE)
        if near.any():
            best = np.flatnonzero(near)[np.argmin((boxes + scores)[near])]
            free[best] = False
            matched += 1
            box_difference = max(box_difference, float(boxes[best]))
            score_difference = max(score_difference, float(scores[best]))
    return len(a[0]) + len(b[0]) - 2 * matched, box_difference, score_difference
