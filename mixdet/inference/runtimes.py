"""What runs exported files: NumPy arrays in and out, whichever the runtime."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mixdet.errors import MixDetError

Run = Callable[[np.ndarray], list[np.ndarray]]


class Loaded(NamedTuple):
    """A file on its runtime; calls must not overlap.

    Attributes:
        shape: Of the input; None where the file does not say it.
        run: Computes: from images (N, H, W, 3) uint8 to the outputs that the folder's kind has.
            Of a raw file N is 1, or `batch`.
        batch: Images of a raw file that are computed faster together than one by one, or 1.
    """

    shape: Sequence[int | str | None] | None
    run: Run
    batch: int = 1


# The file that each runtime loads, with others that belong to it, and the package that loads it
FILES = {
    "onnx": ("model.onnx",),
    "openvino": ("model.xml", "model.bin"),
    "ncnn": ("model.ncnn.param", "model.ncnn.bin"),
    "litert": ("model.tflite",),
    "executorch": ("model.pte",),
}
PACKAGES = {
    "onnx": "onnxruntime",
    "openvino": "openvino",
    "ncnn": "ncnn",
    "litert": "ai_edge_litert",
    "executorch": "executorch",
}
BATCH = 8  # on OpenVINO, which can read a file of one image as one of more
# What makes 8-bit files; their sweep runs on ONNX Runtime, whatever the target
INT8_PACKAGES = ("onnxruntime", "nncf")


def load(runtime: str, path: Path, precision: str = "fp32", threads: int | None = None) -> Loaded:
    """Load a file.

    Args:
        runtime: One of `FILES`.
        path: The first of its files.
        precision: 'fp32', 'fp16', 'bf16' or 'int8', what it was exported as.
        threads: Number of threads to compute with; None leaves it to the runtime.
    """
    loaders = {
        "onnx": _onnx,
        "openvino": _openvino,
        "ncnn": _ncnn,
        "litert": _litert,
        "executorch": _executorch,
    }
    return loaders[runtime](path, precision, threads)


def _onnx(path: Path, precision: str, threads: int | None) -> Loaded:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if threads is not None:
        options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    shape = session.get_inputs()[0].shape
    return Loaded(shape, lambda inputs: session.run(None, {"image": inputs}))


@cache
def openvino_core() -> Any:
    """MixDet's only `openvino.Core`, which is never let go.

    Each gives the thread that it is made in a signal stack, and when it goes frees that and puts
    back the one before. Of two that go in the order in which they came, the one put back is free,
    and the next signal, such as the end of a data loader's worker, ends the process (2026.4).
    """
    import openvino

    core = openvino.Core()
    core.set_property({"ENABLE_MMAP": False})  # a file may be exported again while it is in use
    return core


def _openvino(path: Path, precision: str, threads: int | None) -> Loaded:
    core = openvino_core()
    model = core.read_model(path)
    shape = [each.get_length() if each.is_static else None for each in model.input().partial_shape]
    # Where the CPU can, OpenVINO computes in bfloat16 by itself, which moves boxes by pixels
    hint = {"fp16": "f16", "bf16": "bf16"}.get(precision, "f32")

    def compiled() -> Any:
        config = {"INFERENCE_PRECISION_HINT": hint}
        if threads is not None:
            config["INFERENCE_NUM_THREADS"] = threads
        return core.compile_model(model, "CPU", config)

    one = compiled()
    batch = BATCH if shape[0] == 1 and _reshaped(model, BATCH) else 1

    @cache
    def many() -> Any:
        return compiled()  # half a second or more: only when it is asked for

    def run(inputs: np.ndarray) -> list[np.ndarray]:
        network = many() if 1 < batch == len(inputs) else one
        return list(network(inputs).values())

    return Loaded(shape, run, batch)


def _reshaped(model: Any, images: int) -> bool:
    """Make a model of one image one of several, if `mixdet.deploy.to_openvino` converted it."""
    _, *image = (each.get_length() for each in model.input().partial_shape)
    wanted = [[images, *list(each.shape)[1:]] for each in model.outputs]
    try:
        model.reshape([images, *image])
    except RuntimeError:
        return False
    return [list(each.shape) for each in model.outputs] == wanted


def _ncnn(path: Path, precision: str, threads: int | None) -> Loaded:
    import ncnn

    net = ncnn.Net()
    for option in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic"):
        setattr(net.opt, option, precision == "fp16")
    net.load_param(str(path))
    net.load_model(str(path.with_suffix(".bin")))

    def run(inputs: np.ndarray) -> list[np.ndarray]:
        # ncnn has neither uint8 tensors nor a batch: float planes of one image
        planes = np.ascontiguousarray(inputs[0].transpose(2, 0, 1), np.float32)
        extractor = net.create_extractor()
        extractor.input("in0", ncnn.Mat(planes))
        outputs = []
        for name in ("out0", "out1"):
            failed, output = extractor.extract(name)
            if failed or output.empty():  # which NumPy reads beyond its end
                raise MixDetError(f"{path}: ncnn computes no {name}: export again")
            outputs.append(np.array(output).reshape(1, -1, output.w))
        return outputs

    return Loaded(None, run)


def _litert(path: Path, precision: str, threads: int | None) -> Loaded:
    from ai_edge_litert.interpreter import Interpreter

    run = Interpreter(str(path)).get_signature_runner()

    def call(inputs: np.ndarray) -> list[np.ndarray]:
        outputs = run(args_0=inputs)
        return [outputs["output_0"], outputs["output_1"]]

    return Loaded(None, call)


def _executorch(path: Path, precision: str, threads: int | None) -> Loaded:
    import torch  # ExecuTorch's Python takes torch's tensors; on a phone there are none
    from executorch.runtime import Runtime

    program = Runtime.get().load_program(path)
    method = program.load_method("forward")

    def call(inputs: np.ndarray) -> list[np.ndarray]:
        return [output.numpy().copy() for output in method.execute([torch.from_numpy(inputs)])]

    return Loaded(None, call)
