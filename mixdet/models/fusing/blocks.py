"""Split the blocks of MixNet and MobileNet into parallel branches, each with one kernel size."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from mmcv.cnn import fuse_conv_bn
from torch import Tensor, nn

from mixdet.models.fusing.forms import FusedForm
from mixdet.models.fusing.layout import ChannelLayout, split_by_kernel
from mixdet.models.fusing.parts import PartitionedConv2d, Parts, PerPart, as_list, split_depthwise
from mixdet.models.torch_private import AnyBatchNorm


def can_fold(norm: nn.Module) -> bool:
    """Tell whether a norm can be folded. timm's `BatchNormAct2d` cannot: it has an activation."""
    return type(norm).forward in (AnyBatchNorm.forward, nn.SyncBatchNorm.forward)


class Layer(NamedTuple):
    """A convolution, or several in one module side by side, with the norm and the activation."""

    conv: nn.Module
    norm: nn.Module
    act: nn.Module

    def folded(self) -> nn.Conv2d:
        """Return one convolution with the norm folded into it."""
        conv = self.conv.merged() if hasattr(type(self.conv), "merged") else self.conv
        return fuse_conv_bn(nn.Sequential(conv, self.norm))[0]

    def groups(self, form: FusedForm) -> tuple[ChannelLayout, ChannelLayout]:
        """Return the groups of input and output channels. A single group means no split."""
        convs = list(self.conv.children()) or [self.conv]
        inputs = [conv.in_channels for conv in convs]
        outputs = [conv.out_channels for conv in convs]
        least = form.min_group_channels
        if least is None or min(inputs + outputs) < least:
            inputs, outputs = [sum(inputs)], [sum(outputs)]
        return ChannelLayout(inputs), ChannelLayout(outputs)


class BlockLayers(NamedTuple):
    """The layers of a block, in order, as the block's method `fusible_layers` returns them."""

    expand: Layer | None  # 1x1
    depthwise: Layer
    se: nn.Module | None  # squeeze-excite, with a method `partitioned(layout)`
    project: Layer  # 1x1
    has_shortcut: bool

    def can_branch(self, form: FusedForm) -> bool:
        """Tell whether all norms can be folded, and no 1x1 convolution stays grouped in `form`."""
        pointwise = [layer for layer in (self.expand, self.project) if layer]
        grouped = any(list(layer.conv.children()) for layer in pointwise)
        norms = [layer.norm for layer in (*pointwise, self.depthwise)]
        return (form.min_group_channels is not None or not grouped) and all(map(can_fold, norms))

    def input_sizes(self, form: FusedForm, behind_stem: bool) -> tuple[int, ...]:
        """Return how many channels each part of the block's input gets when the input is split."""
        if self.expand:
            return self.expand.groups(form)[0].sizes
        kernel_sizes = self.depthwise.conv.merged_kernel_sizes()
        return split_by_kernel(kernel_sizes).sizes if behind_stem else (len(kernel_sizes),)


class BranchedBlock(nn.Module):
    """A block whose depthwise convolution is split into branches.

    `layouts`: of input and output, None for a whole tensor. `tapped`: the expansion stays whole.
    """

    def __init__(self, layers: BlockLayers, layouts: list, form: FusedForm, tapped: bool) -> None:
        super().__init__()
        expand, depthwise, se, project, self.has_shortcut = layers
        kernel_sizes = depthwise.conv.merged_kernel_sizes()
        project_groups = project.groups(form)
        inputs, outputs = layouts[0], layouts[1] or ChannelLayout([sum(project_groups[1].sizes)])
        unsplit = ChannelLayout([len(kernel_sizes)])
        if expand:
            expand_groups = expand.groups(form)
            inputs = inputs or ChannelLayout([sum(expand_groups[0].sizes)])
            boundaries = {*expand_groups[1].boundaries, *project_groups[0].boundaries}
            branches = split_by_kernel(kernel_sizes, boundaries, form.min_part_channels)
            branches = unsplit if tapped else branches
            self.conv_pw = PartitionedConv2d(expand.folded(), inputs, branches, expand_groups)
            self.act1 = PerPart(expand.act)
        else:
            branches = inputs or unsplit
            self.conv_pw, self.act1 = nn.Identity(), nn.Identity()
        self.conv_dw = split_depthwise(depthwise.folded(), branches, kernel_sizes)
        self.act2 = PerPart(depthwise.act)
        self.se = se.partitioned(branches) if se else nn.Identity()
        self.conv_pwl = PartitionedConv2d(project.folded(), branches, outputs, project_groups)
        self.act3 = PerPart(project.act)

    def forward(self, x: Parts, expansions: list[Tensor] | None = None) -> Parts:
        """(N, C, H, W) -> (N, C', H', W'). A tapped expansion is appended to `expansions`."""
        branches = as_list(self.act1(self.conv_pw(x)))
        if expansions is not None:
            expansions += branches
        mixed = [conv(branch) for conv, branch in zip(self.conv_dw, branches, strict=True)]
        return self.act3(self.conv_pwl(self.se(self.act2(mixed)), x if self.has_shortcut else None))


def branch_blocks(
    blocks: Sequence[nn.Module], whole: Collection[int], tapped: Collection[int], form: FusedForm
) -> tuple[ChannelLayout | None, list[nn.Module]]:
    """Split the blocks of a network into branches, and the tensors between them into parts.

    A tensor is split at the groups of the 1x1 expansion that reads it. The first tensor may also be
    split by the kernel sizes of the depthwise convolution that reads it. The input and output of a
    block with a shortcut get the same layout. A block stays unchanged if its class only inherits
    `fusible_layers`, because a subclass may compute something else.

    Args:
        blocks: Blocks in order. Tensor i is block i's input and the output of block i - 1.
        whole: Indices of the tensors that other modules read or write. These tensors are not split.
        tapped: Indices of the blocks whose expansion is an output of the network.
        form: The settings for the runtime.

    Returns:
        The layout of the first block's input, or None if it is not split, and the new blocks.
    """
    layers = [b.fusible_layers() if "fusible_layers" in vars(type(b)) else None for b in blocks]
    layers = [fusible if fusible and fusible.can_branch(form) else None for fusible in layers]
    staying = [index for index, fusible in enumerate(layers) if not fusible]
    whole = {*whole, *staying, *(index + 1 for index in staying), len(blocks)}
    layouts: list[ChannelLayout | None] = []
    while len(layouts) <= len(blocks):
        first = last = len(layouts)
        while last < len(blocks) and getattr(blocks[last], "has_shortcut", False):
            last += 1
        tensors = range(first, last + 1)
        readers = [layers[i] for i in tensors] if whole.isdisjoint(tensors) else []
        splits = {reader.input_sizes(form, first == 0) for reader in readers}
        splits = [sizes for sizes in splits if len(sizes) > 1]
        layout = ChannelLayout(splits[0], form.min_part_channels) if len(splits) == 1 else None
        layouts += [layout] * len(tensors)
    return layouts[0], [
        BranchedBlock(layers[i], layouts[i : i + 2], form, i in tapped) if layers[i] else block
        for i, block in enumerate(blocks)
    ]
