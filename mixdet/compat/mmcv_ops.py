"""Replace the compiled operators of mmcv, `mmcv._ext`, if mmcv lacks them.

The fault: mmcv-lite 2.1.0, and onedl-mmcv built with MMCV_WITH_OPS=0, have `mmcv/ops/*.py` but no
`mmcv._ext`. So `import mmdet.models` fails, although a single-stage detector uses only NMS and, on
a GPU, the sigmoid focal loss.

The fix: a stand-in module for `mmcv._ext` computes these two operators with torch and torchvision.
All other operators of the module raise an error when they are called. A compiled mmcv is not
changed.

This module can be removed when mmdet can be imported without `mmcv._ext`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType

import torch
import torchvision
from torch import Tensor
from torch.nn import functional as F

from mixdet.errors import MixDetError

EXTENSION = "mmcv._ext"
REMEDY = (
    "`pip uninstall mmcv-lite`, then build mmcv 2.1.0 from source (PyPI has no wheel of it): "
    "https://mmcv.readthedocs.io/en/latest/get_started/build.html"
)


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int = 0) -> Tensor:
    """Do non-maximum suppression with torchvision.

    Args:
        boxes: (N, 4), (x1, y1, x2, y2).
        scores: (N,).
        iou_threshold: A box is dropped if its IoU with a better box is larger than this.
        offset: Pixels that mmcv adds to widths and heights; torchvision supports 0 only.

    Returns:
        Indices of the boxes that stay, (M,), sorted by falling score.

    Raises:
        MixDetError: `offset` is not 0.
    """
    if offset != 0:
        raise MixDetError(
            f"nms with offset={offset} needs a compiled mmcv: take offset out of the config, or "
            f"install one ({REMEDY})"
        )
    return torchvision.ops.nms(boxes, scores, iou_threshold)


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
    """Write the sigmoid focal loss (Lin et al., arXiv 1708.02002, eq. 5) into `output`.

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


def _not_compiled() -> str:
    """Return a text for mmcv's environment report instead of a compiler or CUDA version."""
    return "n/a (not compiled)"


class StandIn(ModuleType):
    """A module in place of `mmcv._ext`. Calling an operator that it lacks raises an error."""

    nms = staticmethod(nms)
    sigmoid_focal_loss_forward = staticmethod(sigmoid_focal_loss_forward)
    sigmoid_focal_loss_backward = staticmethod(sigmoid_focal_loss_backward)
    get_compiler_version = staticmethod(_not_compiled)
    get_compiling_cuda_version = staticmethod(_not_compiled)

    def __getattr__(self, name: str) -> Callable:
        if name.startswith("__"):  # such as __path__, which is not an operator
            raise AttributeError(name)

        def missing(*args: object, **kwargs: object) -> None:
            raise MixDetError(f"operator {name!r} needs a compiled mmcv: {REMEDY}")

        missing.__name__ = name
        return missing


def install() -> None:
    """Put the stand-in where mmcv looks for its operators, unless mmcv is compiled."""
    if find_spec(EXTENSION) is None:
        module = StandIn(EXTENSION, __doc__)
        module.__spec__ = ModuleSpec(EXTENSION, loader=None, origin=__file__)
        sys.modules[EXTENSION] = module


def which_nms() -> str:
    """Describe in words which NMS mmdet uses. `install` has to run first."""
    stand_in = isinstance(sys.modules.get(EXTENSION), StandIn)
    version = torchvision.__version__
    return f"torchvision {version} (mmcv-lite stand-in)" if stand_in else "compiled mmcv"
