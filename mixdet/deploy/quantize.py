"""Eight bits: calibrated on the training split, what it harms most kept in float.

Weights have seven bits and a scale a channel: without VNNI, x86 adds pairs of 8-bit products in 16
bits, which eight overflow ("reduce_range" of ONNX Runtime, `OverflowFix` of NNCF). So a file gives
the same boxes on every CPU.
"""

from __future__ import annotations

import bisect
import contextlib
import logging
import re
import shutil
import tempfile
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import mixdet.plugin

import numpy as np
import torch
from mmdet.structures.bbox import bbox_overlaps

from mixdet.deploy.labeled_images import LabeledImages
from mixdet.deploy.to_openvino import convert
from mixdet.images import as_rgb
from mixdet.inference.exported import ExportedFile, network_input
from mixdet.inference.runtimes import FILES, load

RANKING_IMAGES = 20
SWEEP_IMAGES = 200
SQUEEZE_EXCITE = "se"  # modules of that name: little to compute, and 8 bits would make it slower
# Share of the input's pixels up to which OpenVINO's depthwise convolutions are no faster in 8 bits:
# between 1/64, which is an output of stride 8, and 1/16, of stride 4
SMALL_SHARE = 1 / 32
# Of 8 bits, in a row of AMX's tiles. Where a group of a 1x1 convolution has more channels, no
# multiple of it, OpenVINO 2026.4 can give wrong numbers on CPUs with AMX: to try with later ones
TILE_CHANNELS = 64
MARGIN = 0.5  # of what may be lost: the sweep's images are few, and of the training split


