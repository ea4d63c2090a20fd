"""How the channels of a tensor are stored: in one tensor, or in several parts."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from itertools import accumulate, pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from mixdet.models.fusing.forms import BLOCK

Range = tuple[int, int]  # [first, end)


class ChannelLayout:
    """The layout of a tensor's channels.

    A whole tensor is a `Tensor` (N, C, H, W). A split tensor is a list of parts (N, C_i, H, W) that
    hold its channels in order. A part may end in additional channels of zeros.

    Args:
        sizes: Number of channels of each part, without the additional zeros.
        min_channels: Zeros fill up each part of a split tensor to this many channels.
    """

    def __init__(self, sizes: Iterable[int], min_channels: int = 0) -> None:
        self.sizes = tuple(sizes)
        least = min_channels if len(self.sizes) > 1 else 0
        self.padded_sizes = tuple(max(size, least) for size in self.sizes)
        self.boundaries = list(accumulate(self.sizes))[:-1]  # channels at which a new part begins

    def locate(self, groups: ChannelLayout) -> list[Range]:
        """Return where each part of `groups` lies when the parts of this layout are joined."""
        *starts, total = accumulate(self.padded_sizes, initial=0)
        parts = zip(starts, self.sizes, strict=True)
        positions = [*(start + i for start, size in parts for i in range(size)), total]
        return list(pairwise(positions[end] for end in accumulate(groups.sizes, initial=0)))

    def pad(self, weight: Tensor, dim: int) -> Tensor:
        """Insert zeros for the additional channels into a weight or bias, along `dim`."""
        others = [0, 0] * (weight.dim() - 1 - dim)
        parts = zip(weight.split(self.sizes, dim), self.sizes, self.padded_sizes, strict=True)
        return torch.cat([F.pad(w, [*others, 0, padded - size]) for w, size, padded in parts], dim)


def split_by_kernel(
    kernel_sizes: Sequence[int], boundaries: Collection[int] = (), min_channels: int = 0
) -> ChannelLayout:
    """Split the channels of a MixConv into branches. `kernel_sizes` has one size per channel.

    A branch ends at each of the `boundaries`. A change of the kernel size also ends a branch: at
    the last boundary or multiple of `BLOCK` that is not after the change. The kernels of a branch
    are padded with zeros to the size of the branch's largest kernel.
    """
    ends = {0, len(kernel_sizes), *boundaries}
    for channel, (size, following) in enumerate(pairwise(kernel_sizes), 1):
        if size != following:
            ends.add(max([channel // BLOCK * BLOCK, *(b for b in boundaries if b <= channel)]))
    return ChannelLayout([end - first for first, end in pairwise(sorted(ends))], min_channels)
