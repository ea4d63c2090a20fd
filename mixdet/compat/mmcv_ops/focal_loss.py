"""The sigmoid focal loss (Lin et al., arXiv 1708.02002)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def _focal_terms(
    logits: Tensor, target: Tensor, weight: Tensor, alpha: float
) -> tuple[Tensor, ...]:
    """Return the terms of the focal loss: signed logits, signs and weights.

    With these terms, positives and negatives have the same formula. If the logits have half
    precision, the terms are float32.

    Returns:
        Three tensors (N, C). The first has the logits of the positives and the negated logits of
        the negatives. The second has the signs, 1 and -1. The third has the weights: alpha or
        1 - alpha, times the weight of the target's class.
    """
    logits = logits if logits.dtype == torch.float64 else logits.float()
    num_classes = logits.size(1)
    positive = target[:, None] == torch.arange(num_classes, device=target.device)
    sign = positive.to(logits.dtype) * 2 - 1
    factor = torch.where(positive, alpha, 1 - alpha).to(logits.dtype)
    if weight.numel():
        # Each row is weighted by the class of its target. Background has the weight 1
        factor = factor * F.pad(weight.to(logits.dtype), (0, 1), value=1.0)[target][:, None]
    return logits * sign, sign, factor


def sigmoid_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Write the sigmoid focal loss (equation 5 of the paper) into `output`.

    Args:
        input: Logits, (N, C).
        target: Class of each row, (N,), 0 to C; C is background.
        weight: One weight per class, (C,), or an empty tensor.
        output: Receives the loss, (N, C).
        gamma: Exponent of the modulating factor.
        alpha: Weight of the positives; the negatives have 1 - alpha.
    """
    z, _, factor = _focal_terms(input, target, weight, alpha)
    output.copy_(-factor * torch.sigmoid(-z) ** gamma * F.logsigmoid(z))


def sigmoid_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """Write the derivative of the loss with respect to `input` into `grad_input`, (N, C)."""
    z, sign, factor = _focal_terms(input, target, weight, alpha)
    wrong = torch.sigmoid(-z)
    slope = gamma * torch.sigmoid(z) * F.logsigmoid(z) - wrong
    grad_input.copy_(sign * factor * wrong**gamma * slope)


OPERATORS = (
    sigmoid_focal_loss_backward,
    sigmoid_focal_loss_forward,
)
