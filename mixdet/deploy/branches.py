"""MixConv blocks as branches, one a kernel size, between 1x1 convolutions that deal them out.

The rows of a block's expansion are dealt out to the branches, and its projection becomes a sum:
widened channels are never split or joined, and no kernel is larger than its channels need. Where
1x1 convolutions stand side by side, in lanes, each branch has one lane, and the tensors between the
blocks lie apart as well: nothing is multiplied by the zeros between lanes, and nothing is copied.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mixdet.deploy.parts import (
    DealtSqueezeExcite,
    Each,
    Share,
    deal,
    deal_depthwise,
    listed,
    ranges,
)
from mixdet.models.backbones.base import StagedBackbone
from mixdet.models.layers import DepthwiseSeparable, InvertedResidual, MixConv2d, SqueezeExcite
from mixdet.models.layers.blocks import Expansion
from mixdet.models.layers.mixconv import SplitConv2d

# ONNX Runtime's and OpenVINO's convolutions keep channels in blocks of 8 (AVX2) or 16 (AVX-512)
BLOCK = 16


class Plan(NamedTuple):
    """How a block becomes branches.

    Attributes:
        reads: The parts of its input.
        expansion: The (channels in, channels out) of each lane of the 1x1 convolution before the
            depthwise one.
        widened: The branches.
        sizes: The kernel size of each.
        projection: The lanes of the 1x1 convolution after it.
        writes: The parts of its output.
        tapped: The widened tensor is an output of the backbone and stays in one piece.
    """

    reads: list[Share]
    expansion: list[tuple[int, int]]
    widened: list[Share]
    sizes: list[int]
    projection: list[tuple[int, int]]
    writes: list[Share]
    tapped: bool


class Branches(nn.Module):
    """A block whose widened channels, or whose inputs and outputs, lie in parts.

    Args:
        block: The block, with folded batch norm and merged MixConv.
        plan: How it becomes branches.
    """

    def __init__(self, block: DepthwiseSeparable | InvertedResidual, plan: Plan) -> None:
        super().__init__()
        shares = plan.widened
        self.has_shortcut = block.has_shortcut
        self.se = nn.Identity()
        if isinstance(block, InvertedResidual):
            self.conv_pw = deal(block.conv_pw, plan.reads, shares, plan.expansion)
            self.conv_pwl = deal(block.conv_pwl, shares, plan.writes, plan.projection)
            acts = (block.act1, block.act2, nn.Identity())
            if isinstance(block.se, SqueezeExcite):
                self.se = DealtSqueezeExcite(block.se, shares)
        else:
            self.conv_pw = nn.Identity()
            self.conv_pwl = deal(block.conv_pw, shares, plan.writes, plan.projection)
            acts = (nn.Identity(), block.act1, block.act2)
        self.conv_dw = deal_depthwise(block.conv_dw, shares, plan.sizes)
        self.act1, self.act2, self.act3 = map(Each, acts)

    def forward(self, x: Tensor | list[Tensor]) -> Tensor | list[Tensor]:
        """(N, C, H, W), or a (N, C_i, H, W) a part, in and out."""
        widened = listed(self.act1(self.conv_pw(x)))
        mixed = [conv(part) for conv, part in zip(self.conv_dw, widened, strict=True)]
        scaled = self.se(self.act2(mixed))
        return self.act3(self.conv_pwl(scaled, x if self.has_shortcut else None))


def channel_groups(mix: MixConv2d, lanes: Collection[int] = ()) -> list[tuple[int, int]]:
    """The (channels, kernel size) of each branch, in order.

    A border between two kernel sizes is moved down to a multiple of `BLOCK`, or only as far as the
    last border of a lane; what crosses it is zero-padded to its new neighbors' size. Sizes are
    those that `MixConv2d.merged` would count in, with the common dilation.

    Args:
        mix: The depthwise convolution.
        lanes: Channels at which the 1x1 convolutions beside it are split, and branches with them.
    """
    convs = list(mix.children()) or [mix]
    extents = [conv.dilation[0] * (conv.kernel_size[0] - 1) for conv in convs]
    dilation = mix.merged().dilation[0]
    sizes = [
        extent // dilation + 1
        for extent, conv in zip(extents, convs, strict=True)
        for _ in range(conv.in_channels)
    ]
    ends, total = {*lanes}, 0
    for conv in convs:
        total += conv.in_channels
        near = [total // BLOCK * BLOCK, *(border for border in lanes if border <= total)]
        ends.add(total if conv is convs[-1] else max(near))
    return [(end - start, max(sizes[start:end])) for start, end in pairwise(sorted({0, *ends}))]


def branchable(model: nn.Module, narrowest: int | None, fill: bool) -> dict[str, Plan]:
    """The blocks that can be branches, by name, and how.

    What something else reads, the head through a tap, stays in one piece, and so does what a block
    of another class or with other parts reads and writes.

    Args:
        model: Any network, as trained.
        narrowest: Channels, in or out, of the narrowest 1x1 convolutions side by side that stay
            lanes; others are taken as a dense one. None leaves out blocks that have several.
        fill: Give parts of fewer than `BLOCK` channels as many, with zeros.
    """
    found = {}
    for prefix, backbone in model.named_modules():
        if isinstance(backbone, StagedBackbone):
            plans = _plans(backbone, narrowest, fill)
            found |= {f"{prefix}.{name}".lstrip("."): plan for name, plan in plans.items()}
    return found


@torch.no_grad()
def branch(model: nn.Module, name: str, plan: Plan) -> None:
    """Make a block branches, in place; before the first one, the stem writes what it reads.

    Args:
        model: A network whose batch norm is folded and whose MixConvs are merged.
        name: The block's.
        plan: What `branchable` said of it.
    """
    block = model.get_submodule(name)
    if name.endswith("blocks.0.0") and len(plan.reads) > 1:
        backbone = model.get_submodule(name.removesuffix("blocks.0.0").rstrip("."))
        backbone.conv_stem = deal(backbone.conv_stem, [Share(3)], plan.reads)
        backbone.act1 = Each(backbone.act1)
    if plan.tapped:  # the backbone calls its parts one by one
        block.conv_pw = deal(block.conv_pw, plan.reads, plan.widened, plan.expansion)
        if isinstance(block, InvertedResidual):
            block.conv_pwl = deal(block.conv_pwl, plan.widened, plan.writes, plan.projection)
    else:
        model.set_submodule(name, Branches(block, plan))


def narrow(conv: nn.Module, narrowest: int) -> bool:
    """Whether one of several 1x1 convolutions side by side has fewer channels, in or out."""
    return any(min(part.in_channels, part.out_channels) < narrowest for part in conv.children())


def _plans(backbone: StagedBackbone, narrowest: int | None, fill: bool) -> dict[str, Plan]:
    """`branchable` of one backbone, by names inside it."""
    names, blocks, tapped = [], [], []
    for stage, members in enumerate(backbone.blocks):
        for index, block in enumerate(members):
            names.append(f"blocks.{stage}.{index}")
            blocks.append(block)
            tapped.append(index == 0 and f"stage{stage + 1}.expansion" in backbone.taps)
    layouts = _layouts(backbone, blocks, tapped, narrowest)
    plans = {}
    for name, block, is_tapped, (reads, writes) in zip(
        names, blocks, tapped, pairwise(layouts), strict=True
    ):
        if not _known(block):
            continue
        if isinstance(block, DepthwiseSeparable):
            expansion, projection = [], _sides(block.conv_pw)
            groups = channel_groups(block.conv_dw, _borders(reads))
            if len(reads) == 1:  # before it is no convolution to deal channels out
                groups = [(reads[0], max(size for _, size in groups))]
        else:
            pointwise = [block.conv_pw]
            if isinstance(block, InvertedResidual):
                pointwise.append(block.conv_pwl)
            if narrowest is None and any(isinstance(conv, SplitConv2d) for conv in pointwise):
                continue
            expansion, *projections = (_lanes(conv, narrowest) for conv in pointwise)
            projection = projections[0] if projections else []
            groups = [(sum(out for _, out in expansion), 0)]  # its depthwise convolution stays
            if not is_tapped:
                lanes = {*_borders(out for _, out in expansion)}
                lanes |= {*_borders(channels for channels, _ in projection)}
                groups = channel_groups(block.conv_dw, lanes)
        widened, sizes = zip(*groups, strict=True)
        if max(map(len, (reads, expansion, widened, projection, writes))) > 1:
            parts = (_filled(each, fill) for each in (reads, widened, writes))
            reads, widened, writes = parts
            plans[name] = Plan(reads, expansion, widened, [*sizes], projection, writes, is_tapped)
    return plans


def _layouts(
    backbone: StagedBackbone,
    blocks: Sequence[nn.Module],
    tapped: Sequence[bool],
    narrowest: int | None,
) -> list[list[int]]:
    """Channels of each part of the tensor before every block, and after the last one."""
    channels = []
    for before, after in pairwise([None, *blocks, None]):
        if _known(after):
            channels.append(sum(reads for reads, _ in _sides(after.conv_pw)))
        elif _known(before):
            last = getattr(before, "conv_pwl", before.conv_pw)
            channels.append(sum(writes for _, writes in _sides(last)))
        else:
            channels.append(0)  # nobody asks
    # Before which blocks, by number, lies what something else reads, writes or adds
    undivided = {number for number, block in enumerate(blocks) if tapped[number] and _adds(block)}
    for number, block in enumerate(blocks):
        if not _known(block):
            undivided |= {number, number + 1}
    if "stem" in backbone.taps or not isinstance(backbone.bn1, _BatchNorm):
        undivided.add(0)
    for stage in range(len(backbone.blocks)):
        if f"stage{stage + 1}" in backbone.taps:
            undivided.add(sum(map(len, backbone.blocks[: stage + 1])))
    layouts: list[list[int]] = []
    while len(layouts) <= len(blocks):
        first = last = len(layouts)
        while last < len(blocks) and _adds(blocks[last]):
            last += 1  # what is added must lie alike
        layout = None
        if last < len(blocks) and undivided.isdisjoint(range(first, last + 1)):
            layout = _layout(blocks[first : last + 1], first == 0, narrowest)
        layouts += [layout or [channels[number]] for number in range(first, last + 1)]
    return layouts


def _layout(readers: Sequence[nn.Module], of_stem: bool, narrowest: int | None) -> list[int] | None:
    """Channels of the parts in which the blocks that read a tensor want it, if they agree."""
    pointwise = [block.conv_pw for block in readers if isinstance(block, Expansion)]
    depthwise = [block.conv_dw for block in readers if isinstance(block, DepthwiseSeparable)]
    wanted = {tuple(channels for channels, _ in _lanes(conv, narrowest)) for conv in pointwise}
    if of_stem and not pointwise:
        wanted = {tuple(channels for channels, _ in channel_groups(conv)) for conv in depthwise}
    wanted = [layout for layout in wanted if len(layout) > 1]
    if len(wanted) != 1:
        return None
    layout = [*wanted[0]]
    for conv in depthwise:
        if layout != [channels for channels, _ in channel_groups(conv, _borders(layout))]:
            return None
    return layout


def _known(block: nn.Module | None) -> bool:
    """Whether a block has nothing but what `Branches` takes over, all of which can be dealt out."""
    classes = (DepthwiseSeparable, InvertedResidual, Expansion)
    norms = [getattr(block, name) for name in ("bn1", "bn2", "bn3") if hasattr(block, name)]
    return (
        type(block) in classes
        and type(getattr(block, "se", None)) in (type(None), nn.Identity, SqueezeExcite)
        and all(isinstance(norm, _BatchNorm) for norm in norms)
    )


def _adds(block: nn.Module) -> bool:
    """Whether a block has a shortcut."""
    return getattr(block, "has_shortcut", False)


def _sides(conv: nn.Module) -> list[tuple[int, int]]:
    """The (channels in, channels out) of each convolution side by side, or of the only one."""
    return [(part.in_channels, part.out_channels) for part in [*conv.children()] or [conv]]


def _lanes(conv: nn.Module, narrowest: int | None) -> list[tuple[int, int]]:
    """The same of those that stay lanes."""
    sides = _sides(conv)
    dense = narrowest is None or narrow(conv, narrowest)
    return [tuple(map(sum, zip(*sides, strict=True)))] if dense else sides


def _filled(channels: Sequence[int], fill: bool) -> list[Share]:
    """The parts of a tensor; several of them have at least a block each, if so asked."""
    least = BLOCK if fill and len(channels) > 1 else 0
    return [Share(each, max(0, least - each)) for each in channels]


def _borders(shares: Iterable[int]) -> list[int]:
    """Where a share ends and another begins."""
    return [end for _, end in ranges(shares)[:-1]]
