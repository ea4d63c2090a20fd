"""A trained network rewritten for inference: the same outputs from fewer and cheaper steps."""

from __future__ import annotations

import copy
from typing import NamedTuple

import mixdet.plugin

import torch
from mmcv.cnn import fuse_conv_bn
from mmdet.models.detectors.base import BaseDetector
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._pytree import tree_leaves

from mixdet.deploy.branches import branch, branchable, narrow
from mixdet.errors import MixDetError, one_line
from mixdet.models.layers.mixconv import MixConv2d, SplitConv2d
from mixdet.models.layers.pointwise import PointwiseConv2d


class Form(NamedTuple):
    """The form of a network for a target, as measured in docs/deploy.md.

    Attributes:
        narrowest: Channels, in or out, of the narrowest 1x1 convolutions side by side that are
            dealt out to branches; others become a dense one, with zeros. None keeps all grouped.
        narrowest_int8: The same in 8 bits.
        fill: Parts of less than a block are filled up with zeros. ONNX Runtime reads narrower ones
            as it does images, three times as slowly.
        overwrite: Squeeze-excite and shortcuts compute in place; other runtimes see for themselves
            what may.
    """

    narrowest: int | None = 12
    narrowest_int8: int | None = 32
    fill: bool = False
    overwrite: bool = False


FORMS = {
    "onnx": Form(fill=True),
    **dict.fromkeys(("openvino", "litert", "executorch"), Form()),
    "ncnn": Form(narrowest=None, narrowest_int8=None),
    "torch": Form(narrowest=None, narrowest_int8=None, overwrite=True),
}
PLAIN = {_BatchNorm.forward, nn.SyncBatchNorm.forward}  # of norms that do nothing else
TOLERANCE = 1e-4  # of the largest output: boxes then move by less than a hundredth of a pixel


def fuse(
    model: nn.Module, target: str = "onnx", branched: bool = True, int8: bool = False
) -> nn.Module:
    """Fold batch norm, and take every MixConv in the form that was measured fastest.

    Batch norm goes into the convolution before it, unless it does more than normalize. A MixConv
    becomes one depthwise convolution, its kernels zero-padded to the largest, or where nothing else
    reads it the whole block becomes branches of one kernel size each (`mixdet.deploy.branches`).
    1x1 convolutions side by side are dealt out to the branches, or become one: grouped, or dense
    where they are unequal or, but for ncnn and torch, narrow. Hooks of what becomes branches are
    lost. For torch, squeeze-excite and shortcuts compute in place: a hook inside of a block has to
    clone what it keeps, and a gradient may be refused.

    Args:
        model: A detector, or any network with MixConvs; it stays as it is.
        target: What will run it, one of `FORMS`.
        branched: False pads every MixConv's kernels, to compare.
        int8: In the form that is fastest in 8 bits, once it is quantized.

    Returns:
        A copy in evaluation mode that computes the same.

    Raises:
        MixDetError: The target is unknown.
    """
    if target not in FORMS:
        raise MixDetError(f"fuse: target {target!r} is unknown: use one of {', '.join(FORMS)}")
    form = FORMS[target]
    fused = copy.deepcopy(model).eval()
    narrowest = form.narrowest_int8 if int8 else form.narrowest
    branches = branchable(fused, narrowest, form.fill) if branched else {}
    for path, module in list(fused.named_modules()):
        for name, child in module.named_children():
            if isinstance(child, MixConv2d):
                setattr(module, name, child.merged())
            elif isinstance(child, SplitConv2d):
                dense = path in branches or (narrowest is not None and narrow(child, narrowest))
                setattr(module, name, _pointwise(child, dense))
    _keep_what_also_activates(fused)
    fused = fuse_conv_bn(fused)
    for name, plan in branches.items():
        branch(fused, name, plan)
    for module in fused.modules():
        if hasattr(module, "overwrites"):
            module.overwrites = form.overwrite
    return fused.eval().requires_grad_(False)


def _keep_what_also_activates(model: nn.Module) -> None:
    """Put norms such as timm's `BatchNormAct2d` where they are not folded away with all they do."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, _BatchNorm) and type(child).forward not in PLAIN:
                setattr(module, name, nn.Sequential(child))


@torch.no_grad()
def fused_twin(model: BaseDetector, batch: dict) -> BaseDetector:
    """A fused copy for this machine, which has given what the detector gives on an image.

    Args:
        model: A detector of one stage, in evaluation mode.
        batch: What its data preprocessor takes; the first image is tried.

    Returns:
        The copy.

    Raises:
        MixDetError: The detector cannot be fused, whatever the reason, or its copy differs: batch
            norms that do not stand where folding expects them.
    """
    try:
        fused = fuse(model, "torch")
        inputs = model.data_preprocessor(batch)["inputs"][:1]
        outputs, expected = (tree_leaves(each(inputs, mode="tensor")) for each in (fused, model))
        fits = all(
            (one - other).abs().max() <= TOLERANCE * other.abs().max()
            for one, other in zip(outputs, expected, strict=True)
        )
    except Exception as error:  # a detector that works must not fail for its copy
        raise MixDetError(one_line(error)) from error
    if not fits:
        raise MixDetError("the fused network differs")
    return fused


@torch.no_grad()
def _pointwise(split: SplitConv2d, dense: bool) -> PointwiseConv2d:
    """One convolution for several 1x1 side by side."""
    convs = list(split.children())
    dense |= len({(conv.in_channels, conv.out_channels) for conv in convs}) > 1
    if dense:
        weight = torch.block_diag(*(conv.weight.flatten(1) for conv in convs))[..., None, None]
    else:
        weight = torch.cat([conv.weight for conv in convs])
    groups = 1 if dense else len(convs)
    channels = sum(conv.in_channels for conv in convs)
    made = PointwiseConv2d(channels, len(weight), 1, groups=groups, bias=False, device="meta")
    made.weight = nn.Parameter(weight)
    return made
