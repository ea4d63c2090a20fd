"""The blocks of MobileNet and MixNet, with a MixConv in place of the depthwise convolution.

Parameters are named as in timm (`conv_pw`, `bn1`, `conv_dw`, `se.conv_reduce`, ...). Weights can
therefore be loaded in both directions without renaming.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmcv.cnn import build_activation_layer, build_norm_layer
from torch import Tensor, nn

from mixdet.models.fusing.blocks import BlockLayers, Layer
from mixdet.models.fusing.layout import ChannelLayout
from mixdet.models.fusing.parts import PartitionedConv2d, as_list
from mixdet.models.layers.mixconv import MixConv2d
from mixdet.models.layers.norm_act import apply_norm_act
from mixdet.models.layers.pointwise import PointwiseConv2d, SplitPointwiseConv2d

KernelSizes = int | Sequence[int]


class SqueezeExcite(nn.Module):
    """Scale each channel by a gate computed from the means of all channels (arXiv 1709.01507).

    Args:
        channels: Channels in and out.
        reduced: Channels between the two 1x1 convolutions.
        act_cfg: Activation between the two convolutions.

    Attributes:
        allow_inplace: The output may be written over the input. Then no other module may read the
            input.
    """

    allow_inplace = False

    def __init__(self, channels: int, reduced: int, act_cfg: dict) -> None:
        super().__init__()
        self.conv_reduce = nn.Conv2d(channels, reduced, 1)
        self.act1 = build_activation_layer(act_cfg)
        self.conv_expand = nn.Conv2d(reduced, channels, 1)
        self.gate = nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        scale = self.conv_reduce(x.mean((2, 3), keepdim=True))
        gate = self.gate(self.conv_expand(self.act1(scale)))
        return x.mul_(gate) if self.allow_inplace else x * gate

    def partitioned(self, layout: ChannelLayout) -> PartitionedSqueezeExcite:
        """Return the squeeze-excite for a split tensor, see `mixdet.models.fusing`."""
        return PartitionedSqueezeExcite(self, layout)


class PartitionedSqueezeExcite(nn.Module):
    """A squeeze-excite for a tensor that is split into parts.

    Args:
        se: The squeeze-excite of the whole tensor.
        layout: The layout of the tensor.

    Attributes:
        allow_inplace: As for `SqueezeExcite`.
    """

    allow_inplace = False

    def __init__(self, se: SqueezeExcite, layout: ChannelLayout) -> None:
        super().__init__()
        reduced = ChannelLayout([se.conv_reduce.out_channels])
        self.conv_reduce = PartitionedConv2d(se.conv_reduce, layout, reduced)
        self.act1, self.gate = se.act1, se.gate
        self.conv_expand = PartitionedConv2d(se.conv_expand, reduced, layout)

    def forward(self, parts: list[Tensor]) -> list[Tensor]:
        """Scale the parts (N, C_i, H, W)."""
        means = [x.mean((2, 3), keepdim=True) for x in parts]
        scales = as_list(self.conv_expand(self.act1(self.conv_reduce(means))))
        multiply = Tensor.mul_ if self.allow_inplace else torch.mul
        return [multiply(x, self.gate(scale)) for x, scale in zip(parts, scales, strict=True)]


class DepthwiseSeparable(nn.Module):
    """Depthwise convolution, then 1x1 convolution (MobileNetV1, arXiv 1704.04861).

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_sizes: Depthwise kernels, see `MixConv2d`.
        stride: Stride of the depthwise convolution.
        residual: True makes the block of MobileNetV2 and MixNet. It has no activation after the 1x1
            convolution, and has a shortcut if input and output have the same shape. False makes the
            block of MobileNetV1, with an activation after the 1x1 convolution and no shortcut.
        padding: 'symmetric' or 'same'.
        norm_cfg: Normalization after each convolution.
        act_cfg: Activation.

    Attributes:
        allow_inplace: The sum with the shortcut may be written over the projection's output.
        last: The block is the last one of the network, see `apply_norm_act`.
    """

    allow_inplace = False
    last = False

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_sizes: KernelSizes = 3,
        stride: int = 1,
        *,
        residual: bool = True,
        padding: str = "symmetric",
        norm_cfg: dict,
        act_cfg: dict,
    ) -> None:
        super().__init__()
        self.has_shortcut = residual and stride == 1 and in_channels == out_channels
        self.conv_dw = MixConv2d(in_channels, kernel_sizes, stride, padding=padding)
        self.bn1 = build_norm_layer(norm_cfg, in_channels)[1]
        self.act1 = build_activation_layer(act_cfg)
        self.conv_pw = PointwiseConv2d(in_channels, out_channels, 1, bias=False)
        self.bn2 = build_norm_layer(norm_cfg, out_channels)[1]
        self.act2 = nn.Identity() if residual else build_activation_layer(act_cfg)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, out_channels, ceil(H/stride), ceil(W/stride))."""
        y = apply_norm_act(self.bn1, self.act1, self.conv_dw(x))
        y = apply_norm_act(self.bn2, self.act2, self.conv_pw(y), self.last)
        if self.has_shortcut:
            return y.add_(x) if self.allow_inplace else y + x
        return y

    def fusible_layers(self) -> BlockLayers:
        """Return the layers in order for fusing."""
        depthwise = Layer(self.conv_dw, self.bn1, self.act1)
        project = Layer(self.conv_pw, self.bn2, self.act2)
        return BlockLayers(None, depthwise, None, project, self.has_shortcut)


