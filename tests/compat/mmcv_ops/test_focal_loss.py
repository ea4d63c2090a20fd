"""The focal loss equals those of torchvision and of mmdet."""

from __future__ import annotations

import mixdet.compat.prepared

import pytest
import torch
import torchvision
from mmcv.ops import SigmoidFocalLoss, sigmoid_focal_loss
from mmdet.models.losses.focal_loss import py_sigmoid_focal_loss


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
def test_focal_loss_on_a_gpu_equals_the_one_on_the_cpu() -> None:
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
