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
from mixdet.models.fusing.parts import (
    PartitionedConv2d,
    PartitionedSqueezeExcite,
    Parts,
    PerPart,
    as_list,
    partition_conv,
    partition_depthwise,
)

PLAIN_FORWARDS = {_BatchNorm.forward, nn.SyncBatchNorm.forward}
Layer = tuple[nn.Module, nn.Module, nn.Module]  # convolution, norm, activation


class BlockLayers(NamedTuple):
    """The layers of a block in order, as its method `fusible_layers` returns them."""

    expand: Layer | None  # 1x1
    depthwise: Layer
    se: nn.Module | None
    project: Layer  # 1x1
    has_shortcut: bool


class BranchedBlock(nn.Module):
    """A block whose depthwise convolution is split into branches, and whose tensors may be split.

    Args:
        layers: The layers of the block.
        inputs: The layout of its input.
        widened: The layout of the branches.
        outputs: The layout of its output.
        form: The form of the network.
    """

    def __init__(
        self,
        layers: BlockLayers,
        inputs: ChannelLayout,
        widened: ChannelLayout,
        outputs: ChannelLayout,
        form: FusedForm,
    ) -> None:
        super().__init__()
        self.conv_pw = self.act1 = self.se = nn.Identity()
        if layers.expand:
            groups = group_layouts(layers.expand[0], form)
            self.conv_pw = partition_conv(fold_norm(*layers.expand[:2]), inputs, widened, groups)
            self.act1 = PerPart(layers.expand[2])
        kernel_sizes = layers.depthwise[0].merged_kernel_sizes()
        largest = [
            max(kernel_sizes[first:end])
            for first, end in pairwise([0, *widened.boundaries, len(kernel_sizes)])
        ]
        self.conv_dw = partition_depthwise(fold_norm(*layers.depthwise[:2]), widened, largest)
        self.act2 = PerPart(layers.depthwise[2])
        if layers.se:
            self.se = PartitionedSqueezeExcite(layers.se, widened)
        groups = group_layouts(layers.project[0], form)
        self.conv_pwl = partition_conv(fold_norm(*layers.project[:2]), widened, outputs, groups)
        self.act3 = PerPart(layers.project[2])
        self.has_shortcut = layers.has_shortcut

    def forward(self, x: Parts, expansions: list[Tensor] | None = None) -> Parts:
        """(N, C, H, W) -> (N, C', H', W'); the expansion is appended to `expansions`, whole."""
        branches = as_list(self.act1(self.conv_pw(x)))
        if expansions is not None:
            expansions += branches
        mixed = [conv(branch) for conv, branch in zip(self.conv_dw, branches, strict=True)]
        return self.act3(self.conv_pwl(self.se(self.act2(mixed)), x if self.has_shortcut else None))


def branch_stem(conv: nn.Conv2d, norm: nn.Module, outputs: ChannelLayout) -> PartitionedConv2d:
    """Fold a norm into the first convolution of a network, and split its output."""
    return partition_conv(fold_norm(conv, norm), ChannelLayout([conv.in_channels]), outputs)


def branch_blocks(
    blocks: Sequence[nn.Module], whole: Collection[int], tapped: Collection[int], form: FusedForm
) -> tuple[ChannelLayout | None, list[nn.Module]]:
    """Split the blocks of a network into branches, and the tensors between them into parts.

    A tensor is split as the expansion that reads it is split into groups, and the first one as the
    depthwise convolution that reads it. A shortcut gives two tensors the same layout.

    Args:
        blocks: Blocks in a row. Tensor i is the input of block i and the output of block i - 1.
        whole: Numbers of the tensors that something else reads or writes. They stay whole.
        tapped: Numbers of the blocks whose expansion something else reads.
        form: The form of the network.

    Returns:
        The layout of the first block's input, None for whole, and the blocks. A block that has no
        `fusible_layers` of its own class, or norms that cannot be folded, stays as it is.
    """
    layers = [fusible_layers(block, form) for block in blocks]
    whole = {*whole, len(blocks)}
    for index, block_layers in enumerate(layers):
        whole |= set() if block_layers else {index, index + 1}
    layouts: list[ChannelLayout | None] = []
    while len(layouts) <= len(blocks):
        first = last = len(layouts)
        while last < len(blocks) and getattr(blocks[last], "has_shortcut", False):
            last += 1
        wanted = {}
        if whole.isdisjoint(range(first, last + 1)):
            readers = [_input_layout(each, form, first == 0) for each in layers[first : last + 1]]
            wanted = {layout.sizes: layout for layout in readers if layout.is_split}
        layout = next(iter(wanted.values())) if len(wanted) == 1 else None
        layouts += [layout] * (last + 1 - first)
    branched = [
        _branched(*given, index in tapped, form) if given[1] else given[0]
        for index, given in enumerate(zip(blocks, layers, layouts, layouts[1:], strict=False))
    ]
    return layouts[0], branched


