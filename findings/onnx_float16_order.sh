#!/usr/bin/env bash
# ONNX Runtime's float16 converter turns a valid ONNX file into one that onnx.checker refuses.
#
# Seen with onnxruntime 1.32.0 and onnx 1.23.2. If `node_block_list` keeps some nodes in float32,
# onnxruntime.transformers.float16.convert_float_to_float16 appends Cast nodes to the end of the
# graph, behind the nodes that use their outputs. ONNX requires that a node comes after the nodes
# whose outputs it uses. ONNX Runtime sorts the nodes itself and runs the file, so the fault shows
# only in other tools.
#
# Output seen:
#   before: valid
#   after: Nodes in a graph must be topologically sorted, however input 'graph_input_cast_0' of
#     node: name: first OpType: Relu is not output of any previous nodes.
#   ONNX Runtime computes [[0.  0.5 2. ]]
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check onnx==1.23.2 onnxruntime==1.32.0
"$work/venv/bin/python" - <<'PYTHON'
import sys

import numpy as np
import onnx
import onnxruntime
from onnx import checker, parser
from onnxruntime.transformers.float16 import convert_float_to_float16

model = parser.parse_model("""
<ir_version: 10, opset_import: ["" : 18]>
halves (float[1, 3] x) => (float[1, 3] y)
<float half = {0.5}>
{
    [first] a = Relu (x)
    [second] b = Mul (a, half)
    [third] y = Relu (b)
}
""")
checker.check_model(model, full_check=True)
print("before: valid")
model = convert_float_to_float16(model, keep_io_types=True, node_block_list=["second"])
try:
    checker.check_model(model)
except checker.ValidationError as error:
    print("after:", " ".join(str(error).split()))
    refused = "topologically sorted" in str(error)
else:
    print("after: valid")
    refused = False
session = onnxruntime.InferenceSession(model.SerializeToString())
(y,) = session.run(None, {"x": np.float32([[-1, 1, 4]])})
print("ONNX Runtime computes", y)
sys.exit(not (refused and np.array_equal(y, [[0, 0.5, 2]])))
PYTHON
