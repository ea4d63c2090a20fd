"""A MixConv block as branches, one a kernel size, from its 1x1 expansion to its 1x1 projection.

The rows of the expansion are dealt out to the branches, and the projection becomes a sum: widened
channels are never split or joined, and no kernel is larger than its channels need. Of 1x1
convolutions side by side, unless they are narrow, a branch computes with those that it depends on.
Every part takes the place of one submodule, so that a block's own `forward` stays as it is.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mixdet.models.backbones.base import StagedBackbone
from mixdet.models.layers import DepthwiseSeparable, InvertedResidual, MixConv2d, SqueezeExcite
from mixdet.models.layers.blocks import added, scaled
from mixdet.models.layers.mixconv import SplitConv2d

# ONNX Runtime's and OpenVINO's convolutions keep channels in blocks of 8 (AVX2) or 16 (AVX-512)
BLOCK = 16
# Channels in and out from which 1x1 convolutions side by side are worth computing as such
NARROWEST = 2 * BLOCK


class Fan(nn.ModuleList):
    """One tensor into a list of them, a convolution each.

    Args:
        convs: The convolutions.
        reads: The channels [first, end) that each reads.
    """

    def __init__(self, convs: Iterable[nn.Module], reads: Sequence[tuple[int, int]]) -> None:
        super().__init__(convs)
        self.reads = tuple(reads)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(N, C, H, W) -> a (N, C_i, H', W') a branch."""
        everything = (0, x.shape[1])
        parts = {
            read: x if read == everything else x[:, slice(*read)]
            for read in dict.fromkeys(self.reads)
        }
        return [module(parts[read]) for module, read in zip(self, self.reads, strict=True)]


class Each(nn.ModuleList):
    """A module for every branch."""

    def forward(self, branches: list[Tensor]) -> list[Tensor]:
        """A (N, C_i, H, W) a branch -> a (N, C_i, H', W') a branch."""
        return [module(x) for module, x in zip(self, branches, strict=True)]


class Join(nn.ModuleList):
    """The sum of a convolution on every branch; runtimes add while they convolve.

    Args:
        convs: The convolutions.
        reads: The branch that each reads.

    Attributes:
        overwrites: The sum takes the place of a convolution's output.
    """

    overwrites = False

    def __init__(self, convs: Iterable[nn.Module], reads: Sequence[int]) -> None:
        super().__init__(convs)
        self.reads = tuple(reads)

    def forward(self, branches: list[Tensor]) -> Tensor:
        """A (N, C_i, H, W) a branch -> (N, C, H', W')."""
        total, *others = (
            module(branches[read]) for module, read in zip(self, self.reads, strict=True)
        )
        for other in others:
            total = added(other, total, self.overwrites)
        return total


class Lanes(nn.ModuleList):
    """`Join`s side by side, each the sum of the branches that its channels need."""

    def forward(self, branches: list[Tensor]) -> Tensor:
        """A (N, C_i, H, W) a branch -> (N, C, H', W')."""
        return torch.cat([module(branches) for module in self], 1)


class JoinedSqueezeExcite(nn.Module):
    """A squeeze-excite whose channels lie in branches.

    Args:
        se: The one to take apart.
        shares: Channels of each branch.

    Attributes:
        overwrites: As `SqueezeExcite`'s.
    """

    overwrites = False

    def __init__(self, se: SqueezeExcite, shares: Sequence[int]) -> None:
        super().__init__()
        self.conv_reduce = join(se.conv_reduce, shares)
        self.act1 = se.act1
        self.conv_expand = fan(se.conv_expand, shares)
        self.gate = se.gate

    def forward(self, branches: list[Tensor]) -> list[Tensor]:
        """A (N, C_i, H, W) a branch, in and out."""
        means = [x.mean((2, 3), keepdim=True) for x in branches]
        scales = self.conv_expand(self.act1(self.conv_reduce(means)))
        return [
            scaled(x, self.gate(scale), self.overwrites)
            for x, scale in zip(branches, scales, strict=True)
        ]


