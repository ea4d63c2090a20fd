"""Files of fewer bits than 32: what is reduced, what stays in float, what they may lose."""

from __future__ import annotations

import json
import re

import numpy as np
import onnx
import openvino
import pytest
import torch
from torch import nn

from mixdet.deploy.export import export
from mixdet.deploy.exported import ExportedNetwork
from mixdet.deploy.quantise import Quantiser, blocks, quantise, signal_to_noise
from mixdet.deploy.runtimes import BATCH, FILES, load
from mixdet.errors import MixDetError
from mixdet.models.fusing import fuse
from mixdet.models.layers import InvertedResidual


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


def convolutions_of_openvino(folder) -> list[tuple[str, int, str]]:
    """Of each: its type, the height of its output, and what goes into it as weights."""
    model = openvino.Core().read_model(folder / "model.xml")
    return [
        (
            op.get_type_name(),
            op.get_output_partial_shape(0)[2].get_length(),
            op.input_value(1).get_node().get_type_name(),
        )
        for op in model.get_ordered_ops()
        if op.get_type_name() in ("Convolution", "GroupConvolution")
    ]


def test_convolutions_are_reduced_and_outputs_are_near(reduced, exported):
    precision, folder = reduced
    want = {"int8": {"DequantizeLinear"}, "fp16": {"FLOAT16"}}[precision]
    assert convolutions_of_onnx(folder) == want
    assert convolutions_of_onnx(exported / "raw") == {"FLOAT"}
    for kind, height, weights in convolutions_of_openvino(folder):
        small = precision == "int8" and kind == "GroupConvolution" and height <= 64 / 8
        assert (weights == "Constant") == small
    assert {weights for *_, weights in convolutions_of_openvino(exported / "raw")} == {"Constant"}
    image = np.random.default_rng(3).integers(0, 256, (1, 64, 64, 3), dtype=np.uint8)
    for runtime in ("onnx", "openvino"):
        [got] = ExportedNetwork(folder, runtime).raw_outputs(image)
        [want] = ExportedNetwork(exported / "raw", runtime).raw_outputs(image)
        limits = {"fp16": (0.5, 5e-3), "int8": (6, 0.05)}[precision]
        for a, b, most in zip(got, want, limits, strict=True):
            assert 0 < np.abs(a - b).max() < most


def test_grouped_convolutions_that_stay_in_float(tmp_path):
    """On OpenVINO, depthwise of stride 8 or more, and 1x1 that AMX gets wrong; none in ONNX.

    That the numbers are right tells something of the latter on a CPU with AMX alone.
    """
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 16, 1),
        nn.Conv2d(16, 16, 3, padding=1, stride=4, groups=16),
        nn.Conv2d(16, 16, 3, padding=1, stride=2, groups=16),
        nn.Conv2d(16, 240, 1, groups=2),
        nn.Conv2d(240, 256, 1, groups=2),
        nn.Conv2d(256, 8, 1, groups=2),
        nn.Conv2d(8, 8, 1),
    ).eval()
    file = tmp_path / "float.onnx"
    image = torch.rand(1, 3, 82, 42)
    torch.onnx.export(network, (image,), file, input_names=["image"], dynamo=True)
    nodes = [node.name for node in onnx.load(file).graph.node if node.op_type == "Conv"]
    for target in ("onnx", "openvino"):
        quantise(target, file, tmp_path, nodes, [image.numpy()], tmp_path / "ranges.json")
    assert convolutions_of_onnx(tmp_path) == {"DequantizeLinear"}
    found = convolutions_of_openvino(tmp_path)
    assert [index for index, (*_, weights) in enumerate(found) if weights == "Constant"] == [2, 4]
    with torch.no_grad():
        want = network(image).numpy()
    for target in ("onnx", "openvino"):
        run = load(target, tmp_path / FILES[target][0]).run
        assert np.abs(run(image.numpy())[0] - want).max() < 0.1 * np.abs(want).max()


def test_the_manifest_says_what_it_is(reduced):
    precision, folder = reduced
    manifest = json.loads((folder / "mixdet.json").read_text())
    assert manifest["precision"] == precision
    assert load("openvino", folder / "model.xml", precision).batch == BATCH  # lists are faster
    for target in ("onnx", "openvino"):
        assert manifest["measured"][target]["max_drop"] == 1.0
        assert manifest["measured"][target]["mAP"] >= 0
    if precision == "int8":
        assert manifest["float_layers"] == {"onnx": [], "openvino": []}
        assert manifest["calibration_pictures"] == 300
        assert "Blocks kept in float, onnx: none." in (folder / "README.md").read_text()


def test_bfloat16_weights(trained, exported, tmp_path):
    export(*trained, tmp_path, targets=("openvino",), precision="bf16")
    size = {path: (path / "model.bin").stat().st_size for path in (tmp_path, exported / "raw")}
    assert size[tmp_path] < size[exported / "raw"]
    image = np.full((1, 64, 64, 3), 99, np.uint8)
    [(_, got)] = ExportedNetwork(tmp_path).raw_outputs(image)
    [(_, want)] = ExportedNetwork(exported / "raw", "openvino").raw_outputs(image)
    assert 0 < np.abs(got - want).max() < 0.01


