"""`fuse`: time MixConv on ONNX Runtime and OpenVINO in three forms.

The forms are: as trained, padded (one convolution with zero-padded kernels), and as rewritten by
`fuse`.
"""

from __future__ import annotations

import copy
import importlib.util
import logging
import tempfile
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import mixdet.plugin

import numpy as np
import torch
from mmcv.cnn import fuse_conv_bn
from mmdet.registry import MODELS
from mmengine.registry import init_default_scope
from torch import Tensor, nn

from benchmarks.processes import remote_function, time_remote_in_turns
from benchmarks.timing import median_and_range
from benchmarks.weights import initialize
from mixdet.analysis.complexity import count_madds
from mixdet.config.read import read_config
from mixdet.errors import MixDetError
from mixdet.inference.runtimes import RUNTIME_PACKAGES, load
from mixdet.machine import machine_record
from mixdet.models.fusing import fuse
from mixdet.visual.tables import text_table

RUNTIMES = ("onnx", "openvino")


def fold_norms_only(model: nn.Module, target: str) -> nn.Module:
    """Fold batch norm into the convolutions, and leave each MixConv as trained."""
    return fuse_conv_bn(copy.deepcopy(model).eval())


FUSING_FORMS: dict[str, Callable[[nn.Module, str], nn.Module]] = {
    "as trained": fold_norms_only,
    "padded": partial(fuse, branched=False),
    "as fused": fuse,
}
# Groups of (config, form). The table compares each row with the first one of its group
GROUPS = (
    (
        ("ssdlite_mobilenet_v2_5x5_coco", "as fused"),
        *(("ssdlite_mobilenet_v2_mix357_coco", form) for form in FUSING_FORMS),
    ),
    tuple(("ssdlite_mixnet_m_coco", form) for form in FUSING_FORMS),
)


class LevelOutputs(nn.Module):
    """Backbone, neck and head of a detector, with the outputs of all levels in one tuple."""

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return the class logits of each level, then the box offsets of each level."""
        scores, offsets = self.detector(image, mode="tensor")
        return *scores, *offsets


def measure(
    rounds: int = 5, groups: Sequence[Sequence[tuple[str, str]]] = GROUPS
) -> dict[str, object]:
    """Time backbone, neck and head for one image of the config's size, on one thread.

    Args:
        rounds: Number of timed rounds. All forms take turns in one process per runtime.
        groups: Configs and forms, as in `GROUPS`.

    Returns:
        The machine, the settings and the rows. A row has a config, a form, and the milliseconds of
        CPU time and the multiply-adds for each runtime.

    Raises:
        MixDetError: Neither ONNX Runtime nor OpenVINO is installed.
    """
    runtimes = [name for name in RUNTIMES if importlib.util.find_spec(RUNTIME_PACKAGES[name])]
    if not runtimes:
        raise MixDetError("no runtime is installed: pip install 'mixdet[onnx,openvino]'")
    init_default_scope("mmdet")
    measured_on = machine_record()
    keys = [(number, *row) for number, group in enumerate(groups) for row in group]
    madds: dict[tuple, dict[str, int]] = {key: {} for key in keys}
    milliseconds: dict[tuple, dict[str, dict]] = {key: {} for key in keys}
    with tempfile.TemporaryDirectory() as folder:
        for runtime in runtimes:
            files = {}
            for key in keys:
                _, config, form = key
                files[key] = Path(folder, f"{'-'.join(map(str, key))}-{runtime}.onnx")
                madds[key][runtime] = _export(config, form, runtime, files[key])
            with remote_function(_load_files, runtime, files) as run:
                tasks = {key: (run, key) for key in keys}
                seconds = time_remote_in_turns(tasks, rounds, threads=1)
            for key, values in seconds.items():
                milliseconds[key][runtime] = median_and_range([1000 * value for value in values])
    rows = [
        {"group": group, "config": config, "form": form}
        | {"milliseconds": milliseconds[group, config, form], "madds": madds[group, config, form]}
        for group, config, form in keys
    ]
    return {"kind": "fuse", "machine": measured_on, "settings": {"rounds": rounds}, "rows": rows}


def _export(config: str, form: str, runtime: str, file: Path) -> int:
    """Write a form of a detector as ONNX for a runtime, and return the number of multiply-adds."""
    cfg = read_config(config)
    cfg.model.backbone.init_cfg = None  # pretrained weights are not needed
    model = MODELS.build(cfg.model)
    initialize(model)
    network = LevelOutputs(FUSING_FORMS[form](model, runtime)).eval()
    width, height = model.input_wh
    image = torch.zeros(1, 3, height, width)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        madds = count_madds(network, image)
        program = torch.onnx.export(
            network, (image,), input_names=["image"], opset_version=18, dynamo=True, verbose=False
        )
    program.save(file)
    return madds


def _load_files(runtime: str, files: dict[tuple, Path]) -> Callable[[tuple], None]:
    """Load all files, and return a function that takes a key and runs the key's file once."""
    loaded = {key: load(runtime, file, threads=1) for key, file in files.items()}
    images = {key: np.zeros(network.shape, np.float32) for key, network in loaded.items()}

    def run(key: tuple) -> None:
        loaded[key].run(images[key])

    return run


def table(record: dict[str, object], markdown: bool = False) -> str:
    """Lay out the record of `measure` as text.

    The table shows the time of each row's fastest round. In parentheses, this time is divided by
    the time of the first row in the group.
    """
    first_rows = {}
    rows = []
    for row in record["rows"]:
        first = first_rows.setdefault(row["group"], row)["milliseconds"]
        cells = [f"{row['config']}, {row['form']}"]
        for runtime, time in row["milliseconds"].items():
            ratio = time["low"] / first[runtime]["low"]
            cells += [f"{row['madds'][runtime] / 1e6:.0f}", f"{time['low']:.1f} ({ratio:.2f})"]
        rows.append(cells)
    header = ["fastest round, one thread"]
    for runtime in record["rows"][0]["milliseconds"]:
        header += [f"{runtime}, million multiply-adds", f"{runtime}, ms"]
    return text_table(header, rows, markdown)
