"""Write 8-bit files that keep their mAP.

The network is divided into blocks, such as inverted residuals. The blocks whose quantization
changes the detections most stay in float.
"""

from __future__ import annotations

import bisect
import shutil
import tempfile
from collections.abc import Callable, Collection, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import mixdet.plugin

import numpy as np
import torch
from mmdet.structures.bbox import bbox_overlaps

from mixdet.deploy.labeled_images import LabeledImages
from mixdet.deploy.quantization import quantize_nodes
from mixdet.images import as_rgb
from mixdet.inference.exported import ExportedFile, network_input
from mixdet.inference.runtimes import RUNTIME_FILES, load

RANKING_IMAGES = 20
VALIDATION_IMAGES = 200
# While the writer chooses the blocks in float, the mAP may drop by this fraction of `max_drop`. The
# writer uses few images of the training split, so the drop on the test images can be larger.
DROP_FRACTION = 0.5


class Int8Writer:
    """Writes the 8-bit files of one exported network.

    Only nodes of the detector's modules are quantized. Normalization, squeeze-excite, decoding,
    anchors, softmax and NMS stay in float. For OpenVINO, some grouped convolutions stay in float
    too (see `mixdet.deploy.quantization.quantize_nodes`).

    Args:
        file: The float32 network, `model.onnx`.
        blocks: The block of every node that may be quantized, as
            `mixdet.deploy.quantization.blocks_of_nodes` returns them.
        manifest: The contents of `mixdet.json`, with `calibration_images` and `max_drop`.
        training_images: Images of the training split. Some of them are used to calibrate, and
            others to measure the mAP.
    """

    def __init__(
        self,
        file: Path,
        blocks: dict[str, str],
        manifest: dict[str, Any],
        training_images: LabeledImages,
    ) -> None:
        self.file, self.blocks, self.manifest = file, blocks, manifest
        self._calibration_cache = file.with_name("ranges.json")
        total = len(training_images)
        calibration = _spread(np.arange(total), manifest["calibration_images"])
        self.inputs = [
            network_input([as_rgb(training_images.files[index])], manifest) for index in calibration
        ]
        others = np.setdiff1d(np.arange(total), calibration)
        others = others if len(others) else calibration
        self.validation_images = training_images.subset(_spread(others, VALIDATION_IMAGES))
        self._ranking: list[str] = []

    def write(self, target: str, folder: Path) -> list[str]:
        """Write a target's files, with as few blocks in float as the mAP allows.

        Args:
            target: 'onnx' or 'openvino'.
            folder: The folder to write to.

        Returns:
            The blocks in float, the most sensitive first.
        """
        blocks = set(self.blocks.values())
        allowed_drop = DROP_FRACTION * self.manifest["max_drop"]
        required = self._mean_ap("onnx", self.file.parent) - allowed_drop

        def float_blocks(count: int) -> list[str]:
            return self._blocks_by_sensitivity()[:count] if count else []

        with tempfile.TemporaryDirectory() as work:

            @cache
            def files_with(count: int) -> Path:
                path = Path(work, str(count))
                path.mkdir()
                self._quantize(target, self.file, path, blocks - set(float_blocks(count)))
                return path

            def keeps_mean_ap(count: int) -> bool:
                mean_ap = self._mean_ap(target, files_with(count))
                print(
                    f"{target}, blocks in float: {count} of {len(blocks)}: mAP {mean_ap:.4f} on "
                    f"{len(self.validation_images)} images (required: {required:.4f})",
                    flush=True,
                )
                return mean_ap >= required

            count = fewest_float_blocks(len(blocks), keeps_mean_ap)
            shutil.copytree(files_with(count), folder, dirs_exist_ok=True)
        return float_blocks(count)

    def _blocks_by_sensitivity(self) -> list[str]:
        """Return all blocks. The block whose quantization changes the detections most is first."""
        if not self._ranking:
            inputs = self.inputs[:: max(1, len(self.inputs) // RANKING_IMAGES)]
            with tempfile.TemporaryDirectory() as folder:
                file, path = self.file, Path(folder, RUNTIME_FILES["onnx"][0])
                if self.manifest["kind"] == "end2end":
                    # Compare the outputs before NMS, since they have one entry for each anchor.
                    import onnx

                    file = Path(folder, "raw.onnx")
                    names = ["candidates", "candidate_scores"]
                    onnx.utils.extract_model(self.file, file, ["image"], names)
                float_outputs = _outputs(file, inputs)
                ratios = {}
                for block in dict.fromkeys(self.blocks.values()):
                    self._quantize("onnx", file, path.parent, {block})
                    ratios[block] = signal_to_noise(float_outputs, _outputs(path, inputs))
            self._ranking = sorted(ratios, key=ratios.__getitem__)
            for block in self._ranking:
                decibels = f"{ratios[block]:.1f} dB"
                print(f"signal-to-noise ratio with only {block} in 8 bits: {decibels}", flush=True)
        return self._ranking

    def _mean_ap(self, target: str, folder: Path) -> float:
        images = self.validation_images
        return images.mean_ap(images.detect(ExportedFile(self.manifest, target, folder)))

    def _quantize(self, target: str, file: Path, folder: Path, quantized: Collection[str]) -> None:
        nodes = [name for name, block in self.blocks.items() if block in quantized]
        quantize_nodes(target, file, folder, nodes, self.inputs, self._calibration_cache)


def fewest_float_blocks(blocks: int, keeps_mean_ap: Callable[[int], bool]) -> int:
    """Return the smallest number of blocks in float that keeps the mAP, found by bisection.

    Args:
        blocks: The number of all blocks. With all blocks in float nothing is quantized, so the
            function does not try this number.
        keeps_mean_ap: Returns whether a number of blocks in float keeps the mAP. If a number keeps
            the mAP, the search assumes that every larger number keeps the mAP too.
    """
    if keeps_mean_ap(0):
        return 0
    return 1 + bisect.bisect_left(range(1, blocks), True, key=keeps_mean_ap)


def signal_to_noise(
    outputs: Sequence[Sequence[np.ndarray]], other_outputs: Sequence[Sequence[np.ndarray]]
) -> float:
    """Return the signal-to-noise ratio of a changed network, which is high if little has changed.

    The signal is the energy (sum of squares) of the scores. The noise is the energy of the score
    differences, plus the energy of the box differences. The difference of a box is its best score
    times (1 - IoU of the old and the new box). So boxes with a low score count for little.

    Args:
        outputs: For each image, boxes (1, A, 4) and scores (1, A, classes) of the network.
        other_outputs: The same for the changed network.

    Returns:
        Decibels. The value is very large if nothing changes, and minus infinity if the other
        outputs are not finite.
    """
    signal = noise = 0.0
    for (boxes, scores), (other_boxes, other_scores) in zip(outputs, other_outputs, strict=True):
        pair = (torch.from_numpy(array).squeeze(0) for array in (boxes, other_boxes))
        overlaps = bbox_overlaps(*pair, is_aligned=True).numpy()
        moved = scores.max(-1) * (1 - overlaps)
        signal += np.square(scores).sum()
        noise += np.square(scores - other_scores).sum() + np.square(moved).sum()
    if not np.isfinite(noise):
        return -np.inf
    return 10 * np.log10(signal / max(noise, np.finfo(float).tiny))


def _spread(indices: np.ndarray, count: int) -> np.ndarray:
    """Return at most `count` of the indices, evenly spread."""
    places = np.linspace(0, len(indices) - 1, min(count, len(indices)))
    return indices[places.round().astype(int)]


def _outputs(file: Path, inputs: Sequence[np.ndarray]) -> list[list[np.ndarray]]:
    run = load("onnx", file).run
    return [run(image) for image in inputs]
