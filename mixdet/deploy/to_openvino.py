"""Convert an ONNX file to an OpenVINO model."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def convert_to_openvino(file: Path) -> Any:
    """Read an ONNX file as an `openvino.Model` that can be reshaped to any number of images.

    In a file for a single image, torch writes the batch size 1 as a constant into every reshape.
    This function lets every reshape copy the batch size of its input instead.
    """
    import openvino
    from openvino import opset13

    model = openvino.convert_model(file)
    for op in model.get_ordered_ops():
        if (
            op.get_type_name() != "Reshape"
            or op.input_value(1).get_node().get_type_name() != "Constant"
        ):
            continue
        values, shape = op.input_value(0), op.input_value(1).get_node().get_data().tolist()
        old_shape = values.get_partial_shape()
        if old_shape.rank.is_static and len(old_shape) and old_shape[0] == 1 and shape[:1] == [1]:
            # With special_zero, a size of 0 is copied from the input.
            free = opset13.reshape(values, [0, *shape[1:]], special_zero=True)
            free.set_friendly_name(op.get_friendly_name())
            op.output(0).replace(free.output(0))
    return model
