from __future__ import annotations

import json

import numpy as np
import pytest

from mixdet.deploy.export import export
from mixdet.deploy.targets import TARGETS, require
from mixdet.errors import MixDetError
from mixdet.inference import Detector
from mixdet.inference.exported import ExportedNetwork


@pytest.mark.parametrize(
    ("target", "kinds", "precision", "words"),
    [
        ("coreml", ["raw"], "fp32", "--to coreml.*coremltools"),
        ("tflite", ["raw"], "fp32", "--to tflite: unknown.*litert"),
        ("onnx", ["raw"], "bf16", "onnx takes fp32, fp16, int8"),
        ("ncnn", ["raw", "end2end"], "fp32", "--to ncnn: of --kind raw alone"),
    ],
)
def test_what_no_target_can_do(target, kinds, precision, words):
    with pytest.raises(MixDetError, match=words):
        require([target], kinds, precision)


def test_images_to_calibrate_on(trained, tmp_path):
    with pytest.raises(MixDetError, match="--calibration-images 0"):
        export(*trained, tmp_path, precision="int8", calibration_images=0)


@pytest.mark.parametrize("target", TARGETS)
def test_a_missing_package_names_the_extra(target, trained, tmp_path, monkeypatch):
    find = "mixdet.deploy.targets.importlib.util.find_spec"
    for missing in TARGETS[target].packages:
        monkeypatch.setattr(find, lambda name, gone=missing: None if name == gone else name)
        words = rf'{missing} not installed: pip install "mixdet\[{target}\]"'
        with pytest.raises(MixDetError, match=words):
            export(*trained, tmp_path, targets=(target,))
    monkeypatch.setattr(find, lambda name: None if name == "nncf" else name)
    if "int8" in TARGETS[target].precisions:
        with pytest.raises(MixDetError, match=r"nncf not installed: .*mixdet\[int8\]"):
            require([target], ["raw"], "int8")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("target", "module"),
    [("ncnn", "pnnx"), ("litert", "litert_torch"), ("executorch", "executorch")],
)
def test_for_phones(exported, trained, tmp_path, target, module):
    """Exported, found equal to PyTorch box for box, and equal to ONNX Runtime before NMS."""
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
