"""What runs exported files: NumPy arrays in and out, whichever the runtime."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from mixdet.errors import MixDetError

Run = Callable[[np.ndarray], list[np.ndarray]]
Loaded = tuple[Sequence[int | str | None] | None, Run]

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
# So many pictures of a raw file are computed at a time, fewer one by one: larger layers fill the
# processor better. Only where that is faster, and a file of one picture can be read as of more
BATCH = {"openvino": 8}
# What makes 8-bit files; their sweep runs on ONNX Runtime, whatever the target
INT8_PACKAGES = ("onnxruntime", "nncf")


def load(runtime: str, path: Path, precision: str = "fp32") -> Loaded:
    """Load a file.

    Args:
        runtime: One of `FILES`.
        path: The first of its files.
        precision: 'fp32', 'fp16', 'bf16' or 'int8', what it was exported as.

    Returns:
        The shape of the input, None where the file does not say it; and what computes, from
        pictures (N, H, W, 3) uint8 to the outputs that the folder's kind has. For a raw file N is
        1, or what `BATCH` says of the runtime.
    """
    loaders = {
        "onnx": _onnx,
        "openvino": _openvino,
        "ncnn": _ncnn,
        "litert": _litert,
        "executorch": _executorch,
    }
    return loaders[runtime](path, precision)


def _onnx(path: Path, precision: str) -> Loaded:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return session.get_inputs()[0].shape, lambda inputs: session.run(None, {"image": inputs})


@cache
def openvino_core() -> Any:
    """The process's only `openvino.Core`, which is never let go.

    Each gives the thread that it is made in a signal stack, and takes away the one before when it
    goes: when two go in the order in which they came, the next signal, such as the end of a worker
    of a data loader, ends the process (OpenVINO 2026.4).
    """
    import openvino

    core = openvino.Core()
    core.set_property({"ENABLE_MMAP": False})  # a file may be exported again while it is in use
    return core


def _openvino(path: Path, precision: str) -> Loaded:
    core = openvino_core()
    model = core.read_model(path)
    shape = [each.get_length() if each.is_static else None for each in model.input().partial_shape]
    # Where the CPU can, OpenVINO computes in bfloat16 by itself, which moves boxes by pixels
    hint = {"fp16": "f16", "bf16": "bf16"}.get(precision, "f32")

    def compiled() -> Any:
        return core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": hint})

    one = compiled()

    @cache
    def batched() -> Any | None:
        try:
            model.reshape([BATCH["openvino"], *shape[1:]])
            return compiled()
        except RuntimeError:  # not exported by `mixdet.deploy.to_openvino`
            return None

    def run(inputs: np.ndarray) -> list[np.ndarray]:
        if len(inputs) == 1 or shape[0] is None:
            return list(one(inputs).values())
        if (network := batched()) is not None:
            return list(network(inputs).values())
        return [np.concatenate(each) for each in zip(*map(run, inputs[:, None]), strict=True)]

    return shape, run


def _ncnn(path: Path, precision: str) -> Loaded:
    import ncnn

    net = ncnn.Net()
    for option in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic"):
        setattr(net.opt, option, precision == "fp16")
    net.load_param(str(path))
    net.load_model(str(path.with_suffix(".bin")))

    def run(inputs: np.ndarray) -> list[np.ndarray]:
        # ncnn has neither uint8 tensors nor a batch: float planes of one picture
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

    return None, run


def _litert(path: Path, precision: str) -> Loaded:
    from ai_edge_litert.interpreter import Interpreter

    run = Interpreter(str(path)).get_signature_runner()

    def call(inputs: np.ndarray) -> list[np.ndarray]:
        outputs = run(args_0=inputs)
        return [outputs["output_0"], outputs["output_1"]]

    return None, call


def _executorch(path: Path, precision: str) -> Loaded:
    import torch  # ExecuTorch's Python takes torch's tensors; on a phone there are none
    from executorch.runtime import Runtime

    program = Runtime.get().load_program(path)
    method = program.load_method("forward")
    return None, lambda inputs: [
        output.numpy() for output in method.execute([torch.from_numpy(inputs)])
    ]
