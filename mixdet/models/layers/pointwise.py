"""1x1 convolutions, alone or side by side, computed by oneDNN where it is the faster one."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mixdet.models.layers.mixconv import SplitConv2d
from mixdet.models.layers.shortcut import eager_on_cpu, hooked, onednn_computes

# On one thread torch leaves 1x1 convolutions of batches below 16 to a kernel of its own, unless
# they are dilated (ConvParams::use_mkldnn), which a single tap does not notice.
ONEDNN = dict(dilation=2)
# oneDNN lays out the weights anew in every call. A matrix product, which does not, took 0.3 times
# as long for 10 x 10 cells, 1.1 for 40 x 40, up to 1.5 for more (float32, an image, a thread).
FEW_CELLS = 40 * 40


class PointwiseConv2d(nn.Conv2d):
    """`nn.Conv2d` of kernel 1x1 and stride 1, faster in channels_last on a CPU; same arguments."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, out_channels, H, W)."""
        if not _faster(x):
            return super().forward(x)
        few = len(x) == 1 and x[0, 0].numel() <= FEW_CELLS
        if few and self.groups == 1 and not torch.is_grad_enabled():
            y = F.linear(x.permute(0, 2, 3, 1), self.weight.flatten(1), self.bias)
            return y.permute(0, 3, 1, 2)
        return F.conv2d(x, self.weight, self.bias, groups=self.groups, **ONEDNN)


class SplitPointwise(SplitConv2d):
    """1x1 convolutions of one shape side by side, without bias; in channels_last one grouped one.

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
        # who listens to a part, or has put another in its place, must be asked
        as_made = all(type(conv) is PointwiseConv2d and not hooked(conv) for conv in convs)
        if not (as_made and _faster(x)):
            return super().forward(x)
        return F.conv2d(x, torch.cat([conv.weight for conv in convs]), groups=len(convs), **ONEDNN)


def _faster(x: Tensor) -> bool:
    """Whether oneDNN is: float32 in channels_last on a CPU, and no trace or export."""
    return (
        eager_on_cpu(x)
        and x.dtype == torch.float32
        and onednn_computes(x.dtype)
        and not torch._C._functorch.is_batchedtensor(x)  # vmap's have no layout to ask for
        and not x.is_contiguous()
        and x.is_contiguous(memory_format=torch.channels_last)
    )
