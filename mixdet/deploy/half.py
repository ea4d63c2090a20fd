"""Sixteen bits: float16 for both runtimes, bfloat16 for OpenVINO."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np


def half_onnx(file: Path, path: Path, nodes: Collection[str]) -> None:
    """Write an ONNX file whose layers compute in float16; what decodes stays in float32.

    Args:
        file: The float32 file.
        path: The one to write.
        nodes: Names of the nodes that may be halved, as `mixdet.deploy.quantize.blocks` finds them.
    """
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    model = onnx.load(file)
    others = [node.name for node in model.graph.node if node.name not in nodes]
    model = convert_float_to_float16(model, keep_io_types=True, node_block_list=others)
    onnx.save(model, path)


def half_weights(model: Any, kind: str) -> None:
    """Round the weights of an OpenVINO model's convolutions; anchors stay as they are.

    Args:
        model: The model; changed in place.
        kind: 'f16' or 'bf16'.
    """
    import openvino
    from openvino import opset13

    for op in model.get_ordered_ops():
        if op.get_type_name() in ("Convolution", "GroupConvolution"):
            weights = np.array(op.input_value(1).get_node().data)
            rounded = opset13.constant(weights, getattr(openvino.Type, kind))
            op.input(1).replace_source_output(opset13.convert(rounded, "f32").output(0))