def fusible_layers(block: nn.Module, form: FusedForm) -> BlockLayers | None:
    """The layers of a block, if it can become branches in a form.

    A subclass may compute something else, so it has to define `fusible_layers` itself.
    """
    if "fusible_layers" not in vars(type(block)):
        return None
    layers = block.fusible_layers()
    pointwise = [layer[0] for layer in (layers.expand, layers.project) if layer]
    grouped = any(True for conv in pointwise for _ in conv.children())
    norms = [layer[1] for layer in (layers.expand, layers.depthwise, layers.project) if layer]
    splits = form.min_group_channels is not None or not grouped
    return layers if splits and all(map(can_fold, norms)) else None


def group_layouts(conv: nn.Module, form: FusedForm) -> tuple[ChannelLayout, ChannelLayout]:
    """The groups of input and output channels of 1x1 convolutions that stay apart in a form."""
    groups = [(c.in_channels, c.out_channels) for c in conv.children()]
    groups = groups or [(conv.in_channels, conv.out_channels)]
    least = form.min_group_channels
    if least is None or min(map(min, groups)) < least:
        groups = [tuple(map(sum, zip(*groups, strict=True)))]
    return tuple(ChannelLayout(sizes) for sizes in zip(*groups, strict=True))


def can_fold(norm: nn.Module) -> bool:
    """Whether a module is a batch norm that only normalizes; timm's `BatchNormAct2d` does more."""
    return isinstance(norm, _BatchNorm) and type(norm).forward in PLAIN_FORWARDS


def fold_norm(conv: nn.Module, norm: nn.Module) -> nn.Conv2d:
    """Fold a batch norm into a convolution, or into convolutions side by side as a merged one."""
    conv = conv.merged() if hasattr(type(conv), "merged") else conv
    return fuse_conv_bn(nn.Sequential(conv, norm))[0]


def _input_layout(layers: BlockLayers, form: FusedForm, behind_stem: bool) -> ChannelLayout:
    """The layout in which a block wants its input."""
    kernel_sizes = layers.depthwise[0].merged_kernel_sizes()
    if layers.expand:
        sizes = group_layouts(layers.expand[0], form)[0].sizes
    else:
        sizes = split_by_kernel(kernel_sizes).sizes if behind_stem else [len(kernel_sizes)]
    return ChannelLayout(sizes, form.min_part_channels)


def _branched(
    block: nn.Module,
    layers: BlockLayers,
    inputs: ChannelLayout | None,
    outputs: ChannelLayout | None,
    tapped: bool,
    form: FusedForm,
) -> nn.Module:
    """A block as branches; the block itself where nothing would be split."""
    kernel_sizes = layers.depthwise[0].merged_kernel_sizes()
    projection = group_layouts(layers.project[0], form)
    outputs = outputs or ChannelLayout([sum(projection[1].sizes)])
    if layers.expand:
        expansion = group_layouts(layers.expand[0], form)
        inputs = inputs or ChannelLayout([sum(expansion[0].sizes)])
        boundaries = [*expansion[1].boundaries, *projection[0].boundaries]
        widened = ChannelLayout([len(kernel_sizes)])
        if not tapped:
            widened = split_by_kernel(kernel_sizes, boundaries, form.min_part_channels)
    else:
        expansion, inputs = (), inputs or ChannelLayout([len(kernel_sizes)])
        widened = inputs
    layouts = (inputs, *expansion, widened, *projection, outputs)
    if not any(layout.is_split for layout in layouts):
        return block
    return BranchedBlock(layers, inputs, widened, outputs, form)
