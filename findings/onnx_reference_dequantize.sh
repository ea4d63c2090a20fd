#!/usr/bin/env bash
# onnx 1.23.2: the reference evaluator cannot compute DequantizeLinear of the opsets 10 to 18.
#
# onnx.checker accepts a model with QuantizeLinear and DequantizeLinear of opset 18, and the
# evaluator computes its QuantizeLinear. Its only classes for DequantizeLinear are those of opset 19
# and later, so it refuses to load the model. onnxruntime's quantize_static keeps the opset of its
# input, so 8-bit models often have such an opset.
# Remedy: onnx.version_converter.convert_version(model, 19), which changes no number.
#
# Output seen with onnx 1.23.2 and Python 3.11:
#   opset 13: No implementation for operator 'DequantizeLinear' domain '' and version 13
#   opset 18: No implementation for operator 'DequantizeLinear' domain '' and version 18
#   opset 18, QuantizeLinear alone: [0 1 2]
#   converted from 18 to 19: [0.  0.5 1. ]
#
# Exit code 0: as stated. Exit code 1: the behavior has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet onnx==1.23.2
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import numpy as np
from onnx import checker, parser, version_converter
from onnx.reference import ReferenceEvaluator

HEAD = """<ir_version: 8, opset_import: ["" : {}]>
network (float[3] x) => ({}[3] y) <float scale = {{0.5}}, uint8 zero = {{0}}>
"""
BOTH = HEAD + "{{ q = QuantizeLinear (x, scale, zero) y = DequantizeLinear (q, scale, zero) }}"
QUANTIZE = HEAD + "{{ y = QuantizeLinear (x, scale, zero) }}"
x = np.float32([0, 0.6, 1])


def compute(model):
    checker.check_model(model, full_check=True)
    return ReferenceEvaluator(model).run(None, {"x": x})[0]


refused = []
for opset in (13, 18):
    try:
        compute(parser.parse_model(BOTH.format(opset, "float")))
    except RuntimeError as error:
        refused.append(opset)
        print(f"opset {opset}: {str(error).partition(',')[0]}")
quantized = compute(parser.parse_model(QUANTIZE.format(18, "uint8")))
print("opset 18, QuantizeLinear alone:", quantized)
model = version_converter.convert_version(parser.parse_model(BOTH.format(18, "float")), 19)
converted = compute(model)
print("converted from 18 to 19:", converted)
as_stated = refused == [13, 18] and [*quantized] == [0, 1, 2] and [*converted] == [0, 0.5, 1]
sys.exit(0 if as_stated else 1)
PYTHON
