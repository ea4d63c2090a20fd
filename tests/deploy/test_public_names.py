"""The public functions and classes of `mixdet.deploy` work as the documentation uses them."""

from __future__ import annotations

import torch

from mixdet.deploy import (
    RawNetwork,
    ReferenceDetections,
    VerificationReport,
    detect_reference,
    export,
    fuse,
    verify,
)
from mixdet.inference import Detector


def test_a_verified_export_gives_the_detections_of_pytorch(trained, network, tmp_path):
    config, checkpoint = trained
    out = tmp_path / "exported"
    folders = export(config, checkpoint, out, targets=["onnx"], kinds=["raw", "end2end"])
    assert folders == [out / "raw", out / "end2end"]
    reference = detect_reference(network)
    assert isinstance(reference, ReferenceDetections)
    report = verify(folders[0], reference)
    assert isinstance(report, VerificationReport)
    report.require()
    assert report.images == 14
    detections = Detector(folders[1])(reference.images.files[0])
    assert len(detections) == len(reference.detections[0][0])


def test_fuse_and_raw_network_compute_the_same(network):
    image = torch.randint(0, 256, (1, 64, 64, 3), dtype=torch.uint8)
    boxes, scores = RawNetwork(network)(image)
    fused = fuse(network.model, "openvino")
    read_as_bgr = image if RawNetwork(network).channel_order == "BGR" else image.flip(-1)
    data = {"inputs": list(read_as_bgr.permute(0, 3, 1, 2)), "data_samples": None}
    with torch.no_grad():
        inputs = network.model.data_preprocessor(data)["inputs"]
        class_levels, _ = fused(inputs, mode="tensor")
    classes = scores.shape[-1] + 1  # plus 1 for the background
    logits = [level.permute(0, 2, 3, 1).reshape(-1, classes) for level in class_levels]
    expected = torch.cat(logits).softmax(-1)[:, :-1]
    assert boxes.shape == (1, len(expected), 4)
    assert torch.allclose(scores[0], expected, atol=1e-4)