class Quantizer:
    """Makes 8-bit files of one exported network.

    Only what comes from the detector's modules is quantized, and of these not squeeze-excite, nor
    for OpenVINO some grouped convolutions (see `quantize`): normalization, decoding, anchors,
    softmax and NMS stay in float.

    Args:
        file: The float32 network, `model.onnx`.
        manifest: Its manifest, with `calibration_images` and `max_drop`.
        training: Images of the training split; the sweep takes others than the calibration.
    """

    def __init__(self, file: Path, manifest: dict[str, Any], training: LabeledImages) -> None:
        self.file, self.manifest = file, manifest
        self.blocks = blocks(file, squeeze_excite=False)
        self._ranges = file.with_name("ranges.json")
        count = min(manifest["calibration_images"], len(training))
        picked = np.linspace(0, len(training) - 1, count).round().astype(int)
        self.inputs = [network_input([as_rgb(training.files[index])], manifest) for index in picked]
        others = np.setdiff1d(np.arange(len(training)), picked)
        others = others if len(others) else picked
        spread = np.linspace(0, len(others) - 1, min(SWEEP_IMAGES, len(others))).round()
        self.sweep = training.some(others[spread.astype(int)])
        self._ranking: list[str] = []

    def write(self, target: str, folder: Path) -> list[str]:
        """Write a target's files, with few blocks in float: as many as the mAP was found to need.

        Args:
            target: 'onnx' or 'openvino'.
            folder: Where.

        Returns:
            The blocks in float, the most sensitive first.
        """
        every = set(self.blocks.values())
        wanted = self._mean_ap("onnx", self.file.parent) - MARGIN * self.manifest["max_drop"]

        def kept(count: int) -> list[str]:
            return self._sensitive()[:count] if count else []

        with tempfile.TemporaryDirectory() as work:

            def made(count: int) -> Path:
                path = Path(work, str(count))
                if not path.is_dir():
                    path.mkdir()
                    self._write(target, path, every - {*kept(count)})
                return path

            def enough(count: int) -> bool:
                found = self._mean_ap(target, made(count))
                print(
                    f"{target}, blocks in float: {count} of {len(every)}: mAP {found:.4f} on "
                    f"{len(self.sweep)} images ({wanted:.4f} wanted)",
                    flush=True,
                )
                return found >= wanted

            count = 0
            if not enough(0):
                count = 1 + bisect.bisect_left(range(1, len(every)), True, key=enough)
            shutil.copytree(made(count), folder, dirs_exist_ok=True)
        return kept(count)

    def _sensitive(self) -> list[str]:
        """All blocks, by how much one of them alone in 8 bits changes what is detected."""
        if not self._ranking:
            inputs = self.inputs[:: max(1, len(self.inputs) // RANKING_IMAGES)]
            with tempfile.TemporaryDirectory() as folder:
                file, path = self.file, Path(folder, FILES["onnx"][0])
                if self.manifest["kind"] == "end2end":  # outputs before NMS stay in their places
                    import onnx

                    file = Path(folder, "raw.onnx")
                    names = ["candidates", "candidate_scores"]
                    onnx.utils.extract_model(self.file, file, ["image"], names)
                want = _outputs(file, inputs)
                ratios = {}
                for block in dict.fromkeys(self.blocks.values()):
                    nodes = [name for name, found in self.blocks.items() if found == block]
                    quantize("onnx", file, path.parent, nodes, self.inputs, self._ranges)
                    ratios[block] = signal_to_noise(want, _outputs(path, inputs))
            self._ranking = sorted(ratios, key=ratios.__getitem__)
            for block in self._ranking:
                print(f"{block} alone in 8 bits: {ratios[block]:.1f} dB", flush=True)
        return self._ranking

    def _mean_ap(self, target: str, folder: Path) -> float:
        return self.sweep.mean_ap(self.sweep.found(ExportedFile(self.manifest, target, folder)))

    def _write(self, target: str, folder: Path, quantized: Collection[str]) -> None:
        nodes = [name for name, block in self.blocks.items() if block in quantized]
        quantize(target, self.file, folder, nodes, self.inputs, self._ranges)


def quantize(
    target: str,
    file: Path,
    folder: Path,
    nodes: list[str],
    inputs: Sequence[np.ndarray],
    ranges: Path,
) -> None:
    """Write a network with some of its nodes in 8 bits.

    Args:
        target: 'onnx' or 'openvino'.
        file: The float32 network, an ONNX file.
        folder: Where to.
        nodes: Names of those nodes. For OpenVINO, small depthwise convolutions
            (`SMALL_SHARE`) stay in float, and grouped 1x1 ones that may be wrong with AMX
            (`TILE_CHANNELS`).
        inputs: What to calibrate on, as the network takes it: (N, H, W, 3) each.
        ranges: A file in which ONNX Runtime keeps what it found, for the next call.
    """
    path = folder / FILES[target][0]
    if target == "openvino":
        _nncf(file, path, nodes, inputs)
    elif nodes:
        _onnxruntime(file, path, nodes, inputs, ranges)
    else:
        shutil.copy(file, path)


def signal_to_noise(
    want: Sequence[Sequence[np.ndarray]], found: Sequence[Sequence[np.ndarray]]
) -> float:
    """How much of what a network detects is left in another form of it.

    The signal is the scores. Noise is what they change by, and where a box moves, the score of its
    best class times what is lost in IoU: the many boxes that show nothing count for nothing.

    Args:
        want: Of each image, boxes (1, A, 4) and scores (1, A, classes) of the network.
        found: Those of the other form.

    Returns:
        Decibels; very many where nothing changed, minus infinity where the other form is no number.
    """
    signal = noise = 0.0
    for (boxes, scores), (other_boxes, other_scores) in zip(want, found, strict=True):
        pairs = (torch.from_numpy(each).squeeze(0) for each in (boxes, other_boxes))
        overlaps = bbox_overlaps(*pairs, is_aligned=True).numpy()
        moved = scores.max(-1) * (1 - overlaps)
        signal += np.square(scores).sum()
        noise += np.square(scores - other_scores).sum() + np.square(moved).sum()
    if not np.isfinite(noise):
        return -np.inf
    return 10 * np.log10(signal / max(noise, np.finfo(float).tiny))


def _outputs(file: Path, inputs: Sequence[np.ndarray]) -> list[list[np.ndarray]]:
    run = load("onnx", file).run
    return [run(image) for image in inputs]


def blocks(file: Path, squeeze_excite: bool = True) -> dict[str, str]:
    """The block of every node that may have fewer bits.

    Args:
        file: An ONNX file, in which torch's exporter has named the module of every node.
        squeeze_excite: With what squeeze-excite computes.

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
        if modules and (squeeze_excite or SQUEEZE_EXCITE not in modules[-1].split(".")):
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


def _stays_in_float(op: Any, pixels: float) -> bool:
    """Whether 8 bits make an OpenVINO operation no faster, or wrong: a grouped convolution.

    Args:
        op: The operation.
        pixels: Of an image, as the network takes it.
    """
    if op.get_type_name() != "GroupConvolution":
        return False
    # Weights are (groups, channels out, channels in, kernel height, width), channels of a group
    *_, channels, kernel_height, kernel_width = op.get_input_shape(1)
    if channels == 1:  # depthwise
        *_, height, width = op.get_output_partial_shape(0)
        return height.get_length() * width.get_length() <= SMALL_SHARE * pixels
    one_tap = kernel_height == kernel_width == 1
    return one_tap and channels > TILE_CHANNELS and channels % TILE_CHANNELS != 0


def _onnx_node(op: Any) -> str:
    """The node of ONNX that it comes from: several do, as 'conv2d' and 'conv2d/WithoutBiases'."""
    return op.friendly_name.split("/")[0]


def _nncf(file: Path, path: Path, nodes: list[str], inputs: Sequence[np.ndarray]) -> None:
    import nncf
    import openvino

    model = convert(file)
    ops = [
        op
        for op in model.get_ordered_ops()
        if op.get_type_name() not in ("Constant", "Parameter", "Result")
    ]
    pixels = inputs[0][0].size / 3
    names = {*nodes} - {_onnx_node(op) for op in ops if _stays_in_float(op, pixels)}
    others = [op.friendly_name for op in ops if _onnx_node(op) not in names]
    if names:
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
