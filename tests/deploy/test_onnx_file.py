"""Every ONNX file is valid: the checks of onnx accept it, and all runtimes agree on its outputs."""

from __future__ import annotations

import cv2
import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
import torch
from onnx import TensorProto, checker, helper, parser, shape_inference
from onnx.reference import ReferenceEvaluator

from mixdet.deploy import export
from mixdet.deploy.onnx_file import write_onnx


@pytest.fixture(
    scope="module",
    params=["fp32", "fp16", pytest.param("int8", marks=pytest.mark.heavy)],
)
def folder(request, trained, exported, tmp_path_factory):
    """A folder with the exported folders `raw` and `end2end`, for each of three precisions."""
    if request.param == "fp32":
        return exported
    out = tmp_path_factory.mktemp(request.param)
    options = dict(precision=request.param, max_drop=1.0, check=False, calibration_images=2)
    export(*trained, out, kinds=("raw", "end2end"), **options)
    return out


@pytest.mark.parametrize("kind", ["raw", "end2end"])
def test_an_exported_file_is_valid(folder, kind):
    file = folder / kind / "model.onnx"
    model = onnx.load(file)
    checker.check_model(model, full_check=True)
    checker.check_model(str(file), full_check=True)
    shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    known = {value.name for value in (*model.graph.input, *model.graph.initializer)}
    for node in model.graph.node:
        assert {name for name in node.input if name} <= known
        known |= set(node.output)
    types = {value.name: value.type.tensor_type.elem_type for value in model.graph.value_info}
    assert len(types) > 40
    assert ({*types.values()} >= {TensorProto.FLOAT16}) == (folder.name[:4] == "fp16")


@pytest.mark.parametrize("kind", ["raw", "end2end"])
def test_runtimes_agree(folder, kind):
    """ONNX Runtime, OpenVINO, OpenCV and onnx's reference evaluator give nearly equal outputs."""
    file = folder / kind / "model.onnx"
    images = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), dtype=np.uint8)
    model = openvino.Core().compile_model(
        openvino.convert_model(file), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    want = onnxruntime.InferenceSession(file).run(None, {"image": images})
    outputs = [
        list(model(images).values()),
        ReferenceEvaluator(str(file)).run(None, {"image": images}),
    ]
    if kind == "raw" or int(cv2.__version__.split(".")[0]) >= 5:  # OpenCV 4 cannot read end2end
        network = cv2.dnn.readNetFromONNX(str(file))
        network.setInput(images, "image")
        outputs.append(network.forward([value.name for value in onnx.load(file).graph.output]))
    for got in outputs:
        boxes, scores = np.abs(got[0] - want[0]), np.abs(got[1] - want[1])
        if kind == "end2end":  # skip padding, and detections of which the classes differ
            valid = (want[2] >= 0) & (got[2] == want[2])
            assert valid.sum() > 5
            boxes, scores = boxes[valid], scores[valid]
        assert np.median(boxes) < 0.5
        assert scores.max() < 0.02


UNSORTED = """
<ir_version: 10, opset_import: ["" : 18], doc_string: "made in /home/someone">
unsorted (float[N, 3] x) => (float[N, 3] y)
{
    y = Add (a, b)
    b = Cast <to = 1> (half)
    half = Cast <to = 10> (x)
    a = Relu (x)
}
"""


def test_write_onnx_sorts_nodes_and_drops_wrong_types_and_notes(tmp_path):
    model = parser.parse_model(UNSORTED)
    with pytest.raises(checker.ValidationError, match="topologically sorted"):
        checker.check_model(model)
    note = dict(key="stack", value='File "/home/someone/network.py"')
    for part in (*model.graph.node, *model.graph.input, *model.graph.output, model.graph):
        part.metadata_props.add(**note)
        part.doc_string = note["value"]
    wrong_type = helper.make_tensor_value_info("half", TensorProto.FLOAT, ["N", 3])
    wrong_type.metadata_props.add(**note)
    model.graph.value_info.append(wrong_type)
    helper.set_model_props(model, {"classes": '["a"]'})
    before = model.SerializeToString()
    write_onnx(model, tmp_path / "model.onnx")
    assert model.SerializeToString() == before
    assert b"someone" in before
    assert b"someone" not in (tmp_path / "model.onnx").read_bytes()
    written = onnx.load(tmp_path / "model.onnx")
    checker.check_model(written, full_check=True)
    assert [(prop.key, prop.value) for prop in written.metadata_props] == [("classes", '["a"]')]
    types = {value.name: value.type.tensor_type.elem_type for value in written.graph.value_info}
    assert types["half"] == TensorProto.FLOAT16
    x = np.float32([[-1, 2, 3.0001]])
    (y,) = onnxruntime.InferenceSession(tmp_path / "model.onnx").run(None, {"x": x})
    half = torch.from_numpy(x).half().float()
    assert np.array_equal(y, (torch.from_numpy(x).relu() + half).numpy())


def test_an_invalid_network_is_not_written(tmp_path):
    model = parser.parse_model(UNSORTED.replace("Relu (x)", "Relu (nothing)"))
    with pytest.raises(checker.ValidationError, match="nothing"):
        write_onnx(model, tmp_path / "model.onnx")
    contradiction = parser.parse_model(UNSORTED.replace("=> (float[N, 3] y)", "=> (float[N, 4] y)"))
    with pytest.raises(shape_inference.InferenceError):
        write_onnx(contradiction, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())