class Expansion(nn.Module):
    """The first layer of an inverted residual block: 1x1 convolution, norm, activation.

    The network uses it in place of a block if no output needs the block's later layers.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        groups: Number of 1x1 convolutions side by side, each on its own group of channels.
        norm_cfg: Normalization.
        act_cfg: Activation.
    """

    def __init__(
        self, in_channels: int, out_channels: int, groups: int = 1, *, norm_cfg: dict, act_cfg: dict
    ) -> None:
        super().__init__()
        self.conv_pw = _pointwise(in_channels, out_channels, groups)
        self.bn1 = build_norm_layer(norm_cfg, out_channels)[1]
        self.act1 = build_activation_layer(act_cfg)

    def forward(self, x: Tensor, expansions: list[Tensor] | None = None) -> Tensor:
        """(N, in_channels, H, W) -> (N, out_channels, H, W), also appended to `expansions`."""
        y = apply_norm_act(self.bn1, self.act1, self.conv_pw(x), last=True)
        if expansions is not None:
            expansions.append(y)
        return y


class InvertedResidual(nn.Module):
    """1x1 expansion, depthwise convolution, squeeze-excite, linear 1x1 projection.

    This is the block of MobileNetV2 (arXiv 1801.04381, section 3.3). Squeeze-excite is added as in
    MnasNet and MixNet.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_sizes: Depthwise kernels, see `MixConv2d`.
        stride: Stride of the depthwise convolution. The block has a shortcut if the stride is 1 and
            `in_channels` equals `out_channels`.
        expand_ratio: The expansion multiplies the number of channels by this.
        se_ratio: Squeeze-excite has int(in_channels * se_ratio) channels. 0 leaves it out.
        groups: Number of 1x1 convolutions side by side in the expansion and in the projection, each
            on its own group of channels.
        padding: 'symmetric' or 'same'.
        norm_cfg: Normalization after each convolution.
        act_cfg: Activation, also inside squeeze-excite.

    Attributes:
        allow_inplace: The sum with the shortcut may be written over the projection's output.
    """

    allow_inplace = False

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_sizes: KernelSizes = 3,
        stride: int = 1,
        expand_ratio: int = 6,
        se_ratio: float = 0.0,
        groups: tuple[int, int] = (1, 1),
        *,
        padding: str = "symmetric",
        norm_cfg: dict,
        act_cfg: dict,
    ) -> None:
        super().__init__()
        channels = in_channels * expand_ratio
        self.has_shortcut = stride == 1 and in_channels == out_channels
        self.conv_pw = _pointwise(in_channels, channels, groups[0])
        self.bn1 = build_norm_layer(norm_cfg, channels)[1]
        self.act1 = build_activation_layer(act_cfg)
        self.conv_dw = MixConv2d(channels, kernel_sizes, stride, padding=padding)
        self.bn2 = build_norm_layer(norm_cfg, channels)[1]
        self.act2 = build_activation_layer(act_cfg)
        self.se = nn.Identity()
        if se_ratio:
            self.se = SqueezeExcite(channels, int(in_channels * se_ratio), act_cfg)
        self.conv_pwl = _pointwise(channels, out_channels, groups[1])
        self.bn3 = build_norm_layer(norm_cfg, out_channels)[1]

    def forward(self, x: Tensor, expansions: list[Tensor] | None = None) -> Tensor:
        """Compute the block.

        Args:
            x: (N, in_channels, H, W).
            expansions: A list to which the output of the expansion is appended,
                (N, in_channels * expand_ratio, H, W).

        Returns:
            (N, out_channels, ceil(H/stride), ceil(W/stride)).
        """
        expanded = apply_norm_act(self.bn1, self.act1, self.conv_pw(x))
        if expansions is not None:
            expansions.append(expanded)
        y = apply_norm_act(self.bn2, self.act2, self.conv_dw(expanded))
        y = self.bn3(self.conv_pwl(self.se(y)))
        if self.has_shortcut:
            return y.add_(x) if self.allow_inplace else y + x
        return y

    def fusible_layers(self) -> BlockLayers | None:
        """Return the layers in order for fusing, or None if `se` was replaced."""
        if type(self.se) not in (nn.Identity, SqueezeExcite):
            return None
        return BlockLayers(
            Layer(self.conv_pw, self.bn1, self.act1),
            Layer(self.conv_dw, self.bn2, self.act2),
            self.se if isinstance(self.se, SqueezeExcite) else None,
            Layer(self.conv_pwl, self.bn3, nn.Identity()),
            self.has_shortcut,
        )


def _pointwise(in_channels: int, out_channels: int, groups: int) -> nn.Module:
    if groups == 1:
        return PointwiseConv2d(in_channels, out_channels, 1, bias=False)
    return SplitPointwiseConv2d(in_channels, out_channels, groups)
