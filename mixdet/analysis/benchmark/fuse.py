"""What a MixConv costs on a runtime: split as it is trained, padded, and as `fuse` makes it."""

from __future__ import annotations

import mixdet.plugin  # noqa: F401 - before anything of mmdet's

# isort: split
import copy
import importlib.util
import logging
import tempfile
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from mmcv.cnn import fuse_conv_bn
from mmdet.registry import MODELS
from mmengine.registry import init_default_scope
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mixdet.analysis.benchmark.contestants import runtime_settings
from mixdet.analysis.benchmark.peers import initialise
from mixdet.analysis.benchmark.processes import served, take_turns
from mixdet.analysis.benchmark.timing import median_of
from mixdet.analysis.machine import machine
from mixdet.analysis.tables import text_table
from mixdet.deploy.runtimes import openvino_core
from mixdet.engine.config import read_config
from mixdet.errors import MixDetError
from mixdet.models.fusing import fuse

RUNTIMES = {"onnx": "onnxruntime", "openvino": "openvino"}  # targets and their packages
FORMS: dict[str, Callable[[nn.Module, str], nn.Module]] = {
    "as trained": lambda model, target: fuse_conv_bn(copy.deepcopy(model).eval()),
    "padded": partial(fuse, branched=False),
    "as fused": fuse,
}
# (config, form); a group's first row is what the others of it are compared with
ROWS = (
    (
        ("ssdlite_mobilenet_v2_5x5_coco", "as fused"),
        *(("ssdlite_mobilenet_v2_mix357_coco", form) for form in FORMS),
    ),
    tuple(("ssdlite_mixnet_m_coco", form) for form in FORMS),
)


def measure_fuse(
    rounds: int = 60, groups: Sequence[Sequence[tuple[str, str]]] = ROWS
) -> dict[str, object]:
    """Time backbone, neck and head for one picture of the config's size, on one thread.

    Args:
        rounds: How often each is timed; all forms take turns in one process a runtime.
        groups: As `ROWS`.

    Returns:
        machine, settings and rows, in milliseconds of the process's time by runtime.

    Raises:
        MixDetError: Neither runtime is installed.
    """
    runtimes = [name for name, package in RUNTIMES.items() if importlib.util.find_spec(package)]
    if not runtimes:
        raise MixDetError("no runtime: pip install 'mixdet[onnx,openvino]'")
    init_default_scope("mmdet")
    found = machine()
    with tempfile.TemporaryDirectory() as folder:
        keys = [(group, *row) for group, rows in enumerate(groups) for row in rows]
        madds = {
            (key, runtime): _export(key[1], key[2], runtime, _file(Path(folder), key, runtime))
            for key in keys
            for runtime in runtimes
        }
        times = {}
        for runtime in runtimes:
            files = {key: str(_file(Path(folder), key, runtime)) for key in keys}
            with served(_start, runtime, files) as ask:
                seconds = take_turns({key: (ask, key) for key in keys}, rounds, threads=1)
            for key, values in seconds.items():
                times[key, runtime] = median_of([1000 * value for value in values])
    rows = [
        {"group": key[0], "config": key[1], "form": key[2]}
        | {"milliseconds": {runtime: times[key, runtime] for runtime in runtimes}}
        | {"madds": {runtime: madds[key, runtime] for runtime in runtimes}}
        for key in keys
    ]
    return {"kind": "fuse", "machine": found, "settings": {"rounds": rounds}, "rows": rows}


def _file(folder: Path, key: tuple, runtime: str) -> Path:
    return folder / f"{'-'.join(map(str, key))}-{runtime}.onnx"


class _Outputs(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        scores, offsets = self.model(x, mode="tensor")
        return *scores, *offsets


def _export(config: str, form: str, runtime: str, file: Path) -> int:
    """Write a form of a detector as ONNX, which both runtimes read; its multiply-adds."""
    cfg = read_config(config)
    cfg.model.backbone.init_cfg = None  # weights do not matter, and are not to be fetched
    model = MODELS.build(cfg.model)
    initialise(model)
    network = _Outputs(FORMS[form](model, runtime)).eval()
    inputs = torch.zeros(1, 3, model.input_size, model.input_size)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with torch.no_grad(), warnings.catch_warnings(), FlopCounterMode(display=False) as counter:
        warnings.simplefilter("ignore")
        network(inputs)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            network, (inputs,), input_names=["x"], opset_version=18, dynamo=True, verbose=False
        )
    program.save(file)
    return counter.get_total_flops() // 2


def _start(runtime: str, files: dict[tuple, str]) -> Callable[[tuple], None]:
    """A process that runs the file which it is asked for once."""
    with runtime_settings(threads=1, bf16=False):
        runs = {key: _LOADERS[runtime](file) for key, file in files.items()}

    def answer(key: tuple) -> None:
        runs[key]()

    return answer


def _onnx(file: str) -> Callable[[], object]:
    import onnxruntime

    providers = ["CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(file, onnxruntime.SessionOptions(), providers)
    x = np.zeros(session.get_inputs()[0].shape, np.float32)
    return lambda: session.run(None, {"x": x})


def _openvino(file: str) -> Callable[[], object]:
    model = openvino_core().compile_model(file, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    x = np.zeros([each.get_length() for each in model.input().partial_shape], np.float32)
    return lambda: model(x)


_LOADERS = {"onnx": _onnx, "openvino": _openvino}


def fuse_table(record: dict[str, object], markdown: bool = False) -> str:
    """The record of `measure_fuse` as text: the fastest round, its ratio, and the median."""
    first = {}
    rows = []
    for row in record["rows"]:
        base = first.setdefault(row["group"], row)["milliseconds"]
        cells = [f"{row['config']}, {row['form']}"]
        for runtime, time in row["milliseconds"].items():
            ratio = time["low"] / base[runtime]["low"]
            cells += [
                f"{row['madds'][runtime] / 1e6:.0f}",
                f"{time['low']:.1f} ({ratio:.2f})",
                f"{time['median']:.1f}",
            ]
        rows.append(cells)
    header = ["milliseconds, one thread"]
    for runtime in record["rows"][0]["milliseconds"]:
        header += [f"{runtime}, million multiply-adds", f"{runtime}, least", f"{runtime}, median"]
    return text_table(header, rows, markdown)
