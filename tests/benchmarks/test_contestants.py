"""What `benchmark.py infer` times: settings of the runtimes, and which network runs."""

from __future__ import annotations

import contextlib

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
import torch
from mmdet.models.detectors.base import BaseDetector
from onnx import TensorProto, helper

from benchmarks import torch_forms
from benchmarks.contestants import PEER, runtime_settings
from mixdet.inference.runtimes import load
from mixdet.models.backbones import MixNet


@pytest.fixture
def relu(tmp_path):
    """A file of one operation."""
    shape = [1, 4, 4, 3]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n in ("image", "out")]
    graph = helper.make_graph(
        [helper.make_node("Relu", ["image"], ["out"])], "relu", *map(list, zip(ends))
    )
    path = tmp_path / "model.onnx"
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path
    )
    return path


@pytest.mark.parametrize("threads", [1, 2])
def test_onnx_runtime_takes_the_threads(relu, monkeypatch, threads):
    sessions = []

    class Recorded(onnxruntime.InferenceSession):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            sessions.append(self)

    monkeypatch.setattr(onnxruntime, "InferenceSession", Recorded)
    with runtime_settings(threads, bf16=False):
        run = load("onnx", relu).run
    load("onnx", relu)
    inside, outside = (each.get_session_options().intra_op_num_threads for each in sessions)
    assert (inside, outside) == (threads, 0)
    assert np.array_equal(run(np.full((1, 4, 4, 3), -1, np.float32))[0], np.zeros((1, 4, 4, 3)))


@pytest.mark.parametrize(("bf16", "precision"), [(True, "bf16"), (False, "f32")])
def test_openvino_takes_the_threads_and_the_precision(relu, monkeypatch, bf16, precision):
    calls = []
    compile_model = openvino.Core.compile_model

    def recorded(core, model, device, settings):
        compiled = compile_model(core, model, device, settings)
        calls.append((settings, compiled))
        return compiled

    monkeypatch.setattr(openvino.Core, "compile_model", recorded)
    with runtime_settings(1, bf16):
        load("openvino", relu)
    load("openvino", relu)
    (inside, compiled), (outside, _) = calls
    assert inside["INFERENCE_PRECISION_HINT"] == precision
    assert compiled.get_property("INFERENCE_NUM_THREADS") == 1
    assert outside == {"INFERENCE_PRECISION_HINT": "f32"}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("infer")
    torch_forms.prepare("MixNet-S", folder, {})
    return folder


@pytest.mark.parametrize("form", [PEER, "MixDet, PyTorch", "MixDet, PyTorch fused"])
def test_a_form_is_timed_from_end_to_end_with_its_own_network(prepared, form):
    threads = torch.get_num_threads()
    parts = torch_forms.load(form, prepared, threads, "MixNet-S")(
        [np.zeros((480, 640, 3), np.uint8)]
    )
    ran = {}
    for part in ("network", "end to end"):
        with detectors_that_run() as ran[part]:
            parts[part]()
    assert ran["end to end"] == ran["network"]
    (detector,) = ran["network"]
    norms = [each for each in detector.modules() if isinstance(each, torch.nn.BatchNorm2d)]
    assert (norms == []) == ("fused" in form)
    assert isinstance(detector.backbone, MixNet) == (form != PEER)


@contextlib.contextmanager
def detectors_that_run():
    ran = []

    def record(module, args):
        if isinstance(module, BaseDetector):
            ran.append(module)

    handle = torch.nn.modules.module.register_module_forward_pre_hook(record)
    try:
        yield ran
    finally:
        handle.remove()
