"""Write a network with some of its nodes in 8 bits.

Weights use seven of the eight bits, and have one scale per channel. An x86 CPU without VNNI adds
pairs of products in 16 bits, and these sums would overflow with eight-bit weights. With seven bits,
a file gives the same boxes on every CPU. ONNX Runtime calls this option `reduce_range`, and NNCF
calls it `OverflowFix`.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mixdet.deploy.onnx_file import write_onnx
from mixdet.deploy.quiet import errors_only
from mixdet.deploy.to_openvino import convert_to_openvino
from mixdet.inference.runtimes import RUNTIME_FILES

if TYPE_CHECKING:
    import onnx

# Name of the squeeze-excite modules. These modules compute little, and are slower in 8 bits.
SQUEEZE_EXCITE = "se"
# In OpenVINO, a depthwise convolution is faster in 8 bits only if its output has more pixels than
# this fraction of the network's input. An output of stride 4 has 1/16 of the pixels, which is
# enough. An output of stride 8 has 1/64, which is not.
FLOAT_DEPTHWISE_AREA = 1 / 32
# Number of 8-bit channels in one row of an AMX tile. On CPUs with AMX, OpenVINO 2026.4 can compute
# wrong numbers for a grouped 1x1 convolution. This happens if the number of channels of a group is
# above this number and not a multiple of it. Later versions of OpenVINO may be correct.
AMX_ROW_CHANNELS = 64
# The opset of 8-bit files. onnx's reference evaluator (1.23) cannot compute DequantizeLinear of
# older opsets.
INT8_OPSET = 19


def blocks_of_nodes(model: onnx.ModelProto, squeeze_excite: bool = True) -> dict[str, str]:
    """Return the block of every node that may compute in fewer bits.

    A block is a group of nodes. Only the nodes of the detector's modules may compute in fewer bits.
    The nodes that normalize the image, decode boxes or do NMS are left out.

    Args:
        model: A network in ONNX whose nodes still have the metadata of torch's exporter, which
            state the module of each node. `mixdet.deploy.onnx_file.write_onnx` removes the
            metadata.
        squeeze_excite: False leaves out the nodes of squeeze-excite.

    Returns:
        A dict from node names to block names. The name of a block is the path of the node's module
        up to its first indices, such as 'backbone.blocks.2.0' for 'backbone.blocks.2.0.conv_pw.1'.
        If the path has no index, the name of the block is the path of the module's parent.
    """
    blocks: dict[str, str] = {}
    with_convolution = set()
    for node in model.graph.node:
        scopes = {prop.key: prop.value for prop in node.metadata_props}
        modules = re.findall(r"'detector\.([^']+)'", scopes.get("pkg.torch.onnx.name_scopes", ""))
        if modules and (squeeze_excite or SQUEEZE_EXCITE not in modules[-1].split(".")):
            indexed = re.match(r".*?(\.\d+)+", modules[-1])
            block = indexed.group() if indexed else modules[-1].rpartition(".")[0]
            if node.op_type == "Conv":
                with_convolution.add(block)
            blocks[node.name] = block
    previous = ""
    for name, block in blocks.items():
        # A block without a convolution is only an activation. It is joined to the block before it.
        previous = blocks[name] = block if block in with_convolution else previous
    return blocks


def quantize_nodes(
    target: str,
    file: Path,
    folder: Path,
    nodes: list[str],
    inputs: Sequence[np.ndarray],
    calibration_cache: Path,
) -> None:
    """Write a network with some of its nodes in 8 bits.

    Args:
        target: 'onnx' or 'openvino'.
        file: The float32 network, an ONNX file.
        folder: The folder to write to.
        nodes: Names of the nodes to compute in 8 bits. For OpenVINO, two kinds of these nodes stay
            in float: small depthwise convolutions (`FLOAT_DEPTHWISE_AREA`), and grouped
            1x1 convolutions that AMX can compute wrongly (`AMX_ROW_CHANNELS`).
        inputs: The calibration images, in the input format of the network: (N, H, W, 3) uint8.
        calibration_cache: A file in which ONNX Runtime keeps the ranges of the activations. The
            next call with the same network reads the ranges from this file.
    """
    path = folder / RUNTIME_FILES[target][0]
    if target == "openvino":
        _quantize_openvino(file, path, nodes, inputs)
    elif nodes:
        _quantize_onnx(file, path, nodes, inputs, calibration_cache)
    else:
        shutil.copy(file, path)


def _quantize_onnx(
    file: Path, path: Path, nodes: list[str], inputs: Sequence[np.ndarray], cache: Path
) -> None:
    import onnx.version_converter
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.remaining: Iterator[np.ndarray] = iter(inputs)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(({"image": image} for image in self.remaining), None)

    with errors_only():
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
    write_onnx(onnx.version_converter.convert_version(onnx.load(path), INT8_OPSET), path)


def _stays_in_float(op: Any, pixels: float) -> bool:
    """Return whether an OpenVINO operation must stay in float.

    In 8 bits, some grouped convolutions give wrong numbers, and others are not faster.

    Args:
        op: The operation.
        pixels: Number of pixels of the network's input.
    """
    if op.get_type_name() != "GroupConvolution":
        return False
    # Weights: (groups, output channels of a group, input channels of a group, height, width).
    *_, channels, kernel_height, kernel_width = op.get_input_shape(1)
    if channels == 1:  # depthwise
        *_, height, width = op.get_output_partial_shape(0)
        return height.get_length() * width.get_length() <= FLOAT_DEPTHWISE_AREA * pixels
    pointwise = kernel_height == kernel_width == 1
    return pointwise and channels > AMX_ROW_CHANNELS and channels % AMX_ROW_CHANNELS != 0


def _onnx_node(op: Any) -> str:
    """Return the name of the ONNX node that an operation was converted from.

    One node can become several operations, such as 'conv2d' and 'conv2d/WithoutBiases'.
    """
    return op.friendly_name.split("/")[0]


def _quantize_openvino(
    file: Path, path: Path, nodes: list[str], inputs: Sequence[np.ndarray]
) -> None:
    import nncf
    import openvino

    model = convert_to_openvino(file)
    ops = [
        op
        for op in model.get_ordered_ops()
        if op.get_type_name() not in ("Constant", "Parameter", "Result")
    ]
    pixels = inputs[0][0].size / 3
    names = set(nodes) - {_onnx_node(op) for op in ops if _stays_in_float(op, pixels)}
    ignored = [op.friendly_name for op in ops if _onnx_node(op) not in names]
    if names:
        with errors_only("nncf"):
            model = nncf.quantize(
                model,
                nncf.Dataset(inputs),
                subset_size=len(inputs),
                ignored_scope=nncf.IgnoredScope(names=ignored, validate=False),
                advanced_parameters=nncf.AdvancedQuantizationParameters(
                    overflow_fix=nncf.OverflowFix.ENABLE
                ),
            )
    openvino.save_model(model, path, compress_to_fp16=False)
