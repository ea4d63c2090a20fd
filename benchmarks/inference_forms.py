"""What `benchmark.py infer` compares, each in a process that loads no more than it needs."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import cv2
import numpy as np

from mixdet.inference.exported import ExportedNetwork, network_input, suppress

PEER = "timm in mmdet, test_step"
SIDE = 1024  # of the matrices that are multiplied
MATRIX = f"matrix product, {SIDE} x {SIDE}"  # what the processor can do
OURS, OURS_INT8, TORCHVISION = "mixdet", "mixdet_int8", "torchvision"  # folders
TORCH_FORMS = (
    PEER,
    "MixDet, PyTorch",
    "MixDet, PyTorch fused",
    "MixDet, PyTorch compiled",
    "torchvision SSDLite, PyTorch",
    MATRIX,
)
BF16 = "MixDet, OpenVINO bf16"
EXPORTED_FORMS = {
    "MixDet, ONNX Runtime": (OURS, "onnx"),
    "MixDet, OpenVINO": (OURS, "openvino"),
    BF16: (OURS, "openvino"),
    "MixDet, ONNX Runtime INT8": (OURS_INT8, "onnx"),
    "MixDet, OpenVINO INT8": (OURS_INT8, "openvino"),
    "torchvision SSDLite, ONNX Runtime": (TORCHVISION, "onnx"),
    "torchvision SSDLite, OpenVINO": (TORCHVISION, "openvino"),
}
FORMS = (*TORCH_FORMS[:4], *EXPORTED_FORMS, *TORCH_FORMS[4:])


def start(
    form: str | tuple[str, str], folder: str, threads: int, network: str
) -> Callable[[tuple], None]:
    """A process that runs one form when asked.

    Args:
        form: One of `FORMS`, or the path of an exported folder and a runtime.
        folder: What `prepare` has filled.
        threads: How many to compute with.
        network: As for `prepare`.

    Returns:
        Answers (part, batch): one run of 'end to end', images in and boxes out, of 'network', or
        of 'decode and NMS', for so many images.
    """
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    cv2.setNumThreads(threads)
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (480, 640, 3), dtype=np.uint8) for _ in range(32)]
    with runtime_settings(threads, bf16=form == BF16):
        if form in TORCH_FORMS:
            from benchmarks import torch_forms

            made = torch_forms.load(form, Path(folder), threads, network)
        else:
            made = _exported(Path(folder), *EXPORTED_FORMS.get(form, form))
            made(images)  # what it loads for many images is to have the settings, too
    parts: dict[int, dict[str, Callable]] = {}

    def answer(request: tuple[str, int]) -> None:
        part, batch = request
        if batch not in parts:
            parts[batch] = made(images[:batch])
        parts[batch][part]()

    return answer


@contextlib.contextmanager
def runtime_settings(threads: int, bf16: bool) -> Iterator[None]:
    """Have the runtimes, where installed, take so many threads, and OpenVINO a precision."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(ImportError):
            import onnxruntime

            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = threads
            patch = mock.patch.object(onnxruntime, "SessionOptions", return_value=options)
            stack.enter_context(patch)
        with contextlib.suppress(ImportError):
            import openvino

            compile_model = openvino.Core.compile_model

            def compiled(core, model, device, settings):
                more = {"INFERENCE_NUM_THREADS": threads}
                if bf16:
                    more["INFERENCE_PRECISION_HINT"] = "bf16"
                return compile_model(core, model, device, settings | more)

            stack.enter_context(mock.patch.object(openvino.Core, "compile_model", compiled))
        yield


def _exported(folder: Path, name: str, runtime: str) -> Callable[[list], dict]:
    network = ExportedNetwork(folder / name, runtime)

    def made(images: list[np.ndarray]) -> dict[str, Callable]:
        inputs = network_input(images, network.manifest)
        outputs = [*network.raw_outputs(inputs)]
        scale = np.ones(4, np.float32)
        return {
            "end to end": lambda: network(images),
            "network": lambda: [*network.raw_outputs(inputs)],
            "decode and NMS": lambda: [
                suppress(*output, scale, network.manifest) for output in outputs
            ],
        }

    return made