class Plan(NamedTuple):
    """How a block becomes branches.

    Attributes:
        groups: The (channels, kernel size) of each branch, in order.
        expansion: The (channels in, channels out) of each convolution side by side before the
            depthwise one; narrow ones count as one.
        projection: Those of each after it.
    """

    groups: list[tuple[int, int]]
    expansion: list[tuple[int, int]]
    projection: list[tuple[int, int]]


def channel_groups(mix: MixConv2d, borders: Collection[int] = ()) -> list[tuple[int, int]]:
    """The (channels, kernel size) of each branch, in order.

    A border between two kernel sizes is moved down to a multiple of `BLOCK`, or only as far as the
    last of the given borders; what crosses it is zero-padded to its new neighbours' size. Sizes are
    those that `MixConv2d.merged` would count in, with the common dilation.

    Args:
        mix: The depthwise convolution.
        borders: Channels at which the 1x1 convolutions beside it are split.
    """
    convs = list(mix.children()) or [mix]
    extents = [conv.dilation[0] * (conv.kernel_size[0] - 1) for conv in convs]
    dilation = mix.merged().dilation[0]
    sizes = [
        extent // dilation + 1
        for extent, conv in zip(extents, convs, strict=True)
        for _ in range(conv.in_channels)
    ]
    ends, total = [], 0
    for conv in convs:
        total += conv.in_channels
        near = [total // BLOCK * BLOCK, *(border for border in borders if border <= total)]
        ends.append(total if conv is convs[-1] else max(near))
    groups, start = [], 0
    for end in ends:
        if end > start:
            groups.append((end - start, max(sizes[start:end])))
            start = end
    return groups


def branchable(model: nn.Module, split: bool = True) -> dict[str, Plan]:
    """The blocks that can be branches, by name, and how.

    Left out are blocks whose input or widened tensor something else reads: the head, through a tap.

    Args:
        model: Any network, as trained.
        split: With blocks whose 1x1 convolutions are several side by side.
    """
    found = {}
    for prefix, backbone in model.named_modules():
        if not isinstance(backbone, StagedBackbone):
            continue
        for path, block in backbone.blocks.named_modules(prefix=f"{prefix}.blocks".lstrip(".")):
            if isinstance(block, InvertedResidual):
                stage, index = map(int, path.split(".")[-2:])
                reads_all = index > 0 or f"stage{stage + 1}.expansion" not in backbone.taps
                expansion, projection = _shares(block.conv_pw), _shares(block.conv_pwl)
            elif isinstance(block, DepthwiseSeparable):  # only the first one has the stem before it
                first = block is backbone.blocks[0][0] and not block.has_shortcut
                reads_all = first and "stem" not in backbone.taps
                expansion, projection = _shares(backbone.conv_stem), _shares(block.conv_pw)
            else:
                continue
            if not isinstance(block.bn1, _BatchNorm):  # another norm cannot be dealt out
                continue
            pointwise = (getattr(block, name, None) for name in ("conv_pw", "conv_pwl"))
            if not split and any(isinstance(conv, SplitConv2d) for conv in pointwise):
                continue
            borders = {end for _, end in _ranges(out for _, out in expansion)[:-1]}
            borders |= {end for _, end in _ranges(channels for channels, _ in projection)[:-1]}
            groups = channel_groups(block.conv_dw, borders)
            if reads_all and len(groups) > 1:
                found[path] = Plan(groups, expansion, projection)
    return found


@torch.no_grad()
def branch(model: nn.Module, name: str, plan: Plan) -> None:
    """Make a block branches, in place.

    Args:
        model: A network whose batch norm is folded and whose MixConvs are merged.
        name: The block's.
        plan: What `branchable` said of it.
    """
    block = model.get_submodule(name)
    shares = [channels for channels, _ in plan.groups]

    def each(activation: nn.Module) -> Each:
        return Each([activation] * len(shares))

    block.conv_dw = _depthwise(block.conv_dw, plan.groups)
    block.act1 = each(block.act1)
    if isinstance(block, DepthwiseSeparable):
        backbone = model.get_submodule(name.removesuffix("blocks.0.0").rstrip("."))
        backbone.conv_stem = fan(backbone.conv_stem, shares)
        backbone.act1 = each(backbone.act1)
        block.conv_pw = join(block.conv_pw, shares, plan.projection)
    else:
        block.conv_pw = fan(block.conv_pw, shares, plan.expansion)
        block.act2 = each(block.act2)
        if isinstance(block.se, SqueezeExcite):
            block.se = JoinedSqueezeExcite(block.se, shares)
        block.conv_pwl = join(block.conv_pwl, shares, plan.projection)


def fan(
    conv: nn.Conv2d, shares: Sequence[int], splits: Sequence[tuple[int, int]] | None = None
) -> Fan:
    """Deal out the output channels of a convolution.

    Args:
        conv: The convolution.
        shares: Output channels of each branch.
        splits: The (channels in, channels out) of each of the convolutions side by side of which
            it was made; a branch reads those that it has outputs of.
    """
    splits = splits or [(conv.in_channels, conv.out_channels)]
    sources, outputs = (_ranges(side) for side in zip(*splits, strict=True))
    convs, reads = [], []
    for share in _ranges(shares):
        met = [source for source, made in zip(sources, outputs, strict=True) if _meet(made, share)]
        read = (met[0][0], met[-1][1])
        rows = slice(*share)
        convs.append(_like(conv, conv.weight[rows, slice(*read)], conv.bias[rows]))
        reads.append(read)
    return Fan(convs, reads)


def join(
    conv: nn.Conv2d, shares: Sequence[int], splits: Sequence[tuple[int, int]] | None = None
) -> Join | Lanes:
    """Deal out the input channels of a convolution; arguments as `fan`'s."""
    splits = splits or [(conv.in_channels, conv.out_channels)]
    sources, outputs = (_ranges(side) for side in zip(*splits, strict=True))
    joins = []
    for source, made in zip(sources, outputs, strict=True):
        rows, bias = conv.weight[slice(*made)], conv.bias[slice(*made)]
        reads = [index for index, share in enumerate(_ranges(shares)) if _meet(share, source)]
        convs = []
        for index in reads:
            convs.append(_like(conv, rows[:, slice(*_ranges(shares)[index])], bias))
            bias = None
        joins.append(Join(convs, reads))
    return joins[0] if len(joins) == 1 else Lanes(joins)


def narrow(conv: nn.Module) -> bool:
    """Whether 1x1 convolutions side by side are faster as a dense one, zeros and all."""
    return any(min(part.in_channels, part.out_channels) < NARROWEST for part in conv.children())


def _shares(conv: nn.Module) -> list[tuple[int, int]]:
    """The (channels in, channels out) of each convolution side by side, or of the dense one."""
    shares = [(part.in_channels, part.out_channels) for part in [*conv.children()] or [conv]]
    return [tuple(map(sum, zip(*shares, strict=True)))] if narrow(conv) else shares


def _ranges(shares: Iterable[int]) -> list[tuple[int, int]]:
    """The [first, end) of each share."""
    return [*pairwise(accumulate(shares, initial=0))]


def _meet(one: tuple[int, int], other: tuple[int, int]) -> bool:
    return max(one[0], other[0]) < min(one[1], other[1])


def _depthwise(conv: nn.Conv2d, groups: list[tuple[int, int]]) -> Each:
    """Cut a merged depthwise convolution up, each part with the kernel that it needs."""
    shares = [channels for channels, _ in groups]
    parts = zip(conv.weight.split(shares), conv.bias.split(shares), groups, strict=True)
    convs = []
    for weight, bias, (channels, size) in parts:
        border = (conv.kernel_size[0] - size) // 2
        inner = slice(border, border + size)
        padding = max(0, conv.padding[0] - border * conv.dilation[0])  # SAME pads by itself
        convs.append(_like(conv, weight[:, :, inner, inner], bias, channels, padding))
    return Each(convs)


def _like(
    conv: nn.Conv2d,
    weight: Tensor,
    bias: Tensor | None,
    groups: int = 1,
    padding: int | None = None,
) -> nn.Conv2d:
    """A convolution as another, with other weights."""
    made = type(conv)(
        weight.shape[1] * groups,
        len(weight),
        weight.shape[-1],
        conv.stride,
        conv.padding if padding is None else padding,
        conv.dilation,
        groups,
        bias is not None,
        device="meta",
    )
    made.weight = nn.Parameter(weight.clone())
    if bias is not None:
        made.bias = nn.Parameter(bias.clone())
    return made
