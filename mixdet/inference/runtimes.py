"""Load exported files on their runtimes. Every runtime takes and returns NumPy arrays."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple

import numpy as np

from mixdet.errors import MixDetError
from mixdet.inference.processes import guard_call, omp_num_threads, usable_threads
from mixdet.machine import cores

Run = Callable[[np.ndarray], list[np.ndarray]]

# The files of each runtime. The path of the first one is passed to the runtime.
RUNTIME_FILES = {
    "onnx": ("model.onnx",),
    "openvino": ("model.xml", "model.bin"),
    "ncnn": ("model.ncnn.param", "model.ncnn.bin"),
    "litert": ("model.tflite",),
    "executorch": ("model.pte",),
}
# The Python package of each runtime
RUNTIME_PACKAGES = {
    "onnx": "onnxruntime",
    "openvino": "openvino",
    "ncnn": "ncnn",
    "litert": "ai_edge_litert",
    "executorch": "executorch",
}
# The keys of the manifest (`mixdet.json`) that an ONNX file repeats in its metadata
METADATA_KEYS = ("kind", "input", "classes", "postprocess")
# OpenVINO can reshape a network for one image to a network for this many images
OPENVINO_BATCH = 8
# ONNX Runtime and OpenVINO compute several images faster if each thread computes an image of its
# own than if all threads share an image. With more threads than this, some would have no image
MAX_STREAMS = 8
# Packages that an export to 8 bits needs for any target. ONNX Runtime measures which blocks (groups
# of layers) cost the most accuracy in 8 bits. NNCF quantizes for OpenVINO
INT8_PACKAGES = ("onnxruntime", "nncf")


class LoadedNetwork(NamedTuple):
    """A network on its runtime.

    Attributes:
        shape: Shape of the input. A size that is not fixed is None or a name. The whole shape is
            None if the file does not state it.
        run: Computes the outputs of images (N, H, W, 3) uint8. For a file of kind raw, N is 1 or
            `batch`. Several Python threads may call it: the calls run one after another. It
            raises `MixDetError` in a fork of the process that loaded the network.
        batch: Number of images that a file of kind raw computes at once, or 1 if it takes only
            single images.
        streams: Number of images that are computed faster by as many threads than one by one.
        stream: Returns a function like `run`, which takes one image, and computes it with one
            thread. `streams` threads may call it at the same time. None if `streams` is 1. The
            first call loads the network once more.
        metadata: The values of the manifest that the file itself states, by the keys in
            `METADATA_KEYS`. Files for other runtimes than ONNX Runtime and OpenVINO state none.
    """

    shape: Sequence[int | str | None] | None
    run: Run
    batch: int = 1
    streams: int = 1
    stream: Callable[[], Run] | None = None
    metadata: Mapping[str, Any] = {}


def load(
    runtime: str, path: Path, precision: str = "fp32", threads: int | None = None
) -> LoadedNetwork:
    """Load a file on its runtime, on the CPU.

    Args:
        runtime: A key of `RUNTIME_FILES`.
        path: The first file of the runtime in `RUNTIME_FILES`.
        precision: Precision that the file was exported with: 'fp32', 'fp16', 'bf16' or 'int8'.
        threads: Number of threads to compute with. None takes the environment variable
            `OMP_NUM_THREADS`. If this is not set, the runtime chooses.

    Raises:
        MixDetError: `threads` is given and the runtime is ExecuTorch, or the process is a fork in
            which the runtime cannot compute.
    """
    loaders = {
        "onnx": _onnx,
        "openvino": _openvino,
        "ncnn": _ncnn,
        "litert": _litert,
        "executorch": _executorch,
    }
    if runtime != "executorch":
        threads = usable_threads(RUNTIME_PACKAGES[runtime], threads) or omp_num_threads()
    elif threads is not None:
        raise MixDetError(
            f"{path}: ExecuTorch's Python package cannot set threads: leave threads out, or choose "
            "another runtime"
        )
    loaded = loaders[runtime](path, precision, threads)
    loaded = loaded._replace(run=guard_call(loaded.run))
    streams = threads or cores()
    if loaded.stream is None or not 1 < streams <= MAX_STREAMS:
        return loaded._replace(stream=None)

    @cache
    def stream() -> Run:
        return guard_call(loaded.stream(streams), one_at_a_time=False)

    return loaded._replace(streams=streams, stream=stream)


def _onnx(path: Path, precision: str, threads: int | None) -> LoadedNetwork:
    import onnxruntime

    def load_session(threads: int | None) -> Any:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors
        if threads is not None:
            options.intra_op_num_threads = threads
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run_on(session: Any) -> Run:
        return lambda images: session.run(None, {"image": images})

    session = load_session(threads)
    return LoadedNetwork(
        session.get_inputs()[0].shape,
        run_on(session),
        stream=lambda _: run_on(load_session(1)),  # computes in the thread that calls it
        metadata=_parse_metadata(session.get_modelmeta().custom_metadata_map),
    )


def _parse_metadata(texts: Mapping[str, str]) -> dict[str, Any]:
    """Return the values of an exported file's metadata, which are JSON texts."""
    return {key: json.loads(texts[key]) for key in METADATA_KEYS if key in texts}


