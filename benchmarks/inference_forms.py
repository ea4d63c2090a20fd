"""The forms of a detector that `infer` compares. Each form runs in its own process.

A form is a way to run a detector, such as compiled, or exported to a runtime. The process imports
only what the form needs.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from mixdet.inference.exported import ExportedNetwork, network_input, suppress

# Timed parts. The matrix product has only the part "network". All other forms have all three parts.
END_TO_END, NETWORK, DECODE_AND_NMS = "end to end", "network", "decode and NMS"

PEER = "timm in mmdet, test_step"
MATRIX_SIZE = 1024
# A matrix product runs at about the peak speed of the CPU. It is timed for comparison.
MATRIX_PRODUCT = f"matrix product, {MATRIX_SIZE} x {MATRIX_SIZE}"
TORCH_FORMS = (
    PEER,
    "MixDet, PyTorch",
    "MixDet, PyTorch fused",
    "MixDet, PyTorch compiled",
    "torchvision SSDLite, PyTorch",
    MATRIX_PRODUCT,
)
# Names of the exported folders that `benchmarks.inference_files.write_files` writes
OURS_FP32, OURS_BF16, OURS_INT8 = "mixdet", "mixdet_bf16", "mixdet_int8"
TORCHVISION_FP32 = "torchvision"
EXPORTED_FORMS = {  # (folder, runtime)
    "MixDet, ONNX Runtime": (OURS_FP32, "onnx"),
    "MixDet, OpenVINO": (OURS_FP32, "openvino"),
    "MixDet, OpenVINO bf16": (OURS_BF16, "openvino"),
    "MixDet, ONNX Runtime INT8": (OURS_INT8, "onnx"),
    "MixDet, OpenVINO INT8": (OURS_INT8, "openvino"),
    "torchvision SSDLite, ONNX Runtime": (TORCHVISION_FP32, "onnx"),
    "torchvision SSDLite, OpenVINO": (TORCHVISION_FP32, "openvino"),
}
INFERENCE_FORMS = (*TORCH_FORMS[:4], *EXPORTED_FORMS, *TORCH_FORMS[4:])

Parts = dict[str, Callable[[], object]]  # for each timed part, a function that runs it once


def start_form(
    form: str | tuple[str, str], folder: str, threads: int, network: str
) -> Callable[[tuple[str, int]], None]:
    """Prepare this process to run one form.

    Args:
        form: One of `INFERENCE_FORMS`, or the absolute path of an exported folder and a runtime.
        folder: The folder that `benchmarks.inference_files.write_files` has filled.
        threads: Number of threads, and of cores that the process may use.
        network: A key of `benchmarks.networks.NETWORKS`.

    Returns:
        A function that takes (part, batch size) and runs that part once on a batch.
    """
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    cv2.setNumThreads(threads)
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (480, 640, 3), dtype=np.uint8) for _ in range(32)]
    if form in TORCH_FORMS:
        from benchmarks.inference_torch import load_torch_form  # slow: torch and mmdet

        parts_for = load_torch_form(form, Path(folder), threads, network)
    else:
        name, runtime = EXPORTED_FORMS.get(form, form)
        parts_for = _load_exported_form(Path(folder, name), runtime, threads)
    parts_by_batch: dict[int, Parts] = {}

    def run(request: tuple[str, int]) -> None:
        part, batch = request
        if batch not in parts_by_batch:
            parts_by_batch[batch] = parts_for(images[:batch])
        parts_by_batch[batch][part]()

    return run


def _load_exported_form(
    folder: Path, runtime: str, threads: int
) -> Callable[[list[np.ndarray]], Parts]:
    """Return a function that takes RGB images (H, W, 3) and returns their `Parts`."""
    if runtime == "executorch":
        threads = None  # ExecuTorch has no such setting, and uses all cores of the process
    network = ExportedNetwork(folder, runtime, threads=threads)

    def parts_for(images: list[np.ndarray]) -> Parts:
        inputs = network_input(images, network.manifest)
        outputs = [*network.raw_outputs(inputs)]
        scale = np.ones(4, np.float32)
        return {
            END_TO_END: lambda: network(images),
            NETWORK: lambda: [*network.raw_outputs(inputs)],
            DECODE_AND_NMS: lambda: [
                suppress(*output, scale, network.manifest) for output in outputs
            ],
        }

    return parts_for
