"""Convert networks to 16 bits: float16 for ONNX Runtime and OpenVINO, bfloat16 for OpenVINO."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import onnx


def convert_onnx_to_float16(model: onnx.ModelProto, nodes: Collection[str]) -> onnx.ModelProto:
    """Return a network in ONNX whose layers compute in float16.

    Inputs, outputs and the decoding of boxes stay in float32.

    Args:
        model: The float32 network. It may be changed.
        nodes: Names of the nodes that may compute in float16. They are the keys of the dict that
            `mixdet.deploy.quantization.blocks_of_nodes` returns.
    """
    from onnxruntime.transformers.float16 import convert_float_to_float16

    others = [node.name for node in model.graph.node if node.name not in nodes]
    return convert_float_to_float16(model, keep_io_types=True, node_block_list=others)


def round_openvino_weights(model: Any, dtype: str) -> None:
    """Round the weights of an OpenVINO model's convolutions. Other constants stay in float32.

    Args:
        model: The `openvino.Model`, which is changed in place.
        dtype: 'f16' or 'bf16'.
    """
    import openvino
    from openvino import opset13

    for op in model.get_ordered_ops():
        if op.get_type_name() in ("Convolution", "GroupConvolution"):
            weights = np.array(op.input_value(1).get_node().data)
            rounded = opset13.constant(weights, getattr(openvino.Type, dtype))
            op.input(1).replace_source_output(opset13.convert(rounded, "f32").output(0))