@cache
def openvino_core() -> Any:
    """Return the only `openvino.Core` of the process, which is never released.

    A second Core could crash the process (OpenVINO 2026.4). A Core gives the thread that creates it
    a signal stack. When the Core is released, it frees this stack and restores the previous one. If
    two Cores are released in the order of their creation, the second Core restores the stack that
    the first Core has freed. The next signal then crashes the process, for example when a worker of
    a data loader ends.
    """
    import openvino

    core = openvino.Core()
    core.set_property({"ENABLE_MMAP": False})  # so a file in use can be overwritten by an export
    return core


def _openvino(path: Path, precision: str, threads: int | None) -> LoadedNetwork:
    core = openvino_core()
    model = core.read_model(path)
    # `convert_model` copies the metadata of an ONNX file to this place
    texts = {
        key: model.get_rt_info(["framework", key]).value
        for key in METADATA_KEYS
        if model.has_rt_info(["framework", key])
    }
    shape = [size.get_length() if size.is_static else None for size in model.input().partial_shape]
    # Without a hint, OpenVINO uses bfloat16 on CPUs that support it. This moves boxes by pixels
    hint = {"fp16": "f16", "bf16": "bf16"}.get(precision, "f32")
    config = {"INFERENCE_PRECISION_HINT": hint}
    if threads is not None:
        config["INFERENCE_NUM_THREADS"] = threads

    single = core.compile_model(model, "CPU", config)
    batch = OPENVINO_BATCH if shape[0] == 1 and _reshape(model, OPENVINO_BATCH) else 1

    @cache
    def batched() -> Any:  # compiled at its first use, since this takes half a second or more
        return core.compile_model(model, "CPU", config)

    def run(images: np.ndarray) -> list[np.ndarray]:
        network = batched() if 1 < batch == len(images) else single
        return list(network(images).values())

    def stream(count: int) -> Run:
        several = config | {"NUM_STREAMS": count, "INFERENCE_NUM_THREADS": count}
        network = core.compile_model(core.read_model(path), "CPU", several)
        requests: SimpleQueue = SimpleQueue()
        for _ in range(count):
            requests.put(network.create_infer_request())

        def run_one(images: np.ndarray) -> list[np.ndarray]:
            request = requests.get()
            try:
                return list(request.infer(images).values())
            finally:
                requests.put(request)

        return run_one

    return LoadedNetwork(shape, run, batch, stream=stream, metadata=_parse_metadata(texts))


def _reshape(model: Any, images: int) -> bool:
    """Reshape a model of one image to several images.

    Returns:
        Whether it worked. Only models that `mixdet.deploy.to_openvino` converted can be reshaped.
    """
    _, *image_shape = (size.get_length() for size in model.input().partial_shape)
    expected = [[images, *list(output.shape)[1:]] for output in model.outputs]
    try:
        model.reshape([images, *image_shape])
    except RuntimeError:
        return False
    return [list(output.shape) for output in model.outputs] == expected


def _ncnn(path: Path, precision: str, threads: int | None) -> LoadedNetwork:
    import ncnn

    net = ncnn.Net()
    for option in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic"):
        setattr(net.opt, option, precision == "fp16")
    if threads is not None:
        net.opt.num_threads = threads
    net.load_param(str(path))
    net.load_model(str(path.with_suffix(".bin")))

    def run(images: np.ndarray) -> list[np.ndarray]:
        # ncnn has neither uint8 tensors nor batches: it takes the (3, H, W) floats of one image
        planes = np.ascontiguousarray(images[0].transpose(2, 0, 1), np.float32)
        extractor = net.create_extractor()
        extractor.input("in0", ncnn.Mat(planes))
        outputs = []
        for name in ("out0", "out1"):
            failed, output = extractor.extract(name)
            if failed or output.empty():  # `np.array` reads invalid memory for an empty output
                raise MixDetError(f"{path}: ncnn computes no {name}: export again")
            outputs.append(np.array(output).reshape(1, -1, output.w))
        return outputs

    return LoadedNetwork(None, run)


def _litert(path: Path, precision: str, threads: int | None) -> LoadedNetwork:
    from ai_edge_litert.interpreter import Interpreter

    signature = Interpreter(str(path), num_threads=threads).get_signature_runner()

    def run(images: np.ndarray) -> list[np.ndarray]:
        outputs = signature(args_0=images)
        return [outputs["output_0"], outputs["output_1"]]

    return LoadedNetwork(None, run)


def _executorch(path: Path, precision: str, threads: int | None) -> LoadedNetwork:
    import torch  # the Python package of ExecuTorch takes torch tensors
    from executorch.runtime import Runtime

    program = Runtime.get().load_program(path)
    method = program.load_method("forward")

    def run(images: np.ndarray) -> list[np.ndarray]:
        return [output.numpy().copy() for output in method.execute([torch.from_numpy(images)])]

    return LoadedNetwork(None, run)
