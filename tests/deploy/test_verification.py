"""The verification compares the boxes of exported files with the boxes of PyTorch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mixdet.deploy import VerificationReport, detect_reference, verify
from mixdet.deploy.verification import match_detections
from mixdet.errors import MixDetError

PASSING_REPORT = VerificationReport(10, 1000, 2, 0.09, 9e-5, 0.4124, 0.4126)


def test_a_difference_above_a_tolerance_is_refused():
    PASSING_REPORT.require()
    for fault, words in (
        (dict(box_difference=0.11), "0.11 pixels"),
        (dict(score_difference=2e-4), "scores differ by 0.0002"),
        (dict(unmatched=3), "3 boxes have no counterpart .*PyTorch detects 1000"),
        (dict(mAP=0.4119), "mAP is 0.4119 instead of 0.4126"),
    ):
        with pytest.raises(MixDetError, match=words):
            replace(PASSING_REPORT, **fault).require()


def test_boxes_are_matched_by_class_and_position_in_any_order():
    boxes = np.array([[0, 0, 9, 9], [0, 0, 9, 9], [20, 20, 30, 30]], np.float32)
    scores = np.array([0.9, 0.5, 0.4], np.float32)
    labels = np.array([0, 1, 0])
    a = (boxes, scores, labels)
    assert match_detections(a, a) == (0, 0, 0)
    assert match_detections(a, tuple(array[::-1] for array in a)) == (0, 0, 0)
    moved = boxes + np.array([[0, 0, 0.5, 0], [0, 0, 0, 0], [5, 0, 0, 0]], np.float32)
    assert match_detections(a, (moved, scores, labels)) == (2, 0.5, 0)
    assert match_detections(a, (boxes, scores, labels[[0, 0, 0]])) == (2, 0, 0)
    assert match_detections(a, tuple(array[:1] for array in a)) == (2, 0, 0)
    assert match_detections(tuple(array[:0] for array in a), a) == (3, 0, 0)


@pytest.mark.parametrize("kind", ["raw", "end2end"])
def test_files_of_other_weights_are_refused(exported, network, kind):
    verify(exported / kind, detect_reference(network), "openvino").require()
    bias = network.model.bbox_head.cls_convs[0][0].bias.data
    original = bias.clone()  # `bias[0] -= 0.01` could round differently
    bias[0] += 0.01
    try:
        with pytest.raises(MixDetError, match="scores differ by"):
            verify(exported / kind, detect_reference(network)).require()
    finally:
        bias.copy_(original)
