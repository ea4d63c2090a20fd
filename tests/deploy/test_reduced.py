"""Files of fewer bits than 32: what is reduced, what stays in float, what they may lose."""

from __future__ import annotations

import json

import numpy as np
import onnx
import openvino
import pytest

from mixdet.deploy.export import export
from mixdet.deploy.exported import ExportedNetwork
from mixdet.deploy.quantise import Quantiser, blocks
from mixdet.errors import MixDetError


@pytest.fixture(scope="module", params=["fp16", pytest.param("int8", marks=pytest.mark.heavy)])
def reduced(request, trained, tmp_path_factory):
    out = tmp_path_factory.mktemp(request.param)
    export(*trained, out, targets=("onnx", "openvino"), precision=request.param, max_drop=1.0)
    return request.param, out


def convolutions_of_onnx(folder) -> set[str]:
    """What goes into the convolutions as weights."""
    nodes = onnx.load(folder / "model.onnx").graph
    types = {value.name: value.type.tensor_type.elem_type for value in nodes.value_info}
    types |= {tensor.name: tensor.data_type for tensor in nodes.initializer}
    made = {name: node.op_type for node in nodes.node for name in node.output}
    weights = [node.input[1] for node in nodes.node if node.op_type == "Conv"]
    return {made.get(name) or onnx.TensorProto.DataType.Name(types[name]) for name in weights}


def convolutions_of_openvino(folder) -> set[str]:
    """The same."""
    model = openvino.Core().read_model(folder / "model.xml")
    kinds = ("Convolution", "GroupConvolution")
    ops = [op for op in model.get_ordered_ops() if op.get_type_name() in kinds]
    return {op.input_value(1).get_node().get_type_name() for op in ops}


def test_convolutions_are_reduced_and_outputs_are_near(reduced, exported):
    precision, folder = reduced
    want = {"int8": {"DequantizeLinear"}, "fp16": {"FLOAT16"}}[precision]
    assert convolutions_of_onnx(folder) == want
    assert convolutions_of_onnx(exported / "raw") == {"FLOAT"}
    assert "Constant" not in convolutions_of_openvino(folder)
    assert convolutions_of_openvino(exported / "raw") == {"Constant"}
    image = np.random.default_rng(3).integers(0, 256, (1, 64, 64, 3), dtype=np.uint8)
    for runtime in ("onnx", "openvino"):
        got = ExportedNetwork(folder, runtime)._run(image)
        want = ExportedNetwork(exported / "raw", runtime)._run(image)
        limits = {"fp16": (0.1, 1e-3), "int8": (6, 0.05)}[precision]
        for a, b, most in zip(got, want, limits, strict=True):
            assert 0 < np.abs(a - b).max() < most


def test_the_manifest_says_what_it_is(reduced):
    precision, folder = reduced
    manifest = json.loads((folder / "mixdet.json").read_text())
    assert manifest["precision"] == precision
    for target in ("onnx", "openvino"):
        assert manifest["measured"][target]["max_drop"] == 1.0
        assert manifest["measured"][target]["mAP"] >= 0
    if precision == "int8":
        assert manifest["float_layers"] == {"onnx": [], "openvino": []}
        assert manifest["calibration_pictures"] == 300
        assert "In float, onnx: no layer" in (folder / "README.md").read_text()


def test_bfloat16_weights(trained, exported, tmp_path):
    export(*trained, tmp_path, targets=("openvino",), precision="bf16")
    size = {path: (path / "model.bin").stat().st_size for path in (tmp_path, exported / "raw")}
    assert size[tmp_path] < size[exported / "raw"]
    image = np.full((1, 64, 64, 3), 99, np.uint8)
    _, got = ExportedNetwork(tmp_path)._run(image)
    _, want = ExportedNetwork(exported / "raw", "openvino")._run(image)
    assert 0 < np.abs(got - want).max() < 0.01


def test_a_loss_beyond_max_drop_fails(trained, tmp_path):
    """No file loses less than nothing."""
    with pytest.raises(MixDetError, match=r"more is lost than --max-drop -1"):
        export(*trained, tmp_path, precision="fp16", max_drop=-1.0)
    assert json.loads((tmp_path / "mixdet.json").read_text())["measured"]["onnx"]["mAP"] >= 0


def test_blocks_of_the_detector_alone(exported):
    for kind in ("raw", "end2end"):
        found = blocks(exported / kind / "model.onnx")
        nodes = {node.name: node for node in onnx.load(exported / kind / "model.onnx").graph.node}
        assert {*found.values()} == {
            "backbone.first.0",
            "backbone.first.3",
            "backbone",
            *(f"bbox_head.{part}_convs.{level}.0" for part in ("cls", "reg") for level in (0, 1)),
        }
        convolutions = {name for name, node in nodes.items() if node.op_type == "Conv"}
        assert convolutions <= found.keys()
        others = {nodes[name].op_type for name in nodes.keys() - found.keys()}
        assert {"Softmax", "Exp", "Cast"} <= others


def test_the_most_sensitive_blocks_are_kept(exported, tmp_path, monkeypatch):
    """A stand-in for measuring: two blocks lose, and only without both is little enough lost."""
    quantiser = Quantiser.__new__(Quantiser)
    quantiser.file = tmp_path / "model.onnx"
    quantiser.manifest = {"max_drop": 0.02}
    quantiser.blocks = {str(index): f"block {index}" for index in range(9)}
    quantiser._ranking = []
    loses = {"block 3": 0.05, "block 7": 0.03, "block 1": 0.002}
    written = {}

    def write(target, folder, quantised):
        written[folder] = quantised

    def mean_ap(target, folder):
        return 0.7 - sum(loses.get(block, 0) for block in written.get(folder, ()))

    monkeypatch.setattr(quantiser, "_write", write)
    monkeypatch.setattr(quantiser, "_mean_ap", mean_ap)
    folder = tmp_path / "out"
    assert quantiser.write("onnx", folder) == ["block 3", "block 7"]
    assert written[folder] == {*quantiser.blocks.values()} - {"block 3", "block 7"}
    quantiser.manifest = {"max_drop": -1}
    assert len(quantiser.write("onnx", folder)) == 9
    assert written[folder] == set()


@pytest.mark.heavy
def test_a_sweep_in_earnest(trained, tmp_path, capsys):
    """Where nothing may be lost, less than nothing even, every block ends in float."""
    with pytest.raises(MixDetError, match="--max-drop"):
        export(*trained, tmp_path, precision="int8", max_drop=-1.0)
    manifest = json.loads((tmp_path / "mixdet.json").read_text())
    kept = manifest["float_layers"]["onnx"]
    assert len(kept) == 7
    said = capsys.readouterr().out
    assert all(f"{block} alone in 8 bits: mAP " in said for block in kept)
    assert convolutions_of_onnx(tmp_path) == {"FLOAT"}
    measured = manifest["measured"]["onnx"]
    assert measured["mAP"] == pytest.approx(measured["mAP_torch"], abs=5e-4)
