"""1x1 convolutions, one or several side by side, computed by oneDNN where that is faster."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mixdet.models.fusing.forms import FusedForm
from mixdet.models.layers.fast_path import eager_on_cpu, onednn_computes
from mixdet.models.layers.mixconv import SplitConv2d, split_channels
from mixdet.models.torch_private import hooked, is_vmapped

# On one thread, torch uses oneDNN for 1x1 convolutions of batches below 16 only if they are dilated
# (see ConvParams::use_mkldnn). A dilation makes no difference to a 1x1 kernel.
ONEDNN = dict(dilation=2)
# Up to this many cells, a matrix product is used instead of oneDNN. oneDNN reorders the weights in
# every call. The product took 0.3 times as long as oneDNN for 10 x 10 cells, 1.1 times for 40 x 40,
# and up to 1.5 times for more (float32, one image, one thread).
FEW_CELLS = 40 * 40


class PointwiseConv2d(nn.Conv2d):
    """An `nn.Conv2d` with a 1x1 kernel and stride 1 that is faster in channels_last on a CPU."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, out_channels, H, W)."""
        if not _onednn_is_faster(x):
            return super().forward(x)
        few = len(x) == 1 and x[0, 0].numel() <= FEW_CELLS
        if few and self.groups == 1 and not torch.is_grad_enabled():
            y = F.linear(x.permute(0, 2, 3, 1), self.weight.flatten(1), self.bias)
            return y.permute(0, 3, 1, 2)
        return F.conv2d(x, self.weight, self.bias, groups=self.groups, **ONEDNN)


class SplitPointwiseConv2d(SplitConv2d):
    """1x1 convolutions side by side, each on its own group of channels, without bias.

    In channels_last, groups of equal size are computed as one grouped convolution.

    Args:
        in_channels: Channels of the input, of all groups together.
        out_channels: Channels of the output, of all groups together.
        groups: Number of groups.
    """

    def __init__(self, in_channels: int, out_channels: int, groups: int) -> None:
        sizes = (split_channels(channels, groups) for channels in (in_channels, out_channels))
        super().__init__(
            PointwiseConv2d(*group, 1, bias=False) for group in zip(*sizes, strict=True)
        )
        self.equal_groups = in_channels % groups == out_channels % groups == 0

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, out_channels, H, W)."""
        convs = list(self.children())
        # A convolution that has a hook or was replaced must be called, not only read for weights.
        as_built = all(type(conv) is PointwiseConv2d and not hooked(conv) for conv in convs)
        if not (self.equal_groups and as_built and _onednn_is_faster(x)):
            return super().forward(x)
        return F.conv2d(x, torch.cat([conv.weight for conv in convs]), groups=len(convs), **ONEDNN)

    @torch.no_grad()
    def merged(self, groups: int = 1) -> PointwiseConv2d:
        """Merge the convolutions into one that computes the same outputs.

        Args:
            groups: 1 makes a dense convolution, whose weights between different groups are zero.
                The number of convolutions makes a grouped convolution, if all have the same size.
        """
        weights = [conv.weight for conv in self.children()]
        if groups == 1:
            weight = torch.block_diag(*(weight.flatten(1) for weight in weights))[..., None, None]
        else:
            weight = torch.cat(weights)
        shape = weight.shape[1] * groups, len(weight), 1
        conv = PointwiseConv2d(*shape, groups=groups, bias=False, device="meta")
        conv.weight = nn.Parameter(weight)
        return conv

    def fused(self, form: FusedForm) -> PointwiseConv2d:
        """Return the merged convolution for `fuse`, dense if a group is narrow or sizes differ."""
        convs = list(self.children())
        narrowest = min(min(conv.in_channels, conv.out_channels) for conv in convs)
        dense = not self.equal_groups or narrowest < (form.min_group_channels or 0)
        return self.merged(1 if dense else len(convs))


def _onednn_is_faster(x: Tensor) -> bool:
    """Tell whether `x` is float32 and channels_last on a CPU, and is not traced or exported."""
    return (
        eager_on_cpu(x)
        and x.dtype == torch.float32
        and onednn_computes(x.dtype)
        and not is_vmapped(x)
        and not x.is_contiguous()
        and x.is_contiguous(memory_format=torch.channels_last)
    )
