"""1x1 convolutions, alone or side by side, computed by oneDNN wherever it is the faster one."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mixdet.models.layers.hooked import hooked
from mixdet.models.layers.mixconv import SplitConv2d


class PointwiseConv2d(nn.Conv2d):
    """An `nn.Conv2d` of kernel 1x1 and stride 1, faster in float32 on a CPU; arguments as there."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, out_channels, H, W)."""
        return _conv1x1(x, self.weight, self.bias, self.groups)


class SplitPointwise(SplitConv2d):
    """1x1 convolutions of one shape side by side, without bias, computed as one grouped one.

    Args:
        in_channels: Channels of the input, of all together.
        out_channels: Channels of the output.
        groups: How many they are; both numbers of channels are multiples of it.
    """

    def __init__(self, in_channels: int, out_channels: int, groups: int) -> None:
        shape = (in_channels // groups, out_channels // groups)
        super().__init__(PointwiseConv2d(*shape, 1, bias=False) for _ in range(groups))

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, out_channels, H, W)."""
        convs = list(self.children())
        if any(hooked(conv) for conv in convs):  # who listens to the parts must hear them
            return super().forward(x)
        return _conv1x1(x, torch.cat([conv.weight for conv in convs]), None, len(convs))


def _conv1x1(x: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> Tensor:
    # On one thread torch leaves 1x1 convolutions of batches below 16 to a kernel of its own, unless
    # they are dilated (ConvParams::use_mkldnn), which a single tap does not notice. Exports and
    # traces are to show the convolution as it is.
    plain = (
        not isinstance(x, Tensor)
        or x.device.type != "cpu"
        or x.dtype != torch.float32
        or not torch.backends.mkldnn.is_available()
        or torch.compiler.is_compiling()
        or torch.jit.is_tracing()
    )
    return F.conv2d(x, weight, bias, dilation=1 if plain else 2, groups=groups)
