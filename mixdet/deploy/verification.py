"""Compare an exported folder with its checkpoint in PyTorch, on the config's test images."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from mixdet.deploy.labeled_images import LabeledImages, load_labeled_images
from mixdet.errors import MixDetError
from mixdet.inference.exported import ExportedNetwork
from mixdet.inference.trained import TrainedNetwork

# Tolerances for float32 files, since runtimes add numbers in different orders.
BOX_TOLERANCE = 0.1  # pixels
SCORE_TOLERANCE = 1e-4
MEAN_AP_TOLERANCE = 0.0005
# A box has a counterpart if the other detector finds a box of the same class whose coordinates
# differ by less than MATCH_PIXELS and whose score differs by less than MATCH_SCORE.
MATCH_PIXELS, MATCH_SCORE = 1, 0.01
# Tolerated fraction of boxes without a counterpart. Rounding can decide which of two boxes with
# nearly equal scores NMS keeps, and whether a box passes the score threshold.
UNMATCHED_TOLERANCE = 0.001


@dataclass(frozen=True)
class VerificationReport:
    """The differences between the detections of an exported folder and of PyTorch.

    Attributes:
        images: Number of images that were compared.
        boxes: Number of boxes that PyTorch detects.
        unmatched: Number of boxes without a counterpart. Boxes of both detectors are counted.
        box_difference: Largest difference between the coordinates of two matched boxes, in pixels
            of the image.
        score_difference: Largest difference between the scores of two matched boxes.
        mAP: COCO's box mAP of the folder, or -1 if the images have no objects.
        mAP_torch: COCO's box mAP of PyTorch.
        max_drop: The mAP that the folder may lose. None for float32, which has fixed tolerances.
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
            f"{self.images} images, {self.boxes} boxes, {self.unmatched} without a counterpart; "
            f"largest difference {self.box_difference:.2g} pixels and {self.score_difference:.2g} "
            f"in score; mAP {self.mAP:.4f}, PyTorch {self.mAP_torch:.4f}"
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the attributes as plain values, for JSON."""
        return asdict(self)

    def require(self) -> None:
        """Check that the folder may be used.

        Raises:
            MixDetError: A float32 folder differs from PyTorch by more than a tolerance, or a folder
                of another precision has lost more mAP than `max_drop`.
        """
        if self.max_drop is not None:
            lost = self.mAP_torch - self.mAP
            if lost > self.max_drop:
                raise MixDetError(
                    f"mAP is {self.mAP:.4f}, and {self.mAP_torch:.4f} in PyTorch: the file loses "
                    f"more than --max-drop {self.max_drop}"
                )
            return
        faults = []
        if self.box_difference > BOX_TOLERANCE:
            faults.append(
                f"boxes differ by {self.box_difference:.3g} pixels (at most {BOX_TOLERANCE})"
            )
        if self.score_difference > SCORE_TOLERANCE:
            faults.append(
                f"scores differ by {self.score_difference:.3g} (at most {SCORE_TOLERANCE})"
            )
        if self.unmatched > UNMATCHED_TOLERANCE * 2 * self.boxes:
            faults.append(
                f"{self.unmatched} boxes have no counterpart within {MATCH_PIXELS} pixel and "
                f"{MATCH_SCORE} in score (PyTorch detects {self.boxes} boxes): name the checkpoint "
                "that this file was exported from"
            )
        if abs(self.mAP - self.mAP_torch) >= MEAN_AP_TOLERANCE:
            faults.append(f"mAP is {self.mAP:.4f} instead of {self.mAP_torch:.4f}")
        if faults:
            raise MixDetError(f"the exported file differs from PyTorch: {'; '.join(faults)}")


@dataclass(frozen=True)
class ReferenceDetections:
    """The detections that a detector in PyTorch makes in the test images of its config.

    Attributes:
        classes: Class names, indexed by label.
        images: The test images.
        detections: For each image the boxes (n, 4), the scores (n,) and the labels (n,).
        mAP: COCO's box mAP of these detections.
    """

    classes: tuple[str, ...]
    images: LabeledImages
    detections: list[tuple[np.ndarray, ...]]
    mAP: float


def detect_reference(trained: TrainedNetwork, data_root: str | None = None) -> ReferenceDetections:
    """Run a detector in PyTorch on its config's test images.

    Args:
        trained: The detector.
        data_root: Another folder for the config's test data.

    Raises:
        MixDetError: The images are missing.
    """
    images = load_labeled_images(trained.cfg, "test_dataloader", data_root)
    detections = images.detect(trained)
    return ReferenceDetections(
        tuple(trained.classes), images, detections, images.mean_ap(detections)
    )


def verify(
    folder: str | os.PathLike, reference: ReferenceDetections, runtime: str | None = None
) -> VerificationReport:
    """Compare an exported folder with its detector in PyTorch, by their boxes and their mAP.

    Args:
        folder: The folder.
        reference: The detections of the same detector in PyTorch, from `detect_reference`.
        runtime: The runtime to use. None takes the folder's first runtime that is installed.

    Returns:
        The differences. Call `require()` to raise an error if they are too large.

    Raises:
        MixDetError: The folder cannot be loaded, or it has other classes than the detector.
    """
    exported = ExportedNetwork(folder, runtime)
    if exported.classes != reference.classes:
        raise MixDetError(
            f"{folder} has other classes than the checkpoint: name the checkpoint that was exported"
        )
    detections = reference.images.detect(exported)
    matches = [
        match_detections(a, b) for a, b in zip(reference.detections, detections, strict=True)
    ]
    return VerificationReport(
        images=len(detections),
        boxes=sum(len(boxes) for boxes, *_ in reference.detections),
        unmatched=sum(unmatched for unmatched, *_ in matches),
        box_difference=max(box_difference for _, box_difference, _ in matches),
        score_difference=max(score_difference for *_, score_difference in matches),
        mAP=reference.images.mean_ap(detections),
        mAP_torch=reference.mAP,
        max_drop=exported.manifest.get("max_drop"),
    )


def match_detections(a: Sequence[np.ndarray], b: Sequence[np.ndarray]) -> tuple[int, float, float]:
    """Match the boxes of two detectors in one image.

    Each box of `a`, in descending order of scores, gets the nearest box of `b` that has the same
    class, is near enough (`MATCH_PIXELS`, `MATCH_SCORE`) and is not matched yet.

    Args:
        a: Boxes (n, 4), scores (n,) and labels (n,) of one detector.
        b: The same arrays of the other detector, which may have another n.

    Returns:
        The number of unmatched boxes of both detectors, the largest difference between matched
        boxes in pixels, and the largest difference between their scores.
    """
    free = np.ones(len(b[0]), bool)
    box_difference = score_difference = 0.0
    matched = 0
    for box, score, label in zip(*a, strict=True):
        pixels = np.abs(b[0] - box).max(1, initial=0)
        scores = np.abs(b[1] - score)
        near = free & (b[2] == label) & (pixels < MATCH_PIXELS) & (scores < MATCH_SCORE)
        if near.any():
            best = np.flatnonzero(near)[np.argmin((pixels + scores)[near])]
            free[best] = False
            matched += 1
            box_difference = max(box_difference, float(pixels[best]))
            score_difference = max(score_difference, float(scores[best]))
    return len(a[0]) + len(b[0]) - 2 * matched, box_difference, score_difference
