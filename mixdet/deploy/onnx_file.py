"""Write ONNX files that every tool can read: all ONNX files of an export are written here."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx


def write_onnx(model: onnx.ModelProto, path: str | os.PathLike) -> None:
    """Write a valid ONNX file that states nothing about the machine that writes it.

    - The nodes are sorted topologically. Converters append new nodes at the end.
    - The metadata and documentation of nodes, values and graphs are left out: torch's exporter
      stores the stack trace of every node there. The metadata of the model is kept.
    - The types and shapes between the nodes are inferred again. Converters can leave wrong types.

    Args:
        model: The network. It is not changed.
        path: The file to write.

    Raises:
        onnx.checker.ValidationError: The network is not valid ONNX.
        onnx.shape_inference.InferenceError: The types or shapes of the network contradict each
            other.
    """
    import onnx
    import onnx_ir
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass, TopologicalSortPass

    graph_model = onnx_ir.from_proto(model)
    TopologicalSortPass()(graph_model)
    ClearMetadataAndDocStringPass()(graph_model)
    model = onnx_ir.to_proto(graph_model)
    graph = model.graph
    model.ClearField("doc_string")
    graph.ClearField("doc_string")
    graph.ClearField("metadata_props")
    graph.ClearField("value_info")
    for value in (*graph.input, *graph.output, *graph.initializer):
        value.ClearField("doc_string")
        value.ClearField("metadata_props")
    onnx.checker.check_model(model, full_check=True)
    model = onnx.shape_inference.infer_shapes(
        model, check_type=True, strict_mode=True, data_prop=True
    )
    Path(path).write_bytes(model.SerializeToString())
