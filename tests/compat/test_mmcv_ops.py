"""MixDet's replacements of mmcv's compiled operators give the results of torchvision and mmdet."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import mixdet.compat.prepared

import mmcv.ops
import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from mmcv.ops import SigmoidFocalLoss, batched_nms, roi_align, sigmoid_focal_loss
from mmcv.ops import nms as mmcv_nms
from mmdet.models.losses.focal_loss import py_sigmoid_focal_loss

from mixdet.compat import mmcv_ops
from mixdet.errors import MixDetError
from tests.conftest import ROOT

without_compiled_mmcv = pytest.mark.skipif(
    not isinstance(sys.modules.get("mmcv._ext"), mmcv_ops.StandIn), reason="mmcv is compiled"
)


def boxes_and_scores(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=random) * 60
    size = torch.rand(count, 2, generator=random) * 50 + 1
    scores = torch.randperm(count, generator=random).float() / count  # no ties
    return torch.cat([corner, corner + size], 1), scores


def greedy_nms(boxes: torch.Tensor, scores: torch.Tensor, threshold: float) -> list[int]:
    """Visit boxes by descending score; keep a box if no kept box has an IoU above the threshold."""
    overlap = torchvision.ops.box_iou(boxes, boxes)
    keep: list[int] = []
    for index in scores.argsort(descending=True).tolist():
        if not keep or overlap[index, keep].max() <= threshold:
            keep.append(index)
    return keep


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 60), st.integers(0, 1000), st.sampled_from([0.1, 0.45, 0.7]))
def test_nms_keeps_the_same_boxes_as_greedy_nms(count: int, seed: int, threshold: float) -> None:
    boxes, scores = boxes_and_scores(count, seed)
    dets, keep = mmcv_nms(boxes, scores, threshold)
    assert keep.tolist() == greedy_nms(boxes, scores, threshold)
    assert torch.equal(dets, torch.cat([boxes[keep], scores[keep, None]], 1))


def test_nms_has_the_options_of_mmcv() -> None:
    boxes, scores = boxes_and_scores(50, 1)
    _, keep = mmcv_nms(boxes, scores, 0.5, score_threshold=0.4, max_num=7)
    expected = [index for index in greedy_nms(boxes, scores, 0.5) if scores[index] > 0.4]
    assert keep.tolist() == expected[:7]
    dets, _ = mmcv_nms(boxes.numpy(), scores.numpy(), 0.5)
    assert isinstance(dets, np.ndarray)


@pytest.mark.parametrize("split_threshold", [10_000, 1])
def test_batched_nms_equals_torchvision(split_threshold: int) -> None:
    boxes, scores = boxes_and_scores(200, 2)
    labels = torch.arange(200) % 5
    config = {"type": "nms", "iou_threshold": 0.5, "split_thr": split_threshold}
    dets, keep = batched_nms(boxes, scores, labels, config)
    assert keep.tolist() == torchvision.ops.batched_nms(boxes, scores, labels, 0.5).tolist()
    assert torch.equal(dets[:, 4], scores[keep])


@without_compiled_mmcv
def test_nms_refuses_an_offset() -> None:
    boxes, scores = boxes_and_scores(4, 3)
    with pytest.raises(MixDetError, match=r"offset=1.*build mmcv 2.1.0 from source"):
        mmcv_nms(boxes, scores, 0.5, offset=1)


def logits_and_targets(rows: int = 40, classes: int = 6, dtype=torch.float64):
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(rows, classes, generator=random, dtype=dtype) * 4
    # The label `classes` stands for the background.
    target = torch.randint(classes + 1, (rows,), generator=random)
    target[0] = classes
    return logits, target


def one_hot(target: torch.Tensor, classes: int = 6) -> torch.Tensor:
    """Return (N, C) zeros and ones. The row of a background target has only zeros."""
    return torch.nn.functional.one_hot(target, classes + 1)[:, :classes].double()


@pytest.mark.parametrize(("gamma", "alpha"), [(2.0, 0.25), (1.5, 0.75), (0.0, 0.5)])
def test_focal_loss_equals_torchvision_and_mmdet(gamma: float, alpha: float) -> None:
    logits, target = logits_and_targets()
    results = []
    for name in ("mmcv", "torchvision", "mmdet"):
        x = logits.clone().requires_grad_()
        if name == "mmcv":
            loss = sigmoid_focal_loss(x, target, gamma, alpha, None, "none")
        elif name == "torchvision":
            loss = torchvision.ops.sigmoid_focal_loss(x, one_hot(target), alpha, gamma)
        else:
            loss = py_sigmoid_focal_loss(x, one_hot(target), None, gamma, alpha, "none")
        (loss * torch.arange(1.0, 7.0)).sum().backward()
        results.append((loss.detach(), x.grad))
    for loss, grad in results[1:]:
        torch.testing.assert_close(results[0][0], loss, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(results[0][1], grad, rtol=1e-9, atol=1e-12)


def test_focal_loss_passes_gradcheck() -> None:
    logits, target = logits_and_targets(8, 3)

    def loss(x: torch.Tensor) -> torch.Tensor:
        return sigmoid_focal_loss(x, target, 2.0, 0.25, None, "none")

    assert torch.autograd.gradcheck(loss, logits.requires_grad_())


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_focal_loss_weights_each_row_by_the_class_of_its_target(reduction: str) -> None:
    logits, target = logits_and_targets()
    weight = torch.linspace(0.5, 3, 6, dtype=torch.float64)
    x = logits.clone().requires_grad_()
    loss = SigmoidFocalLoss(2.0, 0.25, weight, reduction)(x, target)
    loss.backward()
    y = logits.clone().requires_grad_()
    losses = py_sigmoid_focal_loss(y, one_hot(target), reduction="none")
    rows = torch.tensor([*weight.tolist(), 1.0], dtype=torch.float64)[target]
    expected = (losses * rows[:, None]).sum() / (len(target) if reduction == "mean" else 1)
    expected.backward()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(x.grad, y.grad)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_focal_loss_of_large_logits_is_finite(dtype: torch.dtype) -> None:
    logits = torch.tensor([[200.0, -200.0], [-200.0, 200.0]], dtype=dtype, requires_grad=True)
    loss = sigmoid_focal_loss(logits, torch.tensor([1, 2]), 2.0, 0.25, None, "sum")
    loss.backward()
    assert loss.dtype == logits.grad.dtype == dtype
    # Three logits are wrong by 200. The positive one costs 0.25 * 200, and each of the two
    # negative ones costs 0.75 * 200.
    torch.testing.assert_close(loss.double(), torch.tensor(350.0).double(), rtol=5e-3, atol=0)
    torch.testing.assert_close(
        logits.grad.double(), torch.tensor([[0.75, -0.25], [0, 0.75]]).double()
    )


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_operators_on_a_gpu_equal_those_on_the_cpu() -> None:
    boxes, scores = boxes_and_scores(500, 4)
    _, keep = mmcv_nms(boxes, scores, 0.5)
    _, keep_gpu = mmcv_nms(boxes.cuda(), scores.cuda(), 0.5)
    assert keep.tolist() == keep_gpu.tolist()
    # This loss calls mmcv's operator on a GPU, and mmdet's own code on a CPU.
    from mmdet.models.losses import FocalLoss

    logits, target = logits_and_targets(dtype=torch.float32)
    results = []
    for device in ("cpu", "cuda"):
        x = logits.detach().to(device).requires_grad_()  # a leaf tensor on each device
        loss = FocalLoss()(x, target.to(device), torch.full((40,), 0.5, device=device))
        loss.backward()
        results.append((loss.detach().cpu(), x.grad.cpu()))
    torch.testing.assert_close(results[0], results[1])


@without_compiled_mmcv
def test_the_error_of_a_missing_operator_names_the_operator() -> None:
    rois = torch.tensor([[0.0, 0.0, 0.0, 4.0, 4.0]])
    with pytest.raises(MixDetError, match=r"'roi_align_forward'.*build mmcv 2.1.0 from source"):
        roi_align(torch.zeros(1, 1, 8, 8), rois, (2, 2))
    assert not hasattr(sys.modules["mmcv._ext"], "__path__")


@without_compiled_mmcv
def test_the_environment_report_of_mmdet_runs() -> None:
    from mmdet.utils import collect_env

    assert collect_env()["MMDetection"]
    assert mmcv.ops.get_compiler_version() == mmcv.ops.get_compiling_cuda_version() != ""
    assert "mmcv-lite stand-in" in mmcv_ops.which_nms()


def test_the_operators_of_a_compiled_mmcv_are_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "_ext.py").write_text("nms = 'compiled'")
    code = f"""
import sys, mmcv
from mixdet.compat import mmcv_ops
mmcv.__path__.insert(0, {str(tmp_path)!r})
mmcv_ops.install()
import mmcv._ext
assert mmcv._ext.nms == 'compiled', mmcv._ext
assert mmcv_ops.which_nms() == 'compiled mmcv'
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
