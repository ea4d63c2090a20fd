"""Where the channels of a tensor lie: in one tensor, or in several parts."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from mixdet.models.fusing.forms import BLOCK

Range = tuple[int, int]  # [first, end)


class ChannelLayout:
    """Where the channels of a tensor lie.

    A whole tensor is a `Tensor` (N, C, H, W). A split tensor is a list of parts (N, C_i, H, W),
    each with the next channels in order. Zeros may follow the channels of a part.

    Args:
        sizes: Number of channels of each part, without zeros.
        min_channels: Zeros fill up each part of a split tensor to this many channels.
    """

    def __init__(self, sizes: Iterable[int], min_channels: int = 0) -> None:
        self.sizes = tuple(sizes)
        self.is_split = len(self.sizes) > 1
        self.padded_sizes = tuple(max(size, min_channels * self.is_split) for size in self.sizes)
        self.boundaries = list(accumulate(self.sizes))[:-1]  # channels at which a new part begins

    def locate(self, groups: ChannelLayout) -> list[Range]:
        """Where groups of the channels lie in the joined parts, zeros included."""
        starts, padded_starts = ([0, *accumulate(s)] for s in (self.sizes, self.padded_sizes))
        ends = []
        for channel in (0, *accumulate(groups.sizes)):
            part = bisect_right(starts, channel) - 1
            ends.append(padded_starts[part] + channel - starts[part])
        return list(pairwise(ends))

    def pad(self, weight: Tensor, dim: int) -> Tensor:
        """Insert the zeros into a weight, along a dimension that runs over the channels."""
        others = [0, 0] * (weight.dim() - 1 - dim)
        parts = zip(weight.split(self.sizes, dim), self.sizes, self.padded_sizes, strict=True)
        return torch.cat([F.pad(w, [*others, 0, padded - size]) for w, size, padded in parts], dim)


def split_by_kernel(
    kernel_sizes: Sequence[int], boundaries: Iterable[int] = (), min_channels: int = 0
) -> ChannelLayout:
    """Split the channels of a MixConv, each with its kernel size, into branches.

    A branch ends at each of the `boundaries`: those of the groups of 1x1 convolutions beside it. A
    boundary between kernel sizes is moved down to a multiple of `BLOCK`, but not across one of
    these. The channels that it passes get the kernel size of their new branch.
    """
    ends = {0, len(kernel_sizes), *boundaries}
    for channel, (size, following) in enumerate(pairwise(kernel_sizes), 1):
        if size != following:
            ends.add(max([channel // BLOCK * BLOCK, *(b for b in boundaries if b <= channel)]))
    return ChannelLayout([end - first for first, end in pairwise(sorted(ends))], min_channels)
