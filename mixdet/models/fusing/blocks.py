"""Blocks of MixNet and MobileNet as branches of one kernel size each."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import pairwise
from typing import NamedTuple

from mmcv.cnn import fuse_conv_bn
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mixdet.models.fusing.forms import FusedForm
from mixdet.models.fusing.layout import ChannelLayout, split_by_kernel
from mixdet.models.fusing.parts import PartitionedConv2d, Parts, PerPart, as_list, split_depthwise


def can_fold(norm: nn.Module) -> bool:
    """Whether a module is a batch norm that only normalizes; timm's `BatchNormAct2d` does more."""
    plain = _BatchNorm.forward, nn.SyncBatchNorm.forward
    return isinstance(norm, _BatchNorm) and type(norm).forward in plain


class Layer(NamedTuple):
    """A convolution, or several side by side, with what follows it."""

    conv: nn.Module
    norm: nn.Module
    act: nn.Module

    def folded(self) -> nn.Conv2d:
        """One convolution, with the norm folded into it."""
        conv = self.conv.merged() if hasattr(type(self.conv), "merged") else self.conv
        return fuse_conv_bn(nn.Sequential(conv, self.norm))[0]

    def groups(self, form: FusedForm) -> tuple[ChannelLayout, ChannelLayout]:
        """The groups of input and output channels that are split from each other."""
        convs = list(self.conv.children()) or [self.conv]
        sizes = [(conv.in_channels, conv.out_channels) for conv in convs]
        least = form.min_group_channels
        if least is None or min(map(min, sizes)) < least:
            sizes = [tuple(map(sum, zip(*sizes, strict=True)))]
        return tuple(map(ChannelLayout, zip(*sizes, strict=True)))


class BlockLayers(NamedTuple):
    """The layers of a block, in order. A block returns them from a method `fusible_layers`."""

    expand: Layer | None  # 1x1
    depthwise: Layer
    se: nn.Module | None  # it has a method `partitioned(layout)`
    project: Layer  # 1x1
    has_shortcut: bool

    def can_branch(self, form: FusedForm) -> bool:
        """Whether every norm can be folded, and no 1x1 convolution has to stay grouped."""
        pointwise = [layer for layer in (self.expand, self.project) if layer]
        grouped = any(list(layer.conv.children()) for layer in pointwise)
        norms = [layer.norm for layer in (*pointwise, self.depthwise)]
        return (form.min_group_channels is not None or not grouped) and all(map(can_fold, norms))

    def input_layout(self, form: FusedForm, behind_stem: bool) -> ChannelLayout:
        """The layout in which the block wants its input, if that may be split."""
        sizes = self.expand.groups(form)[0].sizes if self.expand else ()
        if behind_stem and not self.expand:
            sizes = split_by_kernel(self.depthwise.conv.merged_kernel_sizes()).sizes
        return ChannelLayout(sizes, form.min_part_channels)


class BranchedBlock(nn.Module):
    """A block with its depthwise convolution split into branches.

    `sides` are the layouts of its input and output; None is whole. A tapped expansion stays whole.
    """

    def __init__(self, layers: BlockLayers, sides: Sequence, form: FusedForm, tapped: bool) -> None:
        super().__init__()
        expand, depthwise, se, project, self.has_shortcut = layers
        kernel_sizes = depthwise.conv.merged_kernel_sizes()
        projection = project.groups(form)
        inputs, outputs = sides[0], sides[1] or ChannelLayout([sum(projection[1].sizes)])
        self.conv_pw, self.act1 = nn.Identity(), nn.Identity()
        widened = ChannelLayout([len(kernel_sizes)])
        if expand:
            expansion = expand.groups(form)
            inputs = inputs or ChannelLayout([sum(expansion[0].sizes)])
            if not tapped:
                boundaries = {*expansion[1].boundaries, *projection[0].boundaries}
                widened = split_by_kernel(kernel_sizes, boundaries, form.min_part_channels)
            self.conv_pw = PartitionedConv2d(expand.folded(), inputs, widened, expansion)
            self.act1 = PerPart(expand.act)
        elif inputs:
            widened = inputs
        self.conv_dw = split_depthwise(depthwise.folded(), widened, kernel_sizes)
        self.act2 = PerPart(depthwise.act)
        self.se = se.partitioned(widened) if se else nn.Identity()
        self.conv_pwl = PartitionedConv2d(project.folded(), widened, outputs, projection)
        self.act3 = PerPart(project.act)

    def forward(self, x: Parts, expansions: list[Tensor] | None = None) -> Parts:
        """(N, C, H, W) -> (N, C', H', W'); the expansion is appended to `expansions`, whole."""
        branches = as_list(self.act1(self.conv_pw(x)))
        if expansions is not None:
            expansions += branches
        mixed = [conv(branch) for conv, branch in zip(self.conv_dw, branches, strict=True)]
        return self.act3(self.conv_pwl(self.se(self.act2(mixed)), x if self.has_shortcut else None))


def branch_blocks(
    blocks: Sequence[nn.Module], whole: Collection[int], tapped: Collection[int], form: FusedForm
) -> tuple[ChannelLayout | None, list[nn.Module]]:
    """Split the blocks of a network into branches, and the tensors between them into parts.

    A tensor is split as the 1x1 expansion that reads it is split into groups; the first tensor also
    as the depthwise convolution that reads it. A shortcut gives two tensors the same layout. A
    block stays if its own class defines no `fusible_layers`: a subclass may compute something else.

    Args:
        blocks: Blocks in a row. Tensor i is the input of block i and the output of block i - 1.
        whole: Numbers of the tensors that something else reads or writes. They stay whole.
        tapped: Numbers of the blocks of which something else reads the output of the expansion.
        form: The form of the network.

    Returns:
        The layout of the first block's input, None for whole, and the blocks.
    """
    layers = [b.fusible_layers() if "fusible_layers" in vars(type(b)) else None for b in blocks]
    layers = [known if known and known.can_branch(form) else None for known in layers]
    unknown = [index for index, known in enumerate(layers) if not known]
    whole = {*whole, *unknown, *(index + 1 for index in unknown), len(blocks)}
    layouts: list[ChannelLayout | None] = []
    while len(layouts) <= len(blocks):
        first = last = len(layouts)
        while last < len(blocks) and getattr(blocks[last], "has_shortcut", False):
            last += 1
        may_split = whole.isdisjoint(range(first, last + 1))
        readers = layers[first : last + 1] if may_split else []
        wanted = [reader.input_layout(form, first == 0) for reader in readers]
        wanted = {layout.sizes: layout for layout in wanted if layout.is_split}
        layouts += [wanted.popitem()[1] if len(wanted) == 1 else None] * (last + 1 - first)
    return layouts[0], [
        BranchedBlock(known, sides, form, index in tapped) if known else blocks[index]
        for index, (known, sides) in enumerate(zip(layers, pairwise(layouts), strict=True))
    ]