def test_a_loss_beyond_max_drop_fails(trained, tmp_path):
    """No file loses less than nothing. What was exported before stays, and is what is loaded."""
    export(*trained, tmp_path, check=False)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(MixDetError, match=r"more is lost than --max-drop -1") as error:
        export(*trained, tmp_path, precision="fp16", max_drop=-1.0)
    [refused] = tmp_path.glob("unverified_*")
    assert str(refused) in str(error.value)
    assert "not to be used" in (refused / "README.md").read_text()
    assert json.loads((refused / "mixdet.json").read_text())["measured"]["onnx"]["mAP"] >= 0
    assert {file.name: file.read_bytes() for file in tmp_path.glob("*.*")} == before
    export(*trained, tmp_path, precision="fp16", max_drop=1.0)
    assert {file.name for file in tmp_path.iterdir()} == {*before, refused.name}
    assert ExportedNetwork(tmp_path).manifest["precision"] == "fp16"
    assert f'Detector("{tmp_path}")' in (tmp_path / "README.md").read_text()


def test_what_is_left_of_an_earlier_export_is_named(trained, tmp_path, capsys):
    export(*trained, tmp_path, targets=("onnx", "openvino"), check=False)
    assert "left of" not in capsys.readouterr().out
    for _ in range(2):  # as long as they are there
        export(*trained, tmp_path, check=False)
        [said] = [line for line in capsys.readouterr().out.splitlines() if "left of" in line]
        assert said.endswith(": model.bin, model.xml")


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


def test_squeeze_excite_can_be_left_out(tmp_path):
    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            cfg = dict(norm_cfg=dict(type="BN"), act_cfg=dict(type="Swish"))
            self.detector = nn.Sequential(InvertedResidual(8, 8, 3, 1, 4, se_ratio=0.5, **cfg))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.detector(x)

    path = tmp_path / "model.onnx"
    image = torch.zeros(1, 8, 16, 16)
    torch.onnx.export(fuse(Network()), (image,), path, dynamo=True, verbose=False)
    convolutions = [node for node in onnx.load(path).graph.node if node.op_type == "Conv"]
    assert len(convolutions) == 5
    for inside, found in ((True, blocks(path)), (False, blocks(path, squeeze_excite=False))):
        assert [node.name in found for node in convolutions] == [True, True, inside, inside, True]


@pytest.mark.parametrize(
    ("max_drop", "kept"), [(0.2, 0), (0.09, 1), (0.04, 2), (0.02, 2), (0.004, 3), (-1, 9)]
)
def test_the_fewest_blocks_are_kept(tmp_path, monkeypatch, max_drop, kept):
    """A stand-in for measuring: three blocks lose."""
    loses = {"block 3": 0.05, "block 7": 0.03, "block 1": 0.005}
    others = [f"block {index}" for index in range(9) if f"block {index}" not in loses]
    quantiser = Quantiser.__new__(Quantiser)
    quantiser.file = tmp_path / "model.onnx"
    quantiser.manifest = {"max_drop": max_drop}
    quantiser.sweep = [None] * 7
    quantiser._ranking = [*loses, *others]
    quantiser.blocks = {str(index): block for index, block in enumerate(sorted(quantiser._ranking))}

    def write(target, folder, quantised):
        (folder / "blocks").write_text(",".join(quantised))

    def mean_ap(target, folder):
        file = folder / "blocks"
        return 0.7 - sum(
            lost for block, lost in loses.items() if file.exists() and block in file.read_text()
        )

    monkeypatch.setattr(quantiser, "_write", write)
    monkeypatch.setattr(quantiser, "_mean_ap", mean_ap)
    folder = tmp_path / "out"
    assert quantiser.write("onnx", folder) == quantiser._ranking[:kept]
    written = set(filter(None, (folder / "blocks").read_text().split(",")))
    assert written == {*quantiser._ranking[kept:]}


def test_signal_to_noise_by_hand():
    """Of two anchors the one moves by half its width, which leaves a third of IoU."""
    boxes = np.float32([[[0, 0, 2, 2], [4, 4, 8, 8]]])
    scores = np.float32([[[0.6, 0.2], [0.1, 0.0]]])
    moved = boxes + np.float32([[[1, 0, 1, 0], [0, 0, 0, 0]]])
    other = scores + np.float32([[[0.0, 0.1], [0.0, 0.0]]])
    signal = 0.6**2 + 0.2**2 + 0.1**2
    noise = (0.6 * 2 / 3) ** 2 + 0.1**2
    got = signal_to_noise([(boxes, scores)] * 2, [(moved, other), (boxes, scores)])
    assert got == pytest.approx(10 * np.log10(2 * signal / noise), abs=1e-4)
    assert signal_to_noise([(boxes, scores)], [(boxes, scores)]) > 100
    assert signal_to_noise([(boxes, scores)], [(boxes, scores * np.nan)]) == -np.inf


@pytest.mark.heavy
@pytest.mark.parametrize("kind", ["raw", "end2end"])
def test_a_sweep_in_earnest(trained, tmp_path, capsys, kind):
    """Where nothing may be lost, less than nothing even, every block ends in float."""
    with pytest.raises(MixDetError, match="--max-drop"):
        export(*trained, tmp_path, kinds=(kind,), precision="int8", max_drop=-1.0)
    [refused] = tmp_path.glob("unverified_*")
    manifest = json.loads((refused / "mixdet.json").read_text())
    kept = manifest["float_layers"]["onnx"]
    assert len(kept) == 7
    said = capsys.readouterr().out
    ratios = [re.search(rf"{re.escape(block)} alone in 8 bits: (\S+) dB", said) for block in kept]
    ratios = [float(found.group(1)) for found in ratios]
    assert ratios == sorted(ratios)
    assert 0 < ratios[0] < ratios[-1] < 100
    assert convolutions_of_onnx(refused) == {"FLOAT"}
    quantised = export(*trained, tmp_path / "all", kinds=(kind,), precision="int8", max_drop=1.0)
    assert convolutions_of_onnx(quantised[0]) == {"DequantizeLinear"}
    measured = manifest["measured"]["onnx"]
    assert measured["mAP"] == pytest.approx(measured["mAP_torch"], abs=5e-4)
