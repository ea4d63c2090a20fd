"""Eight bits: calibrated on the training split, what it harms most kept in float.

Weights have seven bits and a scale a channel: without VNNI, x86 adds pairs of 8-bit products in 16
bits, which eight overflow ("reduce_range" of ONNX Runtime, `OverflowFix` of NNCF). So a file gives
the same boxes on every CPU.
"""

from __future__ import annotations

import contextlib
import logging
import re
import shutil
import tempfile
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mixdet.deploy.exported import ExportedFile, network_input
from mixdet.deploy.pictures import Pictures
from mixdet.deploy.runtimes import FILES
from mixdet.inference import as_rgb

SWEEP_PICTURES = 100
MARGIN = 0.5  # of what may be lost: the sweep's pictures are few, and of the training split


class Quantiser:
    """Makes 8-bit files of one exported network.

    Only what comes from the detector's modules is quantised; normalisation, decoding, anchors,
    softmax and NMS stay in float.

    Args:
        file: The float32 network, `model.onnx`.
        manifest: Its manifest, with `calibration_pictures` and `max_drop`.
        training: Pictures of the training split; the sweep takes others than the calibration.
    """

    def __init__(self, file: Path, manifest: dict[str, Any], training: Pictures) -> None:
        self.file, self.manifest = file, manifest
        self.blocks = blocks(file)
        count = min(manifest["calibration_pictures"], len(training))
        picked = np.linspace(0, len(training) - 1, count).round().astype(int)
        self.inputs = [network_input([as_rgb(training.files[index])], manifest) for index in picked]
        others = np.setdiff1d(np.arange(len(training)), picked)
        others = others if len(others) else picked
        spread = np.linspace(0, len(others) - 1, min(SWEEP_PICTURES, len(others))).round()
        self.sweep = training.some(others[spread.astype(int)])
        self._ranking: list[str] = []

    def write(self, target: str, folder: Path) -> list[str]:
        """Write a target's files, with as few blocks in float as the mAP allows.

        Args:
            target: 'onnx' or 'openvino'.
            folder: Where.

        Returns:
            The blocks in float, the most sensitive first.
        """
        wanted = self._mean_ap("onnx", self.file.parent) - MARGIN * self.manifest["max_drop"]
        count = 0
        while True:
            kept = self._sensitive()[:count] if count else []
            self._write(target, folder, set(self.blocks.values()) - {*kept})
            if count == len(self._ranking) > 0 or self._mean_ap(target, folder) >= wanted:
                return kept
            count = min(max(1, 2 * count), len(self._sensitive()))

    def _sensitive(self) -> list[str]:
        """All blocks, by the mAP that is lost where one of them alone is quantised."""
        if not self._ranking:
            with tempfile.TemporaryDirectory() as folder:
                scores = {}
                for block in dict.fromkeys(self.blocks.values()):
                    self._write("onnx", Path(folder), {block})
                    scores[block] = self._mean_ap("onnx", Path(folder))
            self._ranking = sorted(scores, key=scores.__getitem__)
            for block in self._ranking:
                print(f"{block} alone in 8 bits: mAP {scores[block]:.4f}", flush=True)
        return self._ranking

    def _mean_ap(self, target: str, folder: Path) -> float:
        return self.sweep.mean_ap(self.sweep.found(ExportedFile(self.manifest, target, folder)))

    def _write(self, target: str, folder: Path, quantised: Collection[str]) -> None:
        nodes = [name for name, block in self.blocks.items() if block in quantised]
        path = folder / FILES[target][0]
        if target == "openvino":
            _nncf(self.file, path, nodes, self.inputs)
        elif nodes:
            cache = self.file.with_name("ranges.json")
            _onnxruntime(self.file, path, nodes, self.inputs, cache)
        else:
            shutil.copy(self.file, path)


def blocks(file: Path) -> dict[str, str]:
    """The block of every node that may be quantised.

    Args:
        file: An ONNX file, in which torch's exporter has named the module of every node.

    Returns:
        By the node's name, the path of its module up to the first indices, such as
        'backbone.blocks.2.0' of 'detector.backbone.blocks.2.0.conv_pw.1'; without, its parent's.
    """
    import onnx

    found: dict[str, str] = {}
    convolved = set()
    for node in onnx.load(file).graph.node:
        scopes = {prop.key: prop.value for prop in node.metadata_props}
        modules = re.findall(r"'detector\.([^']+)'", scopes.get("pkg.torch.onnx.name_scopes", ""))
        if modules:
            match = re.match(r".*?(\.\d+)+", modules[-1])
            block = match.group() if match else modules[-1].rpartition(".")[0]
            if node.op_type == "Conv":
                convolved.add(block)
            found[node.name] = block
    last = ""
    for name, block in found.items():  # an activation alone goes with its convolution
        last = found[name] = block if block in convolved else last
    return found


@contextlib.contextmanager
def _quiet(logger: logging.Logger) -> Iterator[None]:
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _onnxruntime(
    file: Path, path: Path, nodes: list[str], inputs: Sequence[np.ndarray], cache: Path
) -> None:
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.rest: Iterator[np.ndarray] = iter(inputs)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(({"image": image} for image in self.rest), None)

    with _quiet(logging.getLogger()):
        quantize_static(
            file,
            path,
            Reader(),
            nodes_to_quantize=nodes,
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibration_cache_path=cache,
        )


def _nncf(file: Path, path: Path, nodes: list[str], inputs: Sequence[np.ndarray]) -> None:
    import nncf
    import openvino

    model = openvino.convert_model(file)
    names = {*nodes}
    # Of one node of ONNX come several, as 'node_conv2d' and 'node_conv2d/WithoutBiases'
    others = [
        op.friendly_name
        for op in model.get_ordered_ops()
        if op.get_type_name() not in ("Constant", "Parameter", "Result")
        and op.friendly_name.split("/")[0] not in names
    ]
    if nodes:
        with _quiet(logging.getLogger("nncf")):
            model = nncf.quantize(
                model,
                nncf.Dataset(inputs),
                subset_size=len(inputs),
                ignored_scope=nncf.IgnoredScope(names=others, validate=False),
                advanced_parameters=nncf.AdvancedQuantizationParameters(
                    overflow_fix=nncf.OverflowFix.ENABLE
                ),
            )
    openvino.save_model(model, path, compress_to_fp16=False)
