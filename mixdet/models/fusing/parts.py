"""Layers between tensors that are whole or split into parts, see `ChannelLayout`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from itertools import islice, pairwise

import torch
from torch import Tensor, nn

from mixdet.models.fusing.layout import ChannelLayout, Range

Parts = Tensor | list[Tensor]  # a whole tensor (N, C, H, W), or the parts (N, C_i, H, W) of one
Groups = tuple[ChannelLayout, ChannelLayout] | None  # of input and output channels; None is one


def as_list(x: Parts | None) -> list[Tensor]:
    """The parts of a tensor; one if it is whole, none of None."""
    return x if isinstance(x, list) else [] if x is None else [x]


class PerPart(nn.Sequential):
    """Apply a module, such as an activation, to each part of a tensor."""

    def forward(self, x: Parts) -> Parts:
        (module,) = self
        return [module(part) for part in x] if isinstance(x, list) else module(x)


class PartitionedConv2d(nn.ModuleList):
    """A convolution between tensors that may be split.

    A part of the output is one piece, or several pieces that are concatenated. A piece is a sum of
    convolutions; runtimes add while they convolve. If the output has more channels than the input,
    several parts are read joined, which copies the smaller side; otherwise each by itself. `conv`
    has a bias, and its weight is zero between the `groups`.
    """

    allow_inplace = False  # a sum may be written over one of its terms

    @torch.no_grad()
    def __init__(
        self, conv: nn.Conv2d, inputs: ChannelLayout, outputs: ChannelLayout, groups: Groups = None
    ) -> None:
        super().__init__()
        self.sources: list[tuple[Range, Range | None]] = []  # of each convolution, see `_read`
        self.pieces: list[list[int]] = []  # of each part, the number of convolutions of each piece
        join = conv.in_channels < conv.out_channels
        groups = groups or (ChannelLayout([conv.in_channels]), ChannelLayout([conv.out_channels]))
        located = list(zip(inputs.locate(groups[0]), outputs.locate(groups[1]), strict=True))
        weight, bias = inputs.pad(outputs.pad(conv.weight, 0), 1), outputs.pad(conv.bias, 0)
        for start, stop in outputs.locate(outputs):
            self.pieces.append([])
            for read, (first, end) in located:
                rows = slice(max(start, first), min(stop, end))
                terms = _sources(inputs, read, join) if rows.start < rows.stop else []
                for index, (source, columns) in enumerate(terms):
                    self.sources.append(source)
                    term = weight[rows, slice(*columns)]
                    self.append(_like(conv, term, None if index else bias[rows]))
                self.pieces[-1] += [len(terms)] if terms else []

    def forward(self, x: Parts, shortcut: Parts | None = None) -> Parts:
        """Convolve (N, C, H, W) to (N, C', H', W'), and add a shortcut of the output's layout."""
        parts = as_list(x)
        shortcuts = as_list(shortcut) or [None] * len(self.pieces)
        inputs = {source: _read(parts, *source) for source in dict.fromkeys(self.sources)}
        terms = (conv(inputs[source]) for conv, source in zip(self, self.sources, strict=True))
        outputs = []
        for counts, added in zip(self.pieces, shortcuts, strict=True):
            if len(counts) == 1:
                outputs.append(reduce(self._add, islice(terms, counts[0]), added))
            else:
                pieces = [reduce(self._add, islice(terms, count)) for count in counts]
                outputs.append(self._add(added, torch.cat(pieces, 1)))
        return outputs if len(outputs) > 1 else outputs[0]

    def _add(self, total: Tensor | None, y: Tensor) -> Tensor:
        if total is None:
            return y
        return y.add_(total) if self.allow_inplace else y + total


def _read(parts: Sequence[Tensor], span: Range, channels: Range | None) -> Tensor:
    """Join a span of parts, or take channels of a part."""
    x = parts[span[0]] if span[1] - span[0] == 1 else torch.cat(parts[slice(*span)], 1)
    return x[:, slice(*channels)] if channels else x


def _sources(inputs: ChannelLayout, read: Range, join: bool) -> list[tuple[tuple, Range]]:
    """What `_read` takes for a range of channels, and the weight's columns for it."""
    ranges = inputs.locate(inputs)
    met = [i for i, (first, end) in enumerate(ranges) if first < read[1] and read[0] < end]
    first, end = ranges[met[0]][0], ranges[met[-1]][1]
    if len(met) == 1 and (first, end) != read:
        return [(((met[0], met[0] + 1), (read[0] - first, read[1] - first)), read)]
    if join:
        return [(((met[0], met[-1] + 1), None), (first, end))]
    return [(((index, index + 1), None), ranges[index]) for index in met]


@torch.no_grad()
def split_depthwise(
    conv: nn.Conv2d, layout: ChannelLayout, kernel_sizes: Sequence[int]
) -> nn.ModuleList:
    """Split a depthwise convolution that has a bias, each part with the largest kernel it needs."""
    weight, bias, convs = layout.pad(conv.weight, 0), layout.pad(conv.bias, 0), []
    ends = pairwise([0, *layout.boundaries, len(kernel_sizes)])
    for (start, stop), (first, end) in zip(ends, layout.locate(layout), strict=True):
        size = max(kernel_sizes[start:stop])
        border = (conv.kernel_size[0] - size) // 2
        inner = slice(border, border + size)
        convs.append(_like(conv, weight[first:end, :, inner, inner], bias[first:end], end - first))
        padding = max(0, conv.padding[0] - border * conv.dilation[0])  # 0 where SAME pads itself
        convs[-1].padding = padding, padding
    return nn.ModuleList(convs)


def _like(conv: nn.Conv2d, weight: Tensor, bias: Tensor | None, groups: int = 1) -> nn.Conv2d:
    """A convolution like another one, with other weights."""
    shape = weight.shape[1] * groups, len(weight), weight.shape[-1]
    new = type(conv)(*shape, conv.stride, conv.padding, conv.dilation, groups, device="meta")
    new.weight = nn.Parameter(weight.clone())
    new.bias = None if bias is None else nn.Parameter(bias.clone())
    return new
