"""OpenVINO's form of an ONNX file."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def convert(file: Path) -> Any:
    """Read an ONNX file as an `openvino.Model` that can be reshaped to any number of images.

    torch writes the shapes of a single image as constants; here their 1 becomes what is there.
    """
    import openvino
    from openvino import opset13 as opset

    model = openvino.convert_model(file)
    for op in model.get_ordered_ops():
        if (
            op.get_type_name() != "Reshape"
            or op.input_value(1).get_node().get_type_name() != "Constant"
        ):
            continue
        values, sizes = op.input_value(0), op.input_value(1).get_node().get_data().tolist()
        given = values.get_partial_shape()
        if given.rank.is_static and len(given) and given[0] == 1 and sizes[:1] == [1]:
            free = opset.reshape(values, [0, *sizes[1:]], special_zero=True)
            free.set_friendly_name(op.get_friendly_name())
            op.output(0).replace(free.output(0))
    return model
