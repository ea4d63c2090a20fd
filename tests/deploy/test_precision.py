"""Exports in 16 and 8 bits: which layers have fewer bits, and how much mAP a file may lose."""

from __future__ import annotations

import json
import re

import numpy as np
import onnx
import openvino
import pytest
import torch
from torch import nn

from mixdet.deploy import export, fuse
from mixdet.deploy.int8_writer import fewest_float_blocks, signal_to_noise
from mixdet.deploy.quantization import blocks_of_nodes, quantize_nodes
from mixdet.deploy.raw_network import CandidateNetwork, RawNetwork
from mixdet.deploy.to_onnx import convert_to_onnx
from mixdet.errors import MixDetError
from mixdet.inference import ExportedNetwork, read_manifest
from mixdet.inference.runtimes import OPENVINO_BATCH, RUNTIME_FILES, load
from mixdet.models.layers import InvertedResidual


@pytest.fixture(scope="module", params=["fp16", pytest.param("int8", marks=pytest.mark.heavy)])
def reduced(request, trained, tmp_path_factory):
    out = tmp_path_factory.mktemp(request.param)
    export(*trained, out, targets=("onnx", "openvino"), precision=request.param, max_drop=1.0)
    return request.param, out


def convolution_weights_of_onnx(folder) -> set[str]:
    """Return the types of the operations that compute the weights of the convolutions.

    For weights that are stored in the file, return their data types instead.
    """
    graph = onnx.load(folder / "model.onnx").graph
    types = {value.name: value.type.tensor_type.elem_type for value in graph.value_info}
    types |= {tensor.name: tensor.data_type for tensor in graph.initializer}
    producers = {name: node.op_type for node in graph.node for name in node.output}
    weights = [node.input[1] for node in graph.node if node.op_type == "Conv"]
    return {producers.get(name) or onnx.TensorProto.DataType.Name(types[name]) for name in weights}


def convolutions_of_openvino(folder) -> list[tuple[str, int, str]]:
    """Return the type, the output height and the type of the weight's node of each convolution."""
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


def test_convolutions_have_fewer_bits_and_outputs_are_close(reduced, exported):
    precision, folder = reduced
    want = {"int8": {"DequantizeLinear"}, "fp16": {"FLOAT16"}}[precision]
    assert convolution_weights_of_onnx(folder) == want
    assert convolution_weights_of_onnx(exported / "raw") == {"FLOAT"}
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


