"""The blocks of MobileNet and MixNet, with a MixConv where they have a depthwise convolution.

Parameters are called as in timm (`conv_pw`, `bn1`, `conv_dw`, `se.conv_reduce`, ...), so that
weights go both ways without renaming.
"""

from __future__ import annotations

from collections.abc import Sequence

from mmcv.cnn import build_activation_layer, build_norm_layer
from torch import Tensor, nn

from mixdet.models.layers.mixconv import MixConv2d, SplitConv2d, split_channels
from mixdet.models.layers.norm_act import norm_act
from mixdet.models.layers.pointwise import PointwiseConv2d, SplitPointwise

KernelSizes = int | Sequence[int]


def scaled(x: Tensor, gate: Tensor, overwrite: bool) -> Tensor:
    """A tensor (N, C, H, W) times a gate (N, C, 1, 1), in the tensor's place if so asked."""
    return x.mul_(gate) if overwrite else x * gate


def added(y: Tensor, x: Tensor, overwrite: bool) -> Tensor:
    """The sum of two tensors, in the first one's place if so asked."""
    return y.add_(x) if overwrite else y + x


class SqueezeExcite(nn.Module):
    """Scale each channel by a gate computed from the means of all (arXiv 1709.01507).

    Args:
        channels: Channels in and out.
        reduced: Channels between the two 1x1 convolutions.
        act_cfg: Activation between them.

    Attributes:
        overwrites: The result takes the place of the input, which nothing else may read then.
    """

    overwrites = False

    def __init__(self, channels: int, reduced: int, act_cfg: dict) -> None:
        super().__init__()
        self.conv_reduce = nn.Conv2d(channels, reduced, 1)
        self.act1 = build_activation_layer(act_cfg)
        self.conv_expand = nn.Conv2d(reduced, channels, 1)
        self.gate = nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        scale = self.conv_reduce(x.mean((2, 3), keepdim=True))
        return scaled(x, self.gate(self.conv_expand(self.act1(scale))), self.overwrites)


class DepthwiseSeparable(nn.Module):
    """Depthwise convolution, then 1x1 (MobileNetV1, arXiv 1704.04861).

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_sizes: Depthwise kernels, see `MixConv2d`.
        stride: Of the depthwise convolution.
        residual: MobileNetV2 and MixNet: no activation after the 1x1 convolution, and a shortcut
            where input and output have one shape. MobileNetV1: False, an activation and none.
        padding: 'symmetric' or 'same'.
        norm_cfg: Normalization after each convolution.
        act_cfg: Activation.

    Attributes:
        overwrites: The sum with the shortcut takes the place of the projection's output.
    """

    overwrites = False

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
        y = norm_act(self.bn1, self.act1, self.conv_dw(x))
        y = norm_act(self.bn2, self.act2, self.conv_pw(y))
        return added(y, x, self.overwrites) if self.has_shortcut else y


class Expansion(nn.Module):
    """The first third of an inverted residual block: 1x1 convolution, norm, activation.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output, the block's widened tensor.
        groups: The 1x1 convolution is this many side by side, each on its share of the channels.
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

    def expand(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, out_channels, H, W)."""
        return norm_act(self.bn1, self.act1, self.conv_pw(x))

    forward = expand


class InvertedResidual(Expansion):
    """1x1 expansion, depthwise convolution, squeeze-excite, linear 1x1 projection.

    MobileNetV2, arXiv 1801.04381, section 3.3; with squeeze-excite as in MnasNet and MixNet.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_sizes: Depthwise kernels, see `MixConv2d`.
        stride: Of the depthwise convolution; at 1 there is a shortcut where the channels agree.
        expand: The expansion multiplies the channels by this.
        se_ratio: Squeeze-excite has int(in_channels * se_ratio) channels; 0 for none.
        groups: Of the expansion and the projection: 1x1 convolutions side by side, each on its
            share of the channels.
        padding: 'symmetric' or 'same'.
        norm_cfg: Normalization after each convolution.
        act_cfg: Activation, also inside squeeze-excite.

    Attributes:
        overwrites: As `DepthwiseSeparable`'s.
    """

    overwrites = False

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_sizes: KernelSizes = 3,
        stride: int = 1,
        expand: int = 6,
        se_ratio: float = 0.0,
        groups: tuple[int, int] = (1, 1),
        *,
        padding: str = "symmetric",
        norm_cfg: dict,
        act_cfg: dict,
    ) -> None:
        channels = in_channels * expand
        super().__init__(in_channels, channels, groups[0], norm_cfg=norm_cfg, act_cfg=act_cfg)
        self.has_shortcut = stride == 1 and in_channels == out_channels
        self.conv_dw = MixConv2d(channels, kernel_sizes, stride, padding=padding)
        self.bn2 = build_norm_layer(norm_cfg, channels)[1]
        self.act2 = build_activation_layer(act_cfg)
        self.se = nn.Identity()
        if se_ratio:
            self.se = SqueezeExcite(channels, int(in_channels * se_ratio), act_cfg)
        self.conv_pwl = _pointwise(channels, out_channels, groups[1])
        self.bn3 = build_norm_layer(norm_cfg, out_channels)[1]

    def project(self, expanded: Tensor, x: Tensor) -> Tensor:
        """Everything after the expansion.

        Args:
            expanded: (N, in_channels * expand, H, W).
            x: The block's input (N, in_channels, H, W), for the shortcut.

        Returns:
            (N, out_channels, ceil(H/stride), ceil(W/stride)).
        """
        y = norm_act(self.bn2, self.act2, self.conv_dw(expanded))
        y = self.bn3(self.conv_pwl(self.se(y)))
        return added(y, x, self.overwrites) if self.has_shortcut else y

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, out_channels, ceil(H/stride), ceil(W/stride))."""
        return self.project(self.expand(x), x)


def _pointwise(in_channels: int, out_channels: int, groups: int) -> nn.Module:
    if groups == 1:
        return PointwiseConv2d(in_channels, out_channels, 1, bias=False)
    if in_channels % groups == out_channels % groups == 0:
        return SplitPointwise(in_channels, out_channels, groups)
    shares = zip(
        split_channels(in_channels, groups), split_channels(out_channels, groups), strict=True
    )
    return SplitConv2d(PointwiseConv2d(*share, 1, bias=False) for share in shares)
