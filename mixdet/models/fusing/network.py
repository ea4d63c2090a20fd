"""The pass that fuses a network: each module says what takes its place."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from mmcv.cnn import fuse_conv_bn
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mixdet.errors import MixDetError, one_line
from mixdet.models.fusing.blocks import can_fold
from mixdet.models.fusing.forms import FUSED_FORMS
from mixdet.models.torch_private import tree_leaves

if TYPE_CHECKING:
    from mmdet.models.detectors.base import BaseDetector

TOLERANCE = 1e-4  # of the largest output; it moves boxes by less than a hundredth of a pixel


def fuse(
    model: nn.Module, target: str = "onnx", branched: bool = True, int8: bool = False
) -> nn.Module:
    """Rewrite a trained network into the form that a runtime computes fastest.

    Batch norm is folded into the convolution before it. A MixConv becomes one depthwise convolution
    whose kernels are zero-padded to the largest; in a block of a MixNet or MobileNet it becomes
    branches of one kernel size each, where that was measured to be faster. docs/fusing.md explains
    both.

    A module takes part by its methods. `branch_blocks(form)` replaces the blocks of a backbone;
    `fused(form)` returns what takes the module's own place. Modules without them stay.

    Hooks of replaced modules are lost. With the target 'torch', squeeze-excite and shortcuts
    compute in place: a hook inside of a block must clone what it keeps, and gradients may fail.

    Args:
        model: A detector or any other network. It is not changed.
        target: The runtime, one of `FUSED_FORMS`.
        branched: False pads the kernels of every MixConv, for comparison.
        int8: Choose the form that is fastest after quantization to 8 bits.

    Returns:
        A copy in evaluation mode that computes the same.

    Raises:
        MixDetError: The target is unknown.
    """
    if target not in FUSED_FORMS:
        names = ", ".join(FUSED_FORMS)
        raise MixDetError(f"fuse: target {target!r} is unknown: use one of {names}")
    form = FUSED_FORMS[target]
    if int8:
        form = form._replace(min_group_channels=form.min_group_channels_int8)
    fused = copy.deepcopy(model).eval()
    if branched:
        for module in list(fused.modules()):
            if hasattr(type(module), "branch_blocks"):
                module.branch_blocks(form)
    for module in list(fused.modules()):
        for name, child in module.named_children():
            if hasattr(type(child), "fused"):
                setattr(module, name, child.fused(form))
            elif isinstance(child, _BatchNorm) and not can_fold(child):
                setattr(module, name, nn.Sequential(child))  # where `fuse_conv_bn` passes it over
    fused = fuse_conv_bn(fused)
    for module in fused.modules():
        if hasattr(type(module), "allow_inplace"):
            module.allow_inplace = form.inplace
    return fused.eval().requires_grad_(False)


@torch.no_grad()
def fused_twin(model: BaseDetector, batch: dict) -> BaseDetector:
    """Fuse a detector for PyTorch, and check that the copy gives the same outputs on an image.

    Args:
        model: A single-stage detector in evaluation mode.
        batch: A batch as its data preprocessor takes it. The first image is used.

    Returns:
        The fused copy.

    Raises:
        MixDetError: The detector cannot be fused, for whatever reason, or the outputs differ. They
            do where a batch norm does not follow the convolution that is defined before it.
    """
    try:
        fused = fuse(model, "torch")
        inputs = model.data_preprocessor(batch)["inputs"][:1]
        outputs, expected = (tree_leaves(m(inputs, mode="tensor")) for m in (fused, model))
        same = all(
            (ours - theirs).abs().max() <= TOLERANCE * theirs.abs().max()
            for ours, theirs in zip(outputs, expected, strict=True)
        )
    except Exception as error:  # a detector that works must not fail because of its copy
        raise MixDetError(one_line(error)) from error
    if not same:
        raise MixDetError("the fused network differs")
    return fused
