"""A MixConv block as branches, one a kernel size, from its 1x1 expansion to its 1x1 projection.

The rows of the expansion are dealt out to the branches, and the projection becomes a sum: channels
are never split or joined, and no kernel is larger than its channels need. Every part takes the
place of one submodule, so that a block's own `forward` stays as it is.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mixdet.models.backbones.base import StagedBackbone
from mixdet.models.layers import DepthwiseSeparable, InvertedResidual, MixConv2d, SqueezeExcite
from mixdet.models.layers.mixconv import SplitConv2d

# ONNX Runtime's and OpenVINO's convolutions keep channels in blocks of 8 (AVX2) or 16 (AVX-512)
BLOCK = 16


class Fan(nn.ModuleList):
    """One tensor into a list of them, a convolution each."""

    def forward(self, x: Tensor) -> list[Tensor]:
        """(N, C, H, W) -> a (N, C_i, H', W') a branch."""
        return [module(x) for module in self]


class Each(nn.ModuleList):
    """A module for every branch."""

    def forward(self, branches: list[Tensor]) -> list[Tensor]:
        """A (N, C_i, H, W) a branch -> a (N, C_i, H', W') a branch."""
        return [module(x) for module, x in zip(self, branches, strict=True)]


class Join(nn.ModuleList):
    """The sum of a convolution on every branch; runtimes add while they convolve."""

    def forward(self, branches: list[Tensor]) -> Tensor:
        """A (N, C_i, H, W) a branch -> (N, C, H', W')."""
        first, *others = (module(x) for module, x in zip(self, branches, strict=True))
        for other in others:
            first = other + first
        return first


class JoinedSqueezeExcite(nn.Module):
    """A squeeze-excite whose channels lie in branches.

    Args:
        se: The one to take apart.
        shares: Channels of each branch.
    """

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
        return [x * self.gate(scale) for x, scale in zip(branches, scales, strict=True)]


def channel_groups(mix: MixConv2d) -> list[tuple[int, int]]:
    """The (channels, kernel size) of each branch, in order.

    A border between two kernel sizes is moved down to a multiple of `BLOCK`; what crosses it is
    zero-padded to its new neighbours' size. Sizes are those that `MixConv2d.merged` would count in,
    with the common dilation.
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
        ends.append(total // BLOCK * BLOCK if conv is not convs[-1] else total)
    groups, start = [], 0
    for end in ends:
        if end > start:
            groups.append((end - start, max(sizes[start:end])))
            start = end
    return groups


def branchable(model: nn.Module, dense: bool = True) -> dict[str, list[tuple[int, int]]]:
    """The blocks that can be branches, by name, with their `channel_groups`.

    Left out are blocks whose input or widened tensor something else reads: the head, through a tap.

    Args:
        model: Any network.
        dense: With blocks whose 1x1 convolutions are several side by side, each on its share of the
            channels, which are not those of the branches: it has to become a dense one.
    """
    found = {}
    for prefix, backbone in model.named_modules():
        if not isinstance(backbone, StagedBackbone):
            continue
        for path, block in backbone.blocks.named_modules(prefix=f"{prefix}.blocks".lstrip(".")):
            if isinstance(block, InvertedResidual):
                stage, index = map(int, path.split(".")[-2:])
                reads_all = index > 0 or f"stage{stage + 1}.expansion" not in backbone.taps
            elif isinstance(block, DepthwiseSeparable):  # only the first one has the stem before it
                first = block is backbone.blocks[0][0] and not block.has_shortcut
                reads_all = first and "stem" not in backbone.taps
            else:
                continue
            pointwise = (getattr(block, name, None) for name in ("conv_pw", "conv_pwl"))
            if not dense and any(isinstance(conv, SplitConv2d) for conv in pointwise):
                continue
            groups = channel_groups(block.conv_dw)
            if reads_all and len(groups) > 1:
                found[path] = groups
    return found


@torch.no_grad()
def branch(model: nn.Module, name: str, groups: list[tuple[int, int]]) -> None:
    """Make a block branches, in place.

    Args:
        model: A network whose batch norm is folded and whose MixConvs are merged.
        name: The block's.
        groups: Its `channel_groups`.
    """
    block = model.get_submodule(name)
    shares = [channels for channels, _ in groups]

    def each(activation: nn.Module) -> Each:
        return Each([activation] * len(groups))

    block.conv_dw = _depthwise(block.conv_dw, groups)
    block.act1 = each(block.act1)
    if isinstance(block, DepthwiseSeparable):
        backbone = model.get_submodule(name.removesuffix("blocks.0.0").rstrip("."))
        backbone.conv_stem = fan(backbone.conv_stem, shares)
        backbone.act1 = each(backbone.act1)
        block.conv_pw = join(block.conv_pw, shares)
    else:
        block.conv_pw = fan(block.conv_pw, shares)
        block.act2 = each(block.act2)
        if isinstance(block.se, SqueezeExcite):
            block.se = JoinedSqueezeExcite(block.se, shares)
        block.conv_pwl = join(block.conv_pwl, shares)


def fan(conv: nn.Conv2d, shares: Sequence[int]) -> Fan:
    """Deal out the output channels of a convolution."""
    parts = zip(conv.weight.split(shares), conv.bias.split(shares), strict=True)
    return Fan(_like(conv, *part) for part in parts)


def join(conv: nn.Conv2d, shares: Sequence[int]) -> Join:
    """Deal out the input channels of a convolution."""
    biases = [conv.bias] + [None] * (len(shares) - 1)
    parts = zip(conv.weight.split(shares, 1), biases, strict=True)
    return Join(_like(conv, *part) for part in parts)


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
