"""Exports refuse unsupported options and name missing packages. Phone files give ONNX's outputs."""

from __future__ import annotations

import json

import numpy as np
import pytest

from mixdet.deploy import export
from mixdet.deploy.export_targets import EXPORT_TARGETS, check_export_options
from mixdet.errors import MixDetError
from mixdet.inference import Detector, ExportedNetwork


@pytest.mark.parametrize(
    ("target", "kinds", "precision", "words"),
    [
        ("coreml", ["raw"], "fp32", "--to coreml.*coremltools"),
        ("tflite", ["raw"], "fp32", "--to tflite: unknown target; use .*litert"),
        (
            "onnx",
            ["raw"],
            "bf16",
            "--to onnx does not support --precision bf16; use fp32, fp16, int8",
        ),
        ("ncnn", ["raw", "end2end"], "fp32", "--to ncnn supports --kind raw only"),
    ],
)
def test_unsupported_options_are_refused(target, kinds, precision, words):
    with pytest.raises(MixDetError, match=words):
        check_export_options([target], kinds, precision)


def test_calibration_without_images_is_refused(trained, tmp_path):
    with pytest.raises(MixDetError, match="--calibration-images 0: give at least 1"):
        export(*trained, tmp_path, precision="int8", calibration_images=0)


@pytest.mark.parametrize("target", EXPORT_TARGETS)
def test_an_error_for_a_missing_package_names_the_extra(target, trained, tmp_path, monkeypatch):
    find = "mixdet.deploy.export_targets.importlib.util.find_spec"
    for missing in EXPORT_TARGETS[target].packages:
        monkeypatch.setattr(find, lambda name, gone=missing: None if name == gone else name)
        words = rf'{missing} not installed: pip install "mixdet\[{target}\]"'
        with pytest.raises(MixDetError, match=words):
            export(*trained, tmp_path, targets=(target,))
    monkeypatch.setattr(find, lambda name: None if name == "nncf" else name)
    if "int8" in EXPORT_TARGETS[target].precisions:
        with pytest.raises(MixDetError, match=r"nncf not installed: .*mixdet\[int8\]"):
            check_export_options([target], ["raw"], "int8")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("target", "module"),
    [("ncnn", "pnnx"), ("litert", "litert_torch"), ("executorch", "executorch")],
)
def test_files_for_phones_give_the_outputs_of_onnx(exported, trained, tmp_path, target, module):
    """`export` compares the boxes with PyTorch's. The test compares the outputs before NMS."""
    pytest.importorskip(module)
    (folder,) = export(*trained, tmp_path, targets=(target,))
    assert json.loads((folder / "mixdet.json").read_text())["measured"][target]["boxes"] > 14
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    [got] = ExportedNetwork(folder, target).raw_outputs(image[None])
    [want] = ExportedNetwork(exported / "raw", "onnx").raw_outputs(image[None])
    for a, b, tolerance in zip(got, want, (1e-2, 1e-5), strict=True):
        assert a.shape == b.shape
        assert np.abs(a - b).max() < tolerance
    assert len(Detector(folder)(image)) > 0
