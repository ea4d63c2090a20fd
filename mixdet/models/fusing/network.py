"""Replace the modules of a network by faster ones for inference."""

from __future__ import annotations

import copy

from mmcv.cnn import fuse_conv_bn
from torch import nn

from mixdet.errors import MixDetError
from mixdet.models.fusing.blocks import can_fold
from mixdet.models.fusing.forms import FUSED_FORMS
from mixdet.models.torch_private import AnyBatchNorm


def fuse(
    model: nn.Module, target: str = "onnx", branched: bool = True, int8: bool = False
) -> nn.Module:
    """Rewrite a trained network into the form that a runtime computes fastest.

    Batch norm is folded into the convolution before it. The method `branch_blocks(form)` of a
    backbone splits its blocks into parallel branches. The method `fused(form)` of another module
    returns its replacement: for a MixConv, one zero-padded convolution. See docs/fusing.md.

    Hooks of replaced modules are lost. With 'torch', squeeze-excite and shortcuts write over their
    input. A remaining hook must then copy each tensor that it keeps, and gradients may fail.

    Args:
        model: A detector or any other network. It is not changed.
        target: The runtime, a key of `FUSED_FORMS`.
        branched: Split blocks into branches. False makes each MixConv one convolution instead.
        int8: Choose the form that is fastest after quantization to 8 bits.

    Returns:
        A copy in evaluation mode that gives the same outputs.

    Raises:
        MixDetError: The target is unknown.
    """
    if target not in FUSED_FORMS:
        raise MixDetError(f"fuse: target {target!r} is unknown: use one of {[*FUSED_FORMS]}")
    form = FUSED_FORMS[target]
    form = form._replace(min_group_channels=form.min_group_channels_int8) if int8 else form
    fused = copy.deepcopy(model).eval()
    for module in list(fused.modules()):
        if branched and hasattr(type(module), "branch_blocks"):
            module.branch_blocks(form)
    for module in list(fused.modules()):
        for name, child in module.named_children():
            if hasattr(type(child), "fused"):
                setattr(module, name, child.fused(form))
            elif isinstance(child, AnyBatchNorm) and not can_fold(child):
                setattr(module, name, nn.Sequential(child))  # so `fuse_conv_bn` skips it
    fused = fuse_conv_bn(fused)
    for module in fused.modules():
        if hasattr(type(module), "allow_inplace"):
            module.allow_inplace = form.inplace
    return fused.eval().requires_grad_(False)