def test_openvino_keeps_some_grouped_convolutions_in_float(tmp_path):
    """Depthwise convolutions at stride 8 or more stay in float, since 8 bits would be slower.

    Grouped 1x1 convolutions that a CPU with AMX may compute wrongly in 8 bits stay in float too.
    The network has one convolution of each of these two kinds.
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
        quantize_nodes(target, file, tmp_path, nodes, [image.numpy()], tmp_path / "ranges.json")
    assert convolution_weights_of_onnx(tmp_path) == {"DequantizeLinear"}
    convolutions = convolutions_of_openvino(tmp_path)
    in_float = [weights == "Constant" for *_, weights in convolutions]
    assert in_float == [False, False, True, False, True, False, False]
    with torch.no_grad():
        want = network(image).numpy()
    for target in ("onnx", "openvino"):
        run = load(target, tmp_path / RUNTIME_FILES[target][0]).run
        assert np.abs(run(image.numpy())[0] - want).max() < 0.1 * np.abs(want).max()


def test_the_manifest_states_the_precision(reduced):
    precision, folder = reduced
    manifest = json.loads((folder / "mixdet.json").read_text())
    assert manifest["precision"] == precision
    assert load("openvino", folder / "model.xml", precision).batch == OPENVINO_BATCH
    for target in ("onnx", "openvino"):
        assert manifest["measured"][target]["max_drop"] == 1.0
        assert manifest["measured"][target]["mAP"] >= 0
    if precision == "int8":
        assert manifest["float_layers"] == {"onnx": [], "openvino": []}
        assert manifest["calibration_images"] == 300
        readme = (folder / "README.md").read_text()
        assert "Blocks (groups of layers) in float for onnx: none." in readme


def test_bfloat16_halves_the_weights_and_outputs_are_close(trained, exported, tmp_path):
    export(*trained, tmp_path, targets=("openvino",), precision="bf16")
    size = {path: (path / "model.bin").stat().st_size for path in (tmp_path, exported / "raw")}
    assert size[tmp_path] < size[exported / "raw"]
    image = np.full((1, 64, 64, 3), 99, np.uint8)
    [(_, got)] = ExportedNetwork(tmp_path).raw_outputs(image)
    [(_, want)] = ExportedNetwork(exported / "raw", "openvino").raw_outputs(image)
    assert 0 < np.abs(got - want).max() < 0.01


def test_export_fails_if_map_drops_too_much(trained, tmp_path):
    """With a `max_drop` of -1 every export fails. An earlier export stays and can be loaded."""
    export(*trained, tmp_path, check=False)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(MixDetError, match=r"the file loses more than --max-drop -1") as error:
        export(*trained, tmp_path, precision="fp16", max_drop=-1.0)
    [refused] = tmp_path.glob("unverified_*")
    assert str(refused) in str(error.value)
    assert "Do not use these files" in (refused / "README.md").read_text()
    assert json.loads((refused / "mixdet.json").read_text())["measured"]["onnx"]["mAP"] >= 0
    assert {file.name: file.read_bytes() for file in tmp_path.glob("*.*")} == before
    export(*trained, tmp_path, precision="fp16", max_drop=1.0)
    assert {file.name for file in tmp_path.iterdir()} == {*before, refused.name}
    assert ExportedNetwork(tmp_path).manifest["precision"] == "fp16"
    assert f'Detector("{tmp_path.name}")' in (tmp_path / "README.md").read_text()


@pytest.mark.heavy
def test_files_of_an_earlier_export_are_named(trained, tmp_path, capsys):
    export(*trained, tmp_path, targets=("onnx", "openvino"), check=False)
    assert "earlier export" not in capsys.readouterr().out
    for _ in range(2):  # each later export names these files
        export(*trained, tmp_path, check=False)
        [printed] = [
            line for line in capsys.readouterr().out.splitlines() if "earlier export" in line
        ]
        assert printed.endswith(": model.bin, model.xml")


@pytest.mark.heavy
def test_blocks_hold_only_nodes_of_the_detector(exported, network):
    """A block is a group of nodes that are quantized together. The decoding is in no block."""
    postprocess = read_manifest(exported / "raw")["postprocess"]
    for kind in (RawNetwork, CandidateNetwork):
        model = convert_to_onnx(kind(network), postprocess, {})
        blocks = blocks_of_nodes(model)
        nodes = {node.name: node for node in model.graph.node}
        assert {*blocks.values()} == {
            "backbone.first.0",
            "backbone.first.3",
            "backbone",
            *(f"bbox_head.{part}_convs.{level}.0" for part in ("cls", "reg") for level in (0, 1)),
        }
        convolutions = {name for name, node in nodes.items() if node.op_type == "Conv"}
        assert convolutions <= blocks.keys()
        others = {nodes[name].op_type for name in nodes.keys() - blocks.keys()}
        assert {"Softmax", "Exp", "Cast"} <= others


def test_squeeze_excite_can_be_left_out_of_the_blocks(tmp_path):
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
    for squeeze_excite in (True, False):
        blocks = blocks_of_nodes(onnx.load(path), squeeze_excite)
        included = [node.name in blocks for node in convolutions]
        assert included == [True, True, squeeze_excite, squeeze_excite, True]


@pytest.mark.parametrize(
    ("allowed_drop", "expected"), [(0.1, 0), (0.045, 1), (0.02, 2), (0.01, 2), (0.002, 3), (-1, 9)]
)
def test_the_search_finds_the_fewest_float_blocks(allowed_drop, expected):
    """Nine blocks are sorted by sensitivity. The first three lose mAP in 8 bits."""
    drops = [0.05, 0.03, 0.005, 0, 0, 0, 0, 0, 0]
    tried = []

    def keeps_mean_ap(count: int) -> bool:
        tried.append(count)
        return sum(drops[count:]) <= allowed_drop

    assert fewest_float_blocks(len(drops), keeps_mean_ap) == expected
    assert len(tried) == len(set(tried)) <= 5


def test_the_signal_to_noise_ratio_equals_a_value_computed_by_hand():
    """One of two boxes moves by half its width. The IoU of its old and its new position is 1/3."""
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
def test_every_block_stays_in_float_if_no_drop_is_allowed(trained, tmp_path, capsys, kind):
    with pytest.raises(MixDetError, match="--max-drop"):
        export(*trained, tmp_path, kinds=(kind,), precision="int8", max_drop=-1.0)
    [refused] = tmp_path.glob("unverified_*")
    manifest = json.loads((refused / "mixdet.json").read_text())
    blocks = manifest["float_layers"]["onnx"]
    assert len(blocks) == 7
    printed = capsys.readouterr().out
    pattern = "only {} in 8 bits: (\\S+) dB"
    matches = [re.search(pattern.format(re.escape(block)), printed) for block in blocks]
    ratios = [float(match.group(1)) for match in matches]
    assert ratios == sorted(ratios)
    assert 0 < ratios[0] < ratios[-1] < 100
    assert convolution_weights_of_onnx(refused) == {"FLOAT"}
    quantized = export(*trained, tmp_path / "all", kinds=(kind,), precision="int8", max_drop=1.0)
    assert convolution_weights_of_onnx(quantized[0]) == {"DequantizeLinear"}
    measured = manifest["measured"]["onnx"]
    assert measured["mAP"] == pytest.approx(measured["mAP_torch"], abs=5e-4)
